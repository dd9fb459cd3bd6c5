"""Sample from the command line, and the table of metrics that it prints."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterator
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass, field, replace
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Union

import tyro

import redraft
from redraft.commands.sampled import Sampled, together
from redraft.commands.words import line
from redraft.core.batched import Batched
from redraft.core.errors import RedraftError
from redraft.core.files import prepare
from redraft.core.method import asks, settled
from redraft.core.registry import METHODS
from redraft.core.result import means_of
from redraft.report.statistics import FEWEST, mean_interval, wilson
from redraft.tasks.load import task_of

if TYPE_CHECKING:
    from torch import Tensor

    from redraft.core.method import Method as AnyMethod
    from redraft.core.result import Result
    from redraft.core.trace import Trace
else:  # a subcommand for each method there is; the hidden None makes them subcommands even if there is but one
    NAMED = tuple(Annotated[method, tyro.conf.subcommand(name)] for name, method in METHODS.usable())
    AnyMethod = Union[(*NAMED, Annotated[None, tyro.conf.Suppress])]  # noqa: UP007 - built when run

USUAL = {
    "sudoku": "violations",
    "sudoku-tokens": "violations",
    "python": "parses",
    "digits": "digit-classifier",
    "markov": "likelihood",
}
"""The verifier that methods which need one take, by the task's name."""
SHOWN = 8  # texts that are printed
HOW = ("method", "out", "checkpoint", "json", "quiet", "verbose")  # what no sample depends on, beside the method


@dataclass(frozen=True)
class Sample:
    """Sample from a model, at a budget if you like, and print the task's metrics.

    Attributes:
        method: how, with its own options; they come last.
        model: a name from `redraft list`, or a folder that `redraft train` wrote.
        task: a name from `redraft list`; the one of the model's name when not given, or else sudoku.
        verifier: a name from `redraft list`; the task's usual one when not given, if the method asks one. One that the
            method does not ask scores the samples only.
        n: problems.
        seed: of the problems and of all randomness.
        difficulty: of the problems, if the task knows difficulties.
        budget: the most network evaluations (NFE) that a problem may cost.
        out: folder to save the result in, with pictures or texts of the samples, and what is known of each.
        checkpoint: folder; a run that was killed goes on from it when started again.
        mnist: of the task, a folder with MNIST's files, for a model that was trained on them.
        reader: of the task, a folder that `redraft train reader` wrote.
        device: such as 'cuda'; a GPU if there is one when not given.
        json: print one JSON document and nothing else.
        quiet: print nothing but errors.
        verbose: say what is loaded, and print a line for each draft.
    """

    method: Annotated[AnyMethod, tyro.conf.arg(name="")] = field(default_factory=redraft.IPR)
    model: str = "sudoku"
    task: str | None = None
    verifier: str | None = None
    n: int = 16
    seed: int = 0
    difficulty: str | None = None
    budget: int | None = None
    out: Path | None = None
    checkpoint: Path | None = None
    mnist: str | None = None
    reader: str | None = None
    device: str | None = None
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    quiet: Annotated[bool, tyro.conf.arg(aliases=["-q"]), tyro.conf.FlagCreatePairsOff] = False
    verbose: Annotated[bool, tyro.conf.arg(aliases=["-v"]), tyro.conf.FlagCreatePairsOff] = False

    def run(self) -> Result:
        """Sample, save, print."""
        with redirect_stdout(sys.stderr) if self.json or self.quiet else nullcontext():
            made = self._made()
            if self.out:
                made.save(self.out)
        if self.json:
            print(json.dumps(made.about(), indent=2))
        elif not self.quiet:
            print("\n".join(self._told(made)))
        return made.result

    def _made(self) -> Sampled:
        called, task, model, kind = self._loaded()
        if self.out:
            prepare(self.out)
        problems = task.problems(self.n, self.seed, **kind)
        method = settled(self.method, model)
        asked = asks(method, model, problems)
        name = self.verifier or (USUAL.get(called) if asked else None)
        verifier = redraft.load_verifier(name, task, model) if name else None
        how = {"task": called, "verifier": name, "n": self.n, "difficulty": self.difficulty}
        self._say(f"model     {model!r}\ntask      {task!r}\nproblems  {problems!r}\nmethod    {method!r}")
        self._say(f"verifier  {name or 'none'}{'' if asked or not name else ', which the method does not ask'}")

        def draft(samples: Tensor, trace: Trace) -> None:
            self._say(_draft(task.evaluate(samples, problems), trace))

        result = redraft.run(
            method,
            model,
            problems,
            verifier=verifier if asked else None,
            budget=redraft.Budget(nfe=self.budget),
            seed=self.seed,
            on_draft=draft if self.verbose else None,
            checkpoint=self.checkpoint,
            progress=False if self.quiet or self.verbose else None,
        )
        result = replace(result, settings=result.settings | how | {"command": self._command(method, how)})
        score = Batched(verifier)(result.samples, problems) if verifier else None
        return Sampled(result, task.evaluate(result.samples, problems), score)

    def _loaded(self) -> tuple[str, Any, Any, dict[str, Any]]:
        """The task's name, the task, the model, and what the problems are to be besides."""
        given = {name: value for name in ("mnist", "reader") if (value := getattr(self, name)) is not None}
        name = self.task or task_of(self.model) or "sudoku"
        task = redraft.load_task(name, **given)
        if self.difficulty and "difficulty" not in inspect.signature(task.problems).parameters:
            raise RedraftError(f"the task {name!r} knows no difficulty: leave --difficulty out")
        model = redraft.load_model(self.model, self.device)
        return name, task, model, {"difficulty": self.difficulty} if self.difficulty else {}

    def _command(self, method: AnyMethod, how: dict[str, Any]) -> str:
        """The command line that makes the same samples again."""
        whole = replace(self, task=how["task"], verifier=how["verifier"])
        name = next(name for name, kind in METHODS.usable() if kind is type(method))
        return line(["redraft", "sample"], whole, name, method, without=HOW)

    def _say(self, text: str) -> None:
        if self.verbose:
            print(text, file=sys.stderr, flush=True)

    def _told(self, made: Sampled) -> Iterator[str]:
        """What is printed."""
        result = made.result
        if result.texts:
            yield together(result.texts[:SHOWN])
        score = {} if made.score is None else {result.settings["verifier"]: made.score}
        yield table(made.metrics | {name: value for name, value in score.items() if name not in made.metrics})
        calls = result.ledger.verifier_calls.double().mean()
        asked = f", {calls:.0f} verifier calls" if calls else ""
        yield f"{result.ledger.nfe.double().mean():.0f} NFE{asked} per problem, {result.seconds:.1f} seconds in all"
        if self.out:
            yield f"folder: {self.out}"


def _draft(metrics: dict[str, Tensor], trace: Trace) -> str:
    """A line of what a draft cost and what the samples so far are like."""
    number, nfe = int(trace["draft"].max()), float(trace["nfe"][trace["draft"] == trace["draft"].max()].double().mean())
    return f"draft {number:3}   {nfe:6.0f} NFE   " + "   ".join(
        f"{name} {mean:.4g}" for name, mean in means_of(metrics).items()
    )


def table(metrics: dict[str, Tensor]) -> str:
    """The mean and 95 % interval of each metric (P,): Wilson's of shares, else the bootstrap's; NaN left out."""
    rows = [("metric", "mean", "95 % interval")]
    rows += [(name, *_cells(values[~values.isnan()])) for name, values in metrics.items() if not values.isnan().all()]
    width = max(len(name) for name, _, _ in rows)
    return "\n".join(f"{name:{width}} {mean:>8}   {interval}" for name, mean, interval in rows)


def _cells(values: Tensor) -> tuple[str, str]:
    mean = float(values.double().mean())
    if _is_share(values):
        low, high = wilson(int(values.sum()), len(values))
        return f"{100 * mean:.1f} %", f"{100 * low:.1f} to {100 * high:.1f} %"
    low, high = mean_interval(values.double().tolist())
    return f"{mean:.4g}", f"n < {FEWEST}" if isnan(low) else f"{low:.4g} to {high:.4g}"


def _is_share(values: Any) -> bool:
    """Whether the values are truths: true and false, or 1. and 0. where some were NaN; counts are integers."""
    binary = bool(((values == 0) | (values == 1)).all())
    return binary and (values.dtype.itemsize == 1 or values.dtype.is_floating_point)
