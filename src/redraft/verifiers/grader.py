"""A large language model that grades pictures, at any endpoint that speaks OpenAI's chat completions.

    Grader("gpt-5-mini", cache="grades.jsonl")                          the key is in OPENAI_API_KEY
    Grader("Qwen/Qwen2.5-VL-7B-Instruct", base_url="http://localhost:8000/v1")      a server of your own (vLLM, ...)

Ma et al., "Inference-time scaling for diffusion models beyond scaling denoising steps", 2025,
https://arxiv.org/abs/2501.09732, report such grades on five aspects and do not search by them; the aspects here are
theirs, the wording is not. Every answer is kept, with `cache` also on disk, so that nothing is paid for twice.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib import error as url_error
from urllib import request as url_request

import torch
from annotated_types import Interval
from torch import Tensor

from redraft.core.content import content
from redraft.core.errors import RedraftError, require
from redraft.core.fields import AtLeast0, Count, Number, Positive, checks
from redraft.core.files import regular
from redraft.core.task import Problems
from redraft.core.verifier import VerifierError
from redraft.verifiers.encoders import pixels, prompts_of

ASPECTS = {
    "accuracy": "everything that the prompt asks for is there, as the prompt describes it, and nothing contradicts it",
    "originality": "the picture has ideas of its own in composition, style or detail",
    "quality": "it is sharp, well lit and well made, without artefacts or impossible shapes",
    "consistency": "its parts fit together in style, perspective, light and anatomy",
    "emotion": "it conveys the mood or the theme that the prompt calls for",
}
"""Aspects, and when a picture deserves a high grade in each."""
BEST = 10.0
LONGEST_WAIT = 300.0  # seconds
PASSING = (408, 409, 425, 429)  # and 500 or more: worth another try
Scores = dict[str, float]


@dataclass
class Spent:
    """What a grader has asked for and paid.

    Attributes:
        requests: that were answered, also those whose answer was of no use.
        retries: requests that were made again.
        cached: pictures that were known already.
        prompt_tokens: as the endpoint counts them.
        completion_tokens: likewise.
        cost: of these, by the grader's `price`.
    """

    requests: int = 0
    retries: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0


class Grader:
    """The mean over aspects of the grades, 0 to 10, that a language model gives a picture for its prompt.

    Pictures are sent several at a time, each in a request of its own; scores are in the pictures' order. What an
    endpoint refuses for now (429, 5xx), time-outs and answers without grades are tried again, after a wait that doubles
    and is spread by a number that follows from the picture; an endpoint's Retry-After is obeyed.

    Attributes:
        spent: what all of it has cost so far.
        aspects: by name, what is graded.
        rows: samples at a time; all at once if None.
    """

    @checks
    def __init__(
        self,
        llm: str,
        base_url: str = "https://api.openai.com/v1",
        *,
        key: str | None = None,
        aspects: Mapping[str, str] | None = None,
        cache: str | Path | None = None,
        threads: Annotated[int, Interval(ge=1, le=1024)] = 8,
        retries: Number = 5,
        wait: AtLeast0 = 1.0,
        timeout: Positive = 60.0,
        price: tuple[AtLeast0, AtLeast0] = (0.0, 0.0),
        encoding: Literal["png", "jpeg"] = "png",
        options: Mapping[str, Any] | None = None,
        frames: Count = 1,
        rows: Count | None = None,
    ) -> None:
        """Reach no endpoint yet.

        Args:
            llm: the model, as the endpoint calls it.
            base_url: of the endpoint, up to and without /chat/completions.
            key: of the endpoint; the environment's OPENAI_API_KEY when not given.
            aspects: what to grade, by name, with what deserves a high grade; `ASPECTS` when not given.
            cache: file of JSON lines that keeps all answers, and is read here if it exists.
            threads: requests at a time.
            retries: how often a request is made again.
            wait: seconds before the first of these, about twice as many before each further one.
            timeout: seconds to wait for an answer.
            price: of a million tokens of prompts and of completions.
            encoding: of pictures on their way: "png" or "jpeg", which is smaller and not exact.
            options: further fields of the request, such as {"temperature": 0}.
            frames: most frames of a video, which are graded one by one.
            rows: samples at a time.

        Raises:
            RedraftError: a setting without a meaning, Pillow is missing, or a cache that cannot be read.
        """
        require("PIL.Image", "diffusers")
        key = os.environ.get("OPENAI_API_KEY") if key is None else key
        self.endpoint = Endpoint(base_url, key, timeout, retries, wait)
        self.llm, self.price, self.encoding, self.frames, self.rows = llm, price, encoding, frames, rows
        self.aspects, self.options, self.threads = dict(aspects or ASPECTS), dict(options or {}), threads
        self.spent, self._cache, self._schema, self._lock = Spent(), Cache(cache), True, threading.Lock()

    def __call__(self, samples: Tensor, problems: Problems) -> Tensor:
        """Mean grades (B,), float64.

        Raises:
            VerifierError: the endpoint gives no grades for a sample.
            RedraftError: the endpoint cannot be reached, or refuses the key or the request; answers so far are kept.
        """
        return torch.stack(list(self.grades(samples, problems).values())).mean(0)

    @property
    def mark(self) -> str:
        """Tells apart what is asked of which language model, not how often it was asked."""
        return content(self.llm, self.endpoint.base_url, self.aspects, self.encoding, self.options, self.frames)

    def grades(self, samples: Tensor, problems: Problems) -> dict[str, Tensor]:
        """Grades (B,) by aspect; raises as the call does."""
        texts, x = prompts_of(problems), pixels(samples, problems, self.frames)
        eight_bit = (x * 255).round().to(torch.uint8).cpu()
        asked = [Question(self, text, frame) for text, row in zip(texts, eight_bit, strict=True) for frame in row]
        found = self._answers(asked, problems, samples)
        table = torch.tensor([[each[name] for name in self.aspects] for each in found], dtype=torch.float64)
        mean = table.view(len(samples), -1, len(self.aspects)).mean(1).to(samples.device)
        return dict(zip(self.aspects, mean.unbind(1), strict=True))

    def _answers(self, asked: list[Question], problems: Problems, samples: Tensor) -> list[Scores]:
        """Grades of each question, those that are equal asked once."""
        new = {each.key: number for number, each in reversed([*enumerate(asked)]) if each.key not in self._cache.known}
        self.spent.cached += len(asked) - len(new)
        failures: dict[int, Exception] = {}
        stop = threading.Event()

        def work(number: int) -> None:
            try:
                if not stop.is_set():
                    self._cache.keep(asked[number].key, self._ask(asked[number], stop))
            except Exception as error:
                failures[number] = error  # in the order of time, so that the cause comes first
                if not isinstance(error, NoGrades):
                    stop.set()

        with ThreadPoolExecutor(self.threads) as pool:
            try:
                list(pool.map(work, sorted(new.values())))
            except KeyboardInterrupt:
                stop.set()
                raise
        if failures:
            self._fail(failures, problems, samples, len(asked) // len(samples))
        return [self._cache.known[each.key] for each in asked]

    def _fail(self, failures: dict[int, Exception], problems: Problems, samples: Tensor, each: int) -> None:
        number, error = next(iter(failures.items()))
        row = number // each
        if isinstance(error, NoGrades):
            raise VerifierError(str(error), row, int(problems.ids[row]), samples[row]) from error
        if isinstance(error, RedraftError):
            raise RedraftError(f"{error}; answers until then are kept") from error
        raise error

    def _ask(self, question: Question, stop: threading.Event) -> Scores:
        """The grades; an answer without any is asked for again."""
        for number in range(self.endpoint.retries + 1):
            answer = self._posted(question, number, stop)
            self._count(answer)
            try:
                return parsed(_content(answer), self.aspects)
            except ValueError as error:
                failure = NoGrades(f"got no grades from {self.llm!r}: {error}")
            with self._lock:
                self.spent.retries += number < self.endpoint.retries
        raise failure

    def _posted(self, question: Question, number: int, stop: threading.Event) -> Any:
        """The endpoint's answer; an endpoint that knows no schemas is asked without, from then on."""
        schema = self._schema
        try:
            return self.endpoint.post(question.body(schema), f"{question.key} {number}", self._retried, stop)
        except Refused as error:
            if not schema or error.status not in (400, 422) or not _about_schema(str(error)):
                raise
        self._schema = False
        return self.endpoint.post(question.body(False), f"{question.key} {number}", self._retried, stop)

    def _retried(self) -> None:
        with self._lock:
            self.spent.retries += 1

    def _count(self, answer: Any) -> None:
        usage = answer.get("usage") if isinstance(answer, dict) else None
        prompt, completion = (int((usage or {}).get(f"{each}_tokens") or 0) for each in ("prompt", "completion"))
        with self._lock:
            self.spent.requests += 1
            self.spent.prompt_tokens += prompt
            self.spent.completion_tokens += completion
            self.spent.cost += (prompt * self.price[0] + completion * self.price[1]) / 1e6


# ---- questions and answers


@dataclass(frozen=True)
class Question:
    """A picture, 8 bits (3, H, W), to be graded for a prompt."""

    grader: Grader
    prompt: str
    picture: Tensor
    key: str = field(init=False)

    def __post_init__(self) -> None:
        """Know it again by all that its answer depends on."""
        about = [self.grader.llm, self.text, self.grader.encoding, self.grader.options, list(self.picture.shape)]
        mark = hashlib.sha256(json.dumps(about, sort_keys=True, default=repr).encode())
        mark.update(self.picture.contiguous().numpy().tobytes())
        object.__setattr__(self, "key", mark.hexdigest())

    @property
    def text(self) -> str:
        """What the language model is told."""
        aspects = "\n".join(f"- {name}: {meaning}" for name, meaning in self.grader.aspects.items())
        return (
            f"This picture was made for the following prompt:\n\n{self.prompt}\n\n"
            f"Grade it in each of these aspects by a number from 0 (not at all) to {BEST:.0f} (perfectly so). "
            f"Be strict: most pictures deserve grades in the middle.\n{aspects}\n\n"
            f"Answer by one JSON object with the keys {', '.join(self.grader.aspects)} and numbers as values."
        )

    def body(self, schema: bool) -> dict[str, Any]:
        """The request."""
        picture = {"type": "image_url", "image_url": {"url": data_uri(self.picture, self.grader.encoding)}}
        message = {"role": "user", "content": [{"type": "text", "text": self.text}, picture]}
        asked = {"response_format": _format(self.grader.aspects)} if schema else {}
        return {"model": self.grader.llm, "messages": [message]} | asked | self.grader.options


def data_uri(picture: Tensor, encoding: str) -> str:
    """A picture (3, H, W) of 8 bits as a data URI."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()).save(stream, encoding, quality=95)
    return f"data:image/{encoding};base64,{base64.b64encode(stream.getvalue()).decode()}"


def _format(aspects: Mapping[str, str]) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {name: {"type": "number"} for name in aspects},
        "required": list(aspects),
        "additionalProperties": False,
    }
    return {"type": "json_schema", "json_schema": {"name": "grades", "strict": True, "schema": schema}}


def _about_schema(message: str) -> bool:
    return any(word in message.lower() for word in ("response_format", "json_schema", "schema", "structured"))


class NoGrades(Exception):
    """Answers came, and none had grades."""


def _content(answer: Any) -> str:
    try:
        return str(answer["choices"][0]["message"]["content"] or "")
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError("the answer holds no message") from error


def parsed(text: str, aspects: Mapping[str, str]) -> Scores:
    """The grades in an answer: of the first JSON object in it that has all of them.

    Raises:
        ValueError: there is none, or a grade lies outside of 0 to 10.
    """
    for start in (place for place, letter in enumerate(text) if letter == "{"):
        try:
            found, _ = json.JSONDecoder().raw_decode(text, start)
            grades = {str(name).strip().lower(): value for name, value in found.items()}
            return {name: _grade(name, grades[name.lower()]) for name in aspects}
        except (json.JSONDecodeError, KeyError):
            continue
    raise ValueError(f"{text[:80]!r} holds no object with {', '.join(aspects)}")


def _grade(name: str, value: Any) -> float:
    value = value.get("score", value) if isinstance(value, dict) else value
    try:
        grade = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        grade = float("nan")
    if not (math.isfinite(grade) and 0 <= grade <= BEST):
        raise ValueError(f"{name!r} is graded {value!r}, not 0 to {BEST:.0f}")
    return grade


# ---- the cache


class Cache:
    """Grades by question, in memory and, if there is a file, in a line of JSON each, written at once."""

    def __init__(self, path: str | Path | None) -> None:
        """Read the file, if it exists; a line that was cut off when a program was killed is left out."""
        self.path, self.known, self._lock = None if path is None else Path(path), dict[str, Scores](), threading.Lock()
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.exists():
                regular(self.path)
            with self.path.open("a+b") as file:
                file.seek(0)
                text = file.read()
                if text and not text.endswith(b"\n"):
                    file.write(b"\n")
        except OSError as error:
            raise RedraftError(f"the cache {self.path} cannot be read and written: {error}") from error
        for line in text.splitlines():
            self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            entry = json.loads(line)
            self.known[entry["key"]] = {str(name): float(grade) for name, grade in entry["grades"].items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            return

    def keep(self, key: str, grades: Scores) -> None:
        """Remember an answer."""
        line = json.dumps({"key": key, "grades": grades}) + "\n"
        with self._lock:
            self.known[key] = grades
            if self.path is not None:
                with self.path.open("a") as file:
                    file.write(line)


# ---- the endpoint


class Refused(RedraftError):
    """The endpoint refused a request for good.

    Attributes:
        status: of HTTP.
    """

    def __init__(self, sentence: str, status: int) -> None:
        """Say so in a sentence."""
        self.status = status
        super().__init__(sentence)


class _NoRedirect(url_request.HTTPRedirectHandler):
    """Follows nothing: the key is for one host."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """No other request."""


@dataclass
class Endpoint:
    """An address that takes requests as JSON.

    Attributes:
        base_url: up to and without /chat/completions.
        key: sent as a bearer token, if there is one.
        timeout: seconds to wait for an answer.
        retries: how often one is made again.
        wait: seconds before the first of these.
    """

    base_url: str
    key: str | None = field(repr=False)
    timeout: float
    retries: int
    wait: float

    def __post_init__(self) -> None:
        """Reject what is no address, or no key."""
        if not self.base_url.startswith(("http://", "https://")):
            raise RedraftError(f"base_url is {self.base_url!r}: it must begin with http:// or https://")
        self.key = (self.key or "").strip() or None
        if self.key and not (self.key.isascii() and self.key.isprintable()):
            raise RedraftError("the key holds what no key does, such as a line break: set OPENAI_API_KEY or key= anew")
        self._opener = url_request.build_opener(_NoRedirect)

    @property
    def url(self) -> str:
        """Where requests go."""
        return self.base_url.rstrip("/") + "/chat/completions"

    def post(self, body: dict[str, Any], name: str, on_retry: Callable[[], None], stop: threading.Event) -> Any:
        """The JSON that answers `body`, at last.

        Args:
            body: of the request.
            name: fixes the spread of the waits.
            on_retry: called before a request is made again.
            stop: ends the waiting, because another request has failed for good.

        Raises:
            Refused: for good.
            RedraftError: it could not be reached, or was busy all the time.
        """
        for number in range(self.retries + 1):
            try:
                return self._once(json.dumps(body).encode())
            except url_error.HTTPError as error:
                failure, asked = self._judged(error), retry_after(error.headers.get("Retry-After"))
            except (OSError, HTTPException, ValueError) as error:  # no connection, a time-out, broken HTTP or JSON
                failure, asked = RedraftError(f"{self.url} cannot be reached or understood: {_reason(error)}"), 0.0
            if number == self.retries or stop.is_set():
                raise failure
            stop.wait(min(max(self.wait * 2**number * spread(f"{name} {number}"), asked), LONGEST_WAIT))
            on_retry()
        raise AssertionError("there is one try or more")

    def _once(self, data: bytes) -> Any:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        asked = url_request.Request(self.url, data, headers)
        with self._opener.open(asked, timeout=self.timeout) as answer:
            return json.loads(answer.read())

    def _judged(self, error: url_error.HTTPError) -> RedraftError:
        """What to raise in the end if it is worth another try; raises at once if it is not."""
        with error:
            said = _message(error.read())
        if error.code in PASSING or error.code >= 500:
            return RedraftError(f"{self.url} still answers {error.code} after {self.retries + 1} requests: {said}")
        if error.code in (401, 403):
            raise Refused(f"{self.url} refuses the key: set OPENAI_API_KEY or give key= ({said})", error.code)
        raise Refused(f"{self.url} refuses the request with {error.code}: {said}", error.code)


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", error)
    if type(reason) is ValueError:  # http.client's quote headers, and so the key
        return "ValueError"
    return f"{type(reason).__name__}: {reason}" if isinstance(reason, Exception) else str(reason)


def _message(body: bytes) -> str:
    """What an endpoint says of an error, in a line."""
    text = body.decode(errors="replace")
    try:
        said = json.loads(text)
        said = said.get("error", said.get("detail", said)) if isinstance(said, dict) else said
        text = str(said.get("message", said) if isinstance(said, dict) else said)
    except ValueError:
        pass
    return " ".join(text.split())[:200] or "it does not say why"


def spread(name: str) -> float:
    """A number in [0.5, 1) that follows from `name`, so that many requests do not come back at the same moment."""
    return 0.5 + int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") / 2**33


def retry_after(value: str | None) -> float:
    """Seconds that the header asks to wait, by a number or a date; 0 if it does not."""
    if not value:
        return 0.0
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return 0.0
