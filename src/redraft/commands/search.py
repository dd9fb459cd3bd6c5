"""Search from the command line: pictures that verifiers like, of any diffusers pipeline, and a page that shows them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

import redraft
from redraft.commands.sized import cost, plan
from redraft.core.batched import Batched
from redraft.core.content import content, marked
from redraft.core.errors import RedraftError, require, unknown
from redraft.core.files import prepare, write
from redraft.core.registry import VERIFIERS
from redraft.core.result import settings_of
from redraft.core.task import Problems
from redraft.report.gallery import MOST, Found, Gallery, pixels, sheet, small
from redraft.report.pictures import png
from redraft.tasks.prompt_sets import PromptSet, load_prompts
from redraft.verifiers.combined import MeanRank, WeightedSum, held_out

if TYPE_CHECKING:
    from torch import Tensor

    from redraft.core.method import Method
    from redraft.core.result import Result
    from redraft.core.trace import Trace


OF_RANDOM_STEPS = ("beam", "svdd", "fk")
"""Methods whose walks part on their way, for which the pipeline's own solver, which draws nothing, will not do."""

CALL = ("dtype", "guidance_scale", "negative_prompt", "height", "width")
"""Settings of the model and of its call, which its mark tells apart but does not name."""


@dataclass(frozen=True)
class Search:
    """Search for pictures that verifiers like best, with any diffusers pipeline, and write a page of them.

    Attributes:
        model: hub id of a pipeline, such as 'black-forest-labs/FLUX.1-dev', or a folder with model_index.json.
        prompt: what to draw; a class number where the pipeline takes one.
        prompts: instead, a file of many; see `redraft.tasks.prompt_sets`.
        set: what file it is: 'drawbench', 'parti', 't2i-compbench', 'text' or 'json'; by its ending when not given.
        limit: take the first so many prompts only.
        verifier: guides the search, a name from `redraft list`; of several, as in 'clip,aesthetic', the mean rank
            does; with weights, as in 'clip:1,aesthetic:0.1', their sum.
        held_out: verifiers that are only shown beside it.
        verifier_options: settings of verifiers as JSON or the path of a file with it: {"clip": {"checkpoint": "..."}}.
        method: 'random', 'zero-order', 'paths', 'halving', 'draft-then-verify', 'evolution', 'beam', 'svdd' or 'fk'.
        settings: of the method, such as neighbours=2 cosine=0.9.
        budget: the most network evaluations (NFE) that an image may cost, guidance counted twice; the method is made as
            large as fits. The method's own size when not given.
        steps: of the pipeline's scheduler.
        stochasticity: of a step, 0 for the pipeline's own solver, 1 for ancestral sampling along its levels; by default
            0, and 1 for 'beam', 'svdd' and 'fk', which need random steps.
        path: 'own', or of random steps and a flow 'vp', the levels of a variance-preserving path.
        n_images: for each prompt, each with a search of its own.
        batch: candidates of an image at once, in random search.
        seed: of all randomness.
        out: folder to write to; the same command with the same folder goes on where it was stopped.
        device: such as 'cuda'; a GPU if there is one when not given.
        dtype: of the weights, such as 'bfloat16'.
        guidance_scale: of the pipeline's call; the pipeline's own when not given.
        negative_prompt: of the pipeline's call.
        height: of the pictures in pixels, with width.
        width: of the pictures in pixels, with height.
    """

    model: str
    prompt: str | None = None
    prompts: Path | None = None
    set: str | None = None
    limit: int | None = None
    verifier: str = "clip"
    held_out: str | None = None
    verifier_options: str | None = None
    method: str = "random"
    settings: tuple[str, ...] = ()
    budget: int | None = None
    steps: int = 30
    stochasticity: float | None = None
    path: Literal["own", "vp"] = "own"
    n_images: int = 1
    batch: int = 4
    seed: int = 0
    out: Path = Path("redraft-search")
    device: str | None = None
    dtype: str | None = None
    guidance_scale: float | None = None
    negative_prompt: str | None = None
    height: int | None = None
    width: int | None = None

    def run(self) -> Hunt:
        """Search, prompt by prompt, and write the page."""
        require("PIL.Image", extra="plot")
        for name in ("n_images", "steps", "batch", "limit"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise RedraftError(f"{name} is {value}: it must be 1 or more")
        prompts, folder = self._prompts(), prepare(self.out)
        hunt = self._begun(prompts, folder)
        hunt.check()
        hunt.go()
        return hunt

    def _prompts(self) -> PromptSet:
        if (self.prompt is None) == (self.prompts is None):
            raise RedraftError("give either --prompt, one text, or --prompts, a file of them")
        found = PromptSet("one", [self.prompt]) if self.prompt is not None else load_prompts(self.prompts, self.set)  # type: ignore[arg-type]
        if found.repeated:
            print(f"{found.repeated} repeated prompts are left out")
        if self.limit is None:
            return found
        facts = {name: values[: self.limit] for name, values in found.facts.items()}
        return PromptSet(found.name, found.texts[: self.limit], facts)

    def given(self) -> dict[str, Any]:
        """What the model and its call are given, of `CALL`."""
        return {name: value for name in CALL if (value := getattr(self, name)) is not None}

    def _begun(self, prompts: PromptSet, folder: Path) -> Hunt:
        """The search, with all that it needs."""
        guide, parts, apart = guides(self.verifier, self.held_out)
        options = _options(self.verifier_options, (*parts, *apart))
        sampler = self._sampler()
        rough = replace(sampler, steps=max(1, self.steps // 4))
        open_plan = plan(self.method, self.batch, self.settings, sampler=sampler, draft=rough)
        model = redraft.load_model(self.model, self.device, **self.given())
        if "schedule" not in model.offers:
            raise RedraftError(f"{self.model!r} is no pipeline of diffusers: use `redraft sample` for it")
        loaded = {name: redraft.load_verifier(name, None, model, **options.get(name, {})) for name in (*parts, *apart)}
        problem = problems_of(model, prompts, 0, 1)
        fixed = self.budget is None or open_plan.size in open_plan.settings
        beside = cost(baseline(open_plan.of(), sampler), model, problem) if takes_part(open_plan.of()) else 0
        method = open_plan.of() if fixed else open_plan.fitted(model, problem, self.budget or 0, beside)
        roles = dict.fromkeys(parts, "guide") | dict.fromkeys(apart, "held out")
        return Hunt(
            self, model, sampler, method, combined(guide, {name: loaded[name] for name in parts}), loaded, roles,
            prompts, folder,
        )  # fmt: skip

    def _sampler(self) -> redraft.Scheduled:
        """The walk of all candidates."""
        stochasticity = self.stochasticity
        if stochasticity is None:
            stochasticity = float(self.method in OF_RANDOM_STEPS)
        return redraft.Scheduled(self.steps, stochasticity, path=self.path)


def baseline(method: Method, sampler: Any) -> Method:
    """A plain sample: the search's own first candidate where that is a whole sample."""
    if isinstance(method, redraft.ZeroOrder):
        return replace(method, rounds=0)
    return redraft.BestOfN(1, sampler=sampler)


def takes_part(method: Method) -> bool:
    """Whether the baseline is no candidate of the search, and so is compared with its answer in the end."""
    return not isinstance(method, redraft.BestOfN | redraft.ZeroOrder)


def guides(verifier: str, apart: str | None) -> tuple[dict[str, float] | None, list[str], list[str]]:
    """Weights by name, if there are any, the guides' names, and those held out.

    Raises:
        RedraftError: no names, some with a weight and some without, no weight but 0, or one name twice.
    """
    pairs = [name.strip().partition(":") for name in verifier.split(",") if name.strip()]
    names = [name for name, _, _ in pairs]
    others = [name.strip() for name in (apart or "").split(",") if name.strip()]
    if not names:
        raise RedraftError("give a verifier, such as --verifier clip")
    if twice := [name for place, name in enumerate(names + others) if name in (names + others)[:place]]:
        raise RedraftError(f"verifier {twice[0]!r} is named twice")
    weights = [weight for _, _, weight in pairs]
    if not any(weights):
        return None, names, others
    try:
        guide = {name: float(weight) for name, weight in zip(names, weights, strict=True)}
    except ValueError as error:
        raise RedraftError(f"{verifier!r} gives no number for each verifier: as in clip:1,aesthetic:0.1") from error
    if not any(guide.values()):
        raise RedraftError(f"{verifier!r} gives no verifier a weight, so that all pictures score 0: weigh one by 1")
    return guide, names, others


def combined(weights: dict[str, float] | None, parts: dict[str, Any]) -> Any:
    """One verifier of all."""
    if weights:
        return WeightedSum({name: (verifier, weights[name]) for name, verifier in parts.items()})
    return next(iter(parts.values())) if len(parts) == 1 else MeanRank(parts)


def problems_of(model: Any, prompts: PromptSet, place: int, images: int) -> Problems:
    """A problem for each image of the prompt number `place`.

    Raises:
        RedraftError: the pipeline takes class numbers, and the prompt is none.
    """
    text: Any = prompts.texts[place]
    if "class_labels" in model.example:
        if not text.isdecimal():
            raise RedraftError(f"{model.name!r} takes class numbers for prompts, not {text!r}")
        text = int(text)
    problems = redraft.prompts(model, [text]).repeat(images)
    facts = {name: [values[place]] * images for name, values in prompts.facts.items()}
    return replace(problems, ids=place * images + torch.arange(images), facts=problems.facts | facts)


def _options(given: str | None, asked: Collection[str]) -> dict[str, dict[str, Any]]:
    """Settings of the verifiers `asked`, by name.

    Raises:
        RedraftError: it is none, or of verifiers that there are not or that are not asked.
    """
    if given is None:
        return {}
    try:
        found = json.loads(given if given.lstrip().startswith("{") else Path(given).read_text(encoding="utf-8"))
        if not all(isinstance(value, dict) for value in found.values()):
            raise ValueError("a verifier's settings are no object")
    except (OSError, ValueError, AttributeError) as error:
        raise RedraftError(f"--verifier-options is neither JSON by verifier nor a file with it: {error}") from error
    for name in found:
        if name not in VERIFIERS:
            raise unknown("verifier in --verifier-options", name, VERIFIERS)
        if name not in asked:
            raise RedraftError(f"--verifier-options has settings of {name!r}, which no --verifier or --held-out names")
    return dict(found)


@dataclass
class Shown:
    """A verifier that keeps a small picture of everything that it is shown, in files, once each."""

    verifier: Any
    folder: Path
    seen: dict[int, set[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Go on from the files that there are."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.glob("*.png"):
            _, problem, digest, _ = path.stem.split("_")
            self.seen.setdefault(int(problem), set()).add(digest)

    def __getattr__(self, name: str) -> Any:
        """Whatever the verifier has."""
        return getattr(self.verifier, name)

    @property
    def mark(self) -> str:
        """That of the verifier: what it was shown changes no score."""
        return content(self.verifier)

    def __call__(self, samples: Tensor, problems: Problems) -> Tensor:
        """Scores (B,)."""
        scores: Tensor = self.verifier(samples, problems)
        for sample, problem, score in zip(samples, problems.ids.tolist(), scores.tolist(), strict=True):
            numbers = sample.detach().cpu().float().contiguous().numpy().tobytes()
            digest, seen = hashlib.sha256(numbers).hexdigest()[:16], self.seen.setdefault(problem, set())
            if digest not in seen:
                name = f"{len(seen)}_{problem}_{digest}_{score:.6g}.png"
                write(self.folder / name, png(pixels(small(sample)), colours=None))
                seen.add(digest)
        return scores

    def sheet(self, problem: int) -> bytes | None:
        """All that was shown for a problem: the best first, or in order if scores of different calls mean nothing."""
        image = require("PIL.Image", "plot")
        shown = sorted(map(Small.of, self.folder.glob(f"*_{problem}_*.png")), key=lambda each: each.number)
        if not getattr(self.verifier, "relative", False):
            shown.sort(key=lambda each: -each.score)
        if not shown:
            return None
        pictures = [np.asarray(image.open(each.path).convert("RGB")) for each in shown[:MOST]]
        return sheet(pictures, [f"{each.number + 1}: {each.score:.4g}" for each in shown])


@dataclass(frozen=True)
class Small:
    """A file of `Shown`: how many came before, and its score, which are in its name."""

    path: Path
    number: int
    score: float

    @classmethod
    def of(cls, path: Path) -> Small:
        """What the name says."""
        number, _, _, score = path.stem.split("_")
        return cls(path, int(number), float(score))


@dataclass
class Hunt:
    """A search under way, prompt by prompt; each prompt has a folder that appears in one piece when it is done."""

    command: Search
    model: Any
    sampler: Any
    method: Method
    guide: Any
    verifiers: dict[str, Any]
    roles: dict[str, str]
    prompts: PromptSet
    out: Path
    interrupted: bool = False

    def settings(self) -> dict[str, Any]:
        """All that the outcome depends on."""
        budget = redraft.Budget(nfe=self.command.budget)
        texts = json.dumps([self.prompts.texts, self.prompts.facts], sort_keys=True)
        return settings_of(self.method, self.model, budget, self.command.seed) | {
            "verifier": self.command.verifier,
            "held_out": self.command.held_out,
            "verifier_options": _options(self.command.verifier_options, self.verifiers),
            "verifier_marks": {name: marked(f"verifier {name!r}", each) for name, each in self.verifiers.items()},
            "n_images": self.command.n_images,
            "steps": self.command.steps,
            "stochasticity": self.sampler.stochasticity,
            "path": self.command.path,
            "prompts": f"{len(self.prompts)}, {hashlib.sha256(texts.encode()).hexdigest()[:12]}",
            **self.command.given(),
        }

    def check(self) -> None:
        """Raise unless the folder is empty or this search's.

        Raises:
            RedraftError: it is another one's.
        """
        path, mine = self.out / "search.json", self.settings()
        if not path.exists():
            write(path, (json.dumps(mine, indent=2) + "\n").encode())
            return
        try:
            other = differing(mine, json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, AttributeError):
            other = "form"
        if other:
            raise RedraftError(f"{self.out} holds a search with another {other}: choose another folder or delete it")

    def go(self) -> None:
        """Search for every prompt that is not done yet."""
        try:
            for place in range(len(self.prompts)):
                if not self.done(place) and not self.interrupted:
                    self.one(place)
                    self.page()
            self.page()
        except (RedraftError, KeyboardInterrupt) as error:
            with suppress(RedraftError):
                self.page()
            if isinstance(error, KeyboardInterrupt):
                raise
            done = sum(map(self.done, range(len(self.prompts))))
            raise RedraftError(
                f"{error}; {done} of {len(self.prompts)} prompts are done and in {self.out}, and the same command goes "
                "on from there"
            ) from error

    def folder(self, place: int) -> Path:
        """Of a prompt."""
        return self.out / "prompts" / f"{place:04d}"

    def found(self) -> Iterator[Found]:
        """What there is."""
        for place in range(len(self.prompts)):
            if found := Found.read(self.folder(place)):
                yield found

    def done(self, place: int) -> bool:
        """Whether the search for a prompt has ended."""
        found = Found.read(self.folder(place))
        return found is not None and not found.interrupted

    def one(self, place: int) -> None:
        """Search for one prompt and keep what is found, also if it fails on the way."""
        command, images = self.command, self.command.n_images
        problems, work = problems_of(self.model, self.prompts, place, images), self.out / "work" / f"{place:04d}"
        shown = Shown(self.guide, work / "shown")
        common: dict[str, Any] = {"seed": command.seed, "evaluate": held_out(self.verifiers)}
        plain = baseline(self.method, self.sampler)
        base = redraft.run(plain, self.model, problems, verifier=self.guide, progress=False, **common)
        paid = int(base.ledger.nfe.max()) if takes_part(self.method) else 0
        budget = redraft.Budget(nfe=None if command.budget is None else command.budget - paid)
        try:
            result = redraft.run(
                self.method, self.model, problems, verifier=shown, budget=budget, checkpoint=work, **common
            )
        except RedraftError as error:
            if error.result is not None:
                self.keep(place, problems, base, replace(error.result, interrupted=True), shown)
            raise
        self.keep(place, problems, base, result, shown)
        self.interrupted = result.interrupted
        if not result.interrupted:
            shutil.rmtree(work, ignore_errors=True)
            self.tell(place)

    def keep(self, place: int, problems: Problems, base: Result, result: Result, shown: Shown) -> None:
        """Write a prompt's folder.

        Raises:
            RedraftError: it cannot be written.
        """
        folder, part = self.folder(place), self.folder(place).with_suffix(".part")
        plain = self.ahead(problems, base, result)
        try:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            for number, problem in enumerate(problems.ids.tolist()):
                write(part / f"baseline-{number}.png", png(pixels(base.samples[number]), colours=None))
                winner = (base if plain[number] else result).samples[number]
                write(part / f"winner-{number}.png", png(pixels(winner), colours=None))
                if candidates := shown.sheet(problem):
                    write(part / f"candidates-{number}.png", candidates)
            result.trace.save(part / "trace.parquet")
            if len(result.candidates):
                result.candidates.save(part / "candidates.parquet")
            about = self.summary(place, problems, base, result, plain)
            write(part / "summary.json", (json.dumps(about, indent=2, ensure_ascii=False) + "\n").encode())
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(part, folder)
        except OSError as error:
            raise RedraftError(f"{folder} cannot be written: {error.strerror or error}") from error

    def ahead(self, problems: Problems, base: Result, result: Result) -> list[bool]:
        """For each image, whether the guide likes the baseline better than what the search found."""
        if not takes_part(self.method):
            return [False] * len(problems)
        both = Batched(self.guide)(torch.cat([base.samples, result.samples]), Problems.cat([problems, problems]))
        return (both[: len(problems)] > both[len(problems) :]).tolist()

    def summary(
        self, place: int, problems: Problems, base: Result, result: Result, plain: list[bool]
    ) -> dict[str, Any]:
        """What the page is made of; an image whose `plain` sample won has it for its winner."""
        images = []
        spent = [base.ledger, result.ledger] if takes_part(self.method) else [result.ledger]
        for number, problem in enumerate(problems.ids.tolist()):
            best = last(base.trace if plain[number] else result.trace, problem)
            images.append(
                {
                    "problem": problem,
                    "baseline_nfe": int(base.ledger.nfe[number]),
                    "baseline": {name: last(base.trace, problem)[name] for name in self.roles},
                    "winner": {name: best[name] for name in self.roles},
                    "candidate": int(best["candidate"]) if "candidate" in best and not plain[number] else None,
                    "nfe": sum(int(ledger.nfe[number]) for ledger in spent),
                    "verifier_calls": sum(int(ledger.verifier_calls[number]) for ledger in spent),
                }
            )
        facts = {name: values[place] for name, values in self.prompts.facts.items()}
        about = {"prompt": self.prompts.texts[place], "facts": facts, "interrupted": result.interrupted}
        return about | {"images": images}

    def tell(self, place: int) -> None:
        """Print what was found for a prompt."""
        found = Found.read(self.folder(place))
        assert found is not None
        scores = ", ".join(
            f"{name} {found.mean('baseline', name):.4g} -> {found.mean('winner', name):.4g}"
            + (" (held out)" if role == "held out" else "")
            for name, role in self.roles.items()
        )
        print(f"{place + 1}/{len(self.prompts)} {found.prompt[:60]!r}: {scores}", flush=True)

    def page(self) -> None:
        """Write the page of what there is."""
        gallery = Gallery(list(self.found()), len(self.prompts), self.roles, self.settings())
        if gallery.found:
            write(self.out / "index.html", gallery.page().encode())


def differing(mine: dict[str, Any], there: dict[str, Any]) -> str | None:
    """What sets two searches apart, by their settings; None if nothing does.

    The mark of the weights covers the arguments of the model's call, so the one that differs is looked for then.
    """
    names = [name for name in mine if name not in CALL and there.get(name) != mine[name]]
    if "weights" in names and "model" not in names:
        names = [*(name for name in CALL if there.get(name) != mine.get(name)), *names]
    found = next(iter(names), None)
    words = {"weights": "model or other arguments of its call", "verifier_marks": "verifier behind the same name"}
    return words.get(found, found) if found else None


def last(trace: Trace, problem: int) -> dict[str, float]:
    """The last row of a problem."""
    rows = (trace["problem"] == problem).nonzero()[:, 0]
    return {name: float(trace[name][rows[-1]]) for name in trace}
