"""What a task is, and the problems that runs are about."""

from __future__ import annotations

from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, Protocol

import torch
from torch import Tensor

from redraft.core.errors import RedraftError
from redraft.core.rows import Rows
from redraft.core.state import State


@dataclass(frozen=True)
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


def origin(split: int, seed: int) -> int:
    """A number for each split and seed, from which problems' ids are counted.

    Raises:
        RedraftError: the seed is below 0, or so large that ids would be another's.
    """
    if not isinstance(seed, Integral) or not 0 <= seed < SEEDS:
        raise RedraftError(f"the problems' seed is {seed!r}: it must lie in [0, {SEEDS})")
    return split * SEEDS + seed


class Task(Protocol):
    """Problems and their exact metrics.

    A task may also have `evaluate_set(samples, problems) -> dict[str, float]`, for what only a set has, such as its
    diversity; a problem is there once for each of its samples.
    """

    name: str

    def problems(self, n: int, seed: int = 0, split: str = "test") -> Problems:
        """`n` problems that follow from (seed, split, number) alone."""

    def evaluate(self, samples: Tensor, problems: Problems) -> dict[str, Tensor]:
        """Metrics (P,) of one sample for each problem, by name."""


def _moved(state: State, device: torch.device | str) -> State:
    cond = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in state.cond.items()}
    x, t, frozen = (value.to(device) for value in (state.x, state.t, state.frozen))
    return State(x, t, frozen, state.problem.to(device), cond)
