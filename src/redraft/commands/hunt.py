"""A search under way: its folder, what it is made of, and what it leaves of each prompt."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import redraft
from redraft.commands.shown import NAME, Shown, drawn, numbered
from redraft.commands.sized import baseline, takes_part
from redraft.core.batched import Batched
from redraft.core.content import marked
from redraft.core.errors import RedraftError
from redraft.core.files import plain, prepare, replacing, write
from redraft.core.result import settings_of
from redraft.core.task import Problems
from redraft.report.found import Found, read_object
from redraft.report.gallery import Gallery, pixels
from redraft.report.pictures import png
from redraft.verifiers.combined import held_out

if TYPE_CHECKING:
    from redraft.commands.search import Search
    from redraft.core.method import Method
    from redraft.core.result import Result
    from redraft.core.trace import Trace
    from redraft.tasks.prompt_sets import PromptSet

CALL = ("dtype", "guidance_scale", "negative_prompt", "height", "width")
"""Settings of the model and of its call, which its mark tells apart but does not name."""
OURS = re.compile(r"(search\.json|index\.html|prompts|work|\.lock)(\.part)?")
"""What a search puts into its folder."""
WORDS = {
    "weights": "model or other arguments of its call",
    "verifier_marks": "verifier behind the same name",
    "method": "--method, --settings or --batch",
    "budget": "--budget",
    "prompts": "--prompt, --prompts or --limit",
    "versions": "version of redraft, torch or Python",
}
"""What sets two searches apart, by the setting, where it is not of one option's name."""


def claim(folder: Path) -> Path:
    """The folder of a search, if it is empty or holds one already; made, and seen to take files.

    Raises:
        RedraftError: it holds something else, or cannot be written.
    """
    if os.path.lexists(folder / "search.json"):
        _settings_in(folder)
    elif os.path.isdir(folder):
        try:
            strange = next(_strange(folder), None)
        except OSError as error:
            raise RedraftError(f"the folder {folder} cannot be read: {error.strerror}") from error
        if strange is not None:
            raise RedraftError(f"{folder} holds {strange}, which no search wrote: choose another folder by --out")
    return prepare(folder)


def _strange(folder: Path) -> Iterator[str]:
    """What is in a folder without search.json that tells that it is no search's."""
    names = {path.name for path in folder.iterdir()}
    yield from sorted(name for name in names if not OURS.fullmatch(name))
    inside = [path for name in ("prompts", "work") if (folder / name).is_dir() for path in (folder / name).iterdir()]
    yield from sorted(str(path.relative_to(folder)) for path in inside if not re.fullmatch(r"\d{4,}", path.name))
    if "index.html" in names and not inside:
        yield "index.html"


def _settings_in(folder: Path) -> dict[str, Any] | None:
    """What search.json says, if there is one."""
    path = folder / "search.json"
    mend = "delete it and give the same command again; prompts that are done are kept"
    return read_object(path, mend) if plain(path) else None


@dataclass
class Hunt:
    """A search under way, prompt by prompt; a prompt is done when its folder has a summary that says so."""

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

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All that the outcome depends on, looked through once."""
        budget = redraft.Budget(nfe=self.command.budget)
        texts = json.dumps([self.prompts.texts, self.prompts.facts], sort_keys=True)
        return settings_of(self.method, self.model, budget, self.command.seed) | {
            "verifier": self.command.verifier,
            "held_out": self.command.held_out,
            "verifier_options": self.command.options,
            "verifier_marks": {name: marked(f"verifier {name!r}", each) for name, each in self.verifiers.items()},
            "n_images": self.command.n_images,
            "steps": self.command.steps,
            "stochasticity": self.sampler.stochasticity,
            "path": self.command.path,
            "prompts": f"{len(self.prompts)}, {hashlib.sha256(texts.encode()).hexdigest()[:12]}",
            **self.command.given(),
        }

    def mark(self, place: int) -> str:
        """Twelve hexadecimal digits that tell apart what is searched for the prompt number `place`, and how."""
        words = json.dumps([self.settings, place], sort_keys=True)
        return hashlib.sha256(words.encode()).hexdigest()[:12]

    def check(self) -> None:
        """See that all that is in the folder is this search's, and whole, and write down what is searched for.

        Raises:
            RedraftError: something is another one's, or damaged.
        """
        mine, there = self.settings, _settings_in(self.out)
        if there is not None and (other := differing(mine, there)):
            raise RedraftError(f"{self.out} holds a search with another {other}: choose another folder or delete it")
        for place in range(len(self.prompts)):
            if found := Found.read(self.folder(place)):
                if found.mark != self.mark(place):
                    raise RedraftError(f"{found.folder} is another search's: choose another folder or delete it")
                found.check(self.roles)
            for path in self.folder(place).iterdir() if self.folder(place).is_dir() else ():
                plain(path)
        for name in ("prompts", "work"):
            prepare(self.out / name)
        plain(self.out / "index.html")
        if there is None:
            write(self.out / "search.json", (json.dumps(mine, indent=2) + "\n").encode())

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
        shown = Shown(self.guide, work / f"shown-{self.mark(place)}")
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
            self.clear(work, shown.folder)
            self.tell(place)

    def keep(self, place: int, problems: Problems, base: Result, result: Result, shown: Shown) -> None:
        """Write a prompt's folder; its summary, without which nothing counts, goes first and comes last.

        Raises:
            RedraftError: it cannot be written.
        """
        folder, plain = prepare(self.folder(place)), self.ahead(problems, base, result)
        about = self.summary(place, problems, base, result, plain)
        try:
            (folder / "summary.json").unlink(missing_ok=True)
            for number, image in enumerate(about["images"]):
                write(folder / f"baseline-{number}.png", png(pixels(base.samples[number]), colours=None))
                winner = (base if plain[number] else result).samples[number]
                write(folder / f"winner-{number}.png", png(pixels(winner), colours=None))
                numbers = numbered(result.candidates, image["problem"], image["candidate"])
                cells = shown.of(image["problem"], numbers, image["candidate"])
                image["sheet"] = [each.label(numbers) for each in cells]
                if cells:
                    write(folder / f"candidates-{number}.png", drawn(cells, numbers))
            save(result.trace, folder / "trace.parquet")
            if len(result.candidates):
                save(result.candidates, folder / "candidates.parquet")
            write(folder / "summary.json", (json.dumps(about, indent=2, ensure_ascii=False) + "\n").encode())
        except OSError as error:
            raise RedraftError(f"{folder} cannot be written: {error.strerror or error}") from error

    def clear(self, work: Path, shown: Path) -> None:
        """Remove what a prompt's search has left on its way, and the folders if nothing else is in them."""
        mine = [path for path in shown.iterdir() if NAME.fullmatch(path.name)]
        with suppress(OSError):
            for path in (*mine, *(work / f"run.{ending}" for ending in ("safetensors", "part"))):
                path.unlink(missing_ok=True)
            shown.rmdir()
            work.rmdir()

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
        apart = takes_part(self.method)
        spent = [base.ledger, result.ledger] if apart else [result.ledger]
        for number, problem in enumerate(problems.ids.tolist()):
            best = last(base.trace if plain[number] else result.trace, problem)
            images.append(
                {
                    "problem": problem,
                    "baseline_nfe": int(base.ledger.nfe[number]),
                    "baseline": {name: last(base.trace, problem)[name] for name in self.roles},
                    "baseline_candidate": None if apart else 0,
                    "baseline_won": plain[number],
                    "winner": {name: best[name] for name in self.roles},
                    "candidate": int(best["candidate"]) if "candidate" in best and not plain[number] else None,
                    "nfe": sum(int(ledger.nfe[number]) for ledger in spent),
                    "verifier_calls": sum(int(ledger.verifier_calls[number]) for ledger in spent),
                }
            )
        facts = {name: values[place] for name, values in self.prompts.facts.items()}
        about = {"prompt": self.prompts.texts[place], "facts": facts, "interrupted": result.interrupted}
        return about | {"mark": self.mark(place), "images": images}

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
        gallery = Gallery(list(self.found()), len(self.prompts), self.roles, self.settings)
        if gallery.found:
            write(self.out / "index.html", gallery.page().encode())


def problems_of(model: Any, prompts: PromptSet, place: int, images: int) -> Problems:
    """A problem for each image of the prompt number `place`.

    Raises:
        RedraftError: the model draws classes, and the prompt is none.
    """
    text = prompts.texts[place]
    with _told():
        problems = redraft.prompts(model, classes(model, [text]) or [text]).repeat(images)
    facts = {name: [values[place]] * images for name, values in prompts.facts.items()}
    return replace(problems, ids=place * images + torch.arange(images), facts=problems.facts | facts)


@contextmanager
def _told() -> Iterator[None]:
    """Without the libraries' own notices, at each encoding, of prompts that are cut off: that is said once before."""
    logs = [logging.getLogger(name) for name in ("diffusers.pipelines", "transformers.tokenization_utils_base")]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)


def classes(model: Any, texts: list[str]) -> list[int]:
    """Class numbers of the prompts, for a model that draws classes; none for others.

    Raises:
        RedraftError: a prompt is no class number.
    """
    if not {"class_labels", "label"} & set(model.example):
        return []
    for text in texts:
        if not text.isdecimal():
            raise RedraftError(f"{model.name!r} takes class numbers for prompts, not {text!r}")
    return [int(text) for text in texts]


def save(table: Trace, path: Path) -> None:
    """Write a table in one piece.

    Raises:
        OSError: it cannot be written.
    """
    plain(path.with_name(f"{path.name}.part"))
    with replacing(path) as part:
        table.save(part)


def differing(mine: dict[str, Any], there: dict[str, Any]) -> str | None:
    """What sets two searches apart, as the command line calls it; None if nothing does.

    The mark of the weights covers the arguments of the model's call, so the one that differs is looked for then.
    """
    names = [name for name in mine if name not in CALL and there.get(name) != mine[name]]
    names.sort(key=lambda name: name == "method")  # which also follows from budget and steps
    if "weights" in names and "model" not in names:
        names = [*(name for name in CALL if there.get(name) != mine.get(name)), *names]
    found = next(iter(names), None)
    return WORDS.get(found, f"--{found.replace('_', '-')}") if found else None


def last(trace: Trace, problem: int) -> dict[str, float]:
    """The last row of a problem."""
    rows = (trace["problem"] == problem).nonzero()[:, 0]
    return {name: float(trace[name][rows[-1]]) for name in trace}
