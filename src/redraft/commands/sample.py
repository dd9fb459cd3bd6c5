"""Sample from the command line, and the table of metrics that it prints."""

from __future__ import annotations

import inspect
from contextlib import suppress
from dataclasses import dataclass, field
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Union

import tyro

import redraft
from redraft.core.errors import RedraftError
from redraft.core.files import prepare
from redraft.core.registry import METHODS, TASKS
from redraft.models.weights import read_config
from redraft.report.statistics import FEWEST, mean_interval, wilson

if TYPE_CHECKING:
    from torch import Tensor

    from redraft.core.method import Method as AnyMethod
    from redraft.core.result import Result
else:  # a subcommand for each method there is; the hidden None makes them subcommands even if there is but one
    NAMED = tuple(Annotated[METHODS[name], tyro.conf.subcommand(name)] for name in METHODS)
    AnyMethod = Union[(*NAMED, Annotated[None, tyro.conf.Suppress])]  # noqa: UP007 - built when run


@dataclass(frozen=True)
class Sample:
    """Sample from a model, at a budget if you like, and print the task's metrics.

    Attributes:
        method: how, with its own options; they come last.
        model: a name from `redraft list`, or a folder that `redraft train` wrote.
        task: a name from `redraft list`; the one of the model's name when not given, or else sudoku.
        verifier: a name from `redraft list`, for methods that take one.
        n: problems.
        seed: of the problems and of all randomness.
        difficulty: of the problems, if the task knows difficulties.
        budget: the most network evaluations (NFE) that a problem may cost.
        out: folder to save the result in.
        checkpoint: folder; a run that was killed goes on from it when started again.
        mnist: of the task, a folder with MNIST's files, for a model that was trained on them.
        reader: of the task, a folder that `redraft train reader` wrote.
        device: such as 'cuda'; a GPU if there is one when not given.
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

    def run(self) -> Result:
        """Sample, save, print."""
        given = {name: value for name in ("mnist", "reader") if (value := getattr(self, name)) is not None}
        name = self.task or task_of(self.model)
        task = redraft.load_task(name, **given)
        if self.difficulty and "difficulty" not in inspect.signature(task.problems).parameters:
            raise RedraftError(f"the task {name!r} knows no difficulty: leave --difficulty out")
        model = redraft.load_model(self.model, self.device)
        if self.out:
            prepare(self.out)
        kind = {"difficulty": self.difficulty} if self.difficulty else {}
        problems = task.problems(self.n, self.seed, **kind)
        budget = redraft.Budget(nfe=self.budget)
        verifier = redraft.load_verifier(self.verifier, task, model) if self.verifier else None
        result = redraft.run(
            self.method,
            model,
            problems,
            verifier=verifier,
            budget=budget,
            seed=self.seed,
            checkpoint=self.checkpoint,
        )
        if self.out:
            result.save(self.out)
        for text in shown(model, result.samples[:8]):
            print(text)
        print(table(task.evaluate(result.samples, problems)))
        calls = f", {result.ledger.verifier_calls.double().mean():.0f} verifier calls" if verifier else ""
        print(f"{result.ledger.nfe.double().mean():.0f} NFE{calls} per problem, {result.seconds:.1f} seconds in all")
        return result


def task_of(model: str) -> str:
    """The task of a model's name, or of the name of what a folder holds; sudoku where there is none."""
    if Path(model).is_dir():
        with suppress(RedraftError):  # what the folder lacks is said when the model is loaded
            model = str(read_config(Path(model)).get("model"))
    return model if model in TASKS else "sudoku"


def shown(model: Any, samples: Tensor) -> list[str]:
    """Samples (P, ...) as text, if the model writes text."""
    text = model.text(samples) if getattr(model, "codec", None) else []
    return [line for line in text if isinstance(line, str)] if isinstance(text, list) else []


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
