"""What a task is, and the problems that runs are about."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Annotated, Any, Protocol

import torch
from annotated_types import Interval
from torch import Tensor

from redraft.core.errors import RedraftError
from redraft.core.fields import Among, taken
from redraft.core.rows import Rows
from redraft.core.state import State


@dataclass(frozen=True, repr=False)
class Problems(Rows):
    """What samples are wanted for; sliced and joined like any rows.

    Attributes:
        ids: (P,) int64; a problem's random streams follow its id into any batch.
        x: values of the given regions (P, R, *region), anything elsewhere.
        frozen: given regions (P, R).
        cond: what the network is conditioned on, by name.
        facts: what the task knows of each problem (solutions, difficulty, ...), by name; methods never see it.
    """

    ids: Tensor
    x: Tensor
    frozen: Tensor
    cond: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def state(self, device: torch.device | str | None = None) -> State:
        """A state to start from: given regions clean, the others blank at level 1."""
        free = ~self.frozen.reshape(self.frozen.shape + (1,) * (self.x.ndim - 2))
        x = self.x.masked_fill(free, 0)
        state = State(x, (~self.frozen).to(torch.float32), self.frozen, torch.arange(len(self)), self.cond)
        return state if device is None else _moved(state, device)


SEEDS = 2**20
MOST = 2**24  # ids of a seed: a problem's number is the last 24 bits of its id
HowMany = Annotated[int, Interval(ge=1, le=MOST - 1)]
"""A number of problems."""
ProblemSeed = Annotated[int, Interval(ge=0, le=SEEDS - 1)]
"""A seed that they follow from."""
Split = Annotated[str, Among(("train", "test"))]
"""Which of a task's problems."""


def origin(split: int, seed: int) -> int:
    """A number for each split and seed, from which problems' ids are counted.

    Raises:
        RedraftError: the seed is below 0, or so large that ids would be another's.
    """
    return split * SEEDS + int(taken("seed", seed, ProblemSeed))


def check_n(n: int) -> None:
    """Raise unless `n` is a number of problems: a whole one, below that at which ids would be another seed's.

    Raises:
        RedraftError: it is not.
    """
    taken("n", n, HowMany)


def check_samples(
    samples: Tensor, problems: Problems, vocabulary: int | None = None, facts: Collection[str] = ()
) -> None:
    """Raise unless `samples` (P, ...) can be a task's: one for each problem, of the shape of its values.

    Args:
        samples: what is to be evaluated.
        problems: what it is for.
        vocabulary: of tasks whose samples are ids, how many there are, the mask's included.
        facts: what the task needs to know of its problems.

    Raises:
        RedraftError: another number or another shape of samples, ids outside the vocabulary, or problems of another
            task.
    """
    if not isinstance(samples, Tensor):
        raise RedraftError(f"samples are a {type(samples).__name__}: give a tensor")
    check_paired(samples, problems)
    if missing := [name for name in facts if name not in problems.facts]:
        raise RedraftError(f"the problems have no fact {missing[0]!r}: they are another task's")
    if samples.shape != problems.x.shape:
        wanted = tuple(problems.x.shape[1:])
        raise RedraftError(f"samples have shape {tuple(samples.shape[1:])}, and the problems' values {wanted}")
    if vocabulary is not None:
        _check_ids(samples, vocabulary)


def check_paired(samples: Tensor, problems: Problems) -> None:
    """Raise unless there is one of `samples` (P, ...) for each problem.

    Raises:
        RedraftError: there is another number.
    """
    rows = len(samples) if samples.ndim else 0
    if rows != len(problems.ids):
        raise RedraftError(f"there are {rows} samples for {len(problems.ids)} problems: give one for each")


def _check_ids(samples: Tensor, vocabulary: int) -> None:
    if samples.is_floating_point() or samples.is_complex() or samples.dtype == torch.bool:
        raise RedraftError(f"samples are of {samples.dtype}, where ids from 0 to {vocabulary - 1} are asked for")
    outside = samples[(samples < 0) | (samples >= vocabulary)]
    if len(outside):
        raise RedraftError(f"samples hold the id {int(outside[0])}: ids lie in 0 to {vocabulary - 1}")


class Task(Protocol):
    """Problems and their exact metrics.

    A task may also have `evaluate_set(samples, problems) -> dict[str, float]`, for what only a set has, such as its
    diversity; a problem is there once for each of its samples.
    """

    @property
    def name(self) -> str:
        """How users call it."""

    def problems(self, n: int, seed: int = 0, split: str = "test") -> Problems:
        """`n` problems that follow from (seed, split, number) alone."""

    def evaluate(self, samples: Tensor, problems: Problems) -> dict[str, Tensor]:
        """Metrics (P,) of one sample for each problem, by name."""


def _moved(state: State, device: torch.device | str) -> State:
    cond = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in state.cond.items()}
    x, t, frozen = (value.to(device) for value in (state.x, state.t, state.frozen))
    return State(x, t, frozen, state.problem.to(device), cond)
