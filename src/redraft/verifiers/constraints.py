"""What a task knows about its samples, as verifiers: broken rules, whether code parses, exact likelihoods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Protocol

import torch
from torch import Tensor

from redraft.core.errors import RedraftError, unknown
from redraft.core.fields import Like, checked
from redraft.core.task import Problems, Task
from redraft.tasks.markov import Markov
from redraft.tasks.python import Python
from redraft.tasks.sudoku import Sudoku
from redraft.tasks.sudoku_tokens import SudokuTokens


class Measuring(Protocol):
    """What a task is asked for here."""

    def evaluate(self, samples: Tensor, problems: Problems) -> dict[str, Tensor]:
        """Metrics (B,), by name."""


@dataclass(frozen=True)
class Metric:
    """A metric of a task, or minus it; of a task with a method of the metric's name, no other metric is computed.

    Attributes:
        task: such as `redraft.load_task("python")`.
        name: of the metric.
        sign: 1 where more is better, -1 where less is.
        floor: the score of samples of which the metric is NaN or infinite, such as the likelihood of an empty text;
            None makes them errors.
        faults: regions (B, R) of samples that are to blame, such as a task's `conflicts`.
        blind: the metric does not look at the problem.
    """

    task: Annotated[Task, Like((Measuring,), "redraft.load_task('python')")]
    name: str
    sign: float = 1.0
    floor: float | None = None
    faults: Callable[[Tensor], Tensor] | None = None
    blind: bool = False

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)

    @property
    def blames(self) -> bool:
        """Whether there is a function for faults."""
        return self.faults is not None

    def __call__(self, samples: Tensor, problems: Problems) -> Tensor:
        """Scores (B,), float64.

        Raises:
            RedraftError: the task has no such metric.
        """
        scores = self.sign * self._measured(samples, problems).double()
        return scores if self.floor is None else torch.where(scores.isfinite(), scores, self.floor)

    def blame(self, samples: Tensor, problems: Problems) -> Tensor:
        """Faults (B, R), given regions among them.

        Raises:
            RedraftError: there is no function for faults.
        """
        if self.faults is None:
            raise RedraftError(f"the metric {self.name!r} blames no region: give it faults=")
        return self.faults(samples).double()

    def _measured(self, samples: Tensor, problems: Problems) -> Tensor:
        single: Callable[[Tensor], Tensor] | None = getattr(self.task, self.name, None)
        if callable(single):
            return single(samples)
        metrics = self.task.evaluate(samples, problems)
        if self.name not in metrics:
            raise unknown("metric", self.name, metrics)
        return metrics[self.name]


def violations(task: Sudoku | SudokuTokens) -> Metric:
    """Minus the broken rules of a Sudoku board, of pictures or of tokens; blames the cells that break one."""
    if not hasattr(task, "conflicts"):
        raise RedraftError(f"the task {task.name!r} has no rules that a board can break")
    return Metric(task, "violations", sign=-1, faults=task.conflicts, blind=True)


def parses(task: Python | None = None) -> Metric:
    """1 for lines of Python that parse, 0 for others."""
    return Metric(task or Python(), "parses", blind=True)


def likelihood(task: Python | Markov | None = None, floor: float | None = None) -> Metric:
    """Log-likelihood, nats: of lines of Python a character, by the reference model; of a Markov chain's in all, exact.

    Args:
        task: `Python` if not given.
        floor: the score of a line without text, -20 if not given; or of a sequence with a mask, -1000 if not given.
    """
    task = task or Python()
    if isinstance(task, Python):
        return Metric(task, "nll", sign=-1, floor=-20.0 if floor is None else floor, blind=True)
    return Metric(task, "log_likelihood", floor=-1000.0 if floor is None else floor, blind=True)
