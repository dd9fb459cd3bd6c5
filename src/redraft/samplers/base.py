"""What all samplers share: the protocol, and the loop that walks every row to its end."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from redraft.core.model import Model
from redraft.core.state import State
from redraft.core.streams import Streams


class Walk(Protocol):
    """A state on its way to clean, with all that its sampler carries over, by rows."""

    state: State

    @property
    def done(self) -> Tensor:
        """Rows (B,) that have arrived."""


class Sampler(Protocol):
    """Walks states from noise to clean; regions at level 0 are context and stay as they are.

    Attributes:
        by_level: all regions of a row come down together, so that a walk can be taken up at any level of noise.
    """

    @property
    def by_level(self) -> bool:
        """See above."""

    def init(self, model: Model, state: State, streams: Streams) -> Any:
        """The walk at its start."""

    def look(self, model: Model, walk: Any) -> Any:
        """The walk with the network's prediction for its state, which its next step then uses."""

    def step(self, model: Model, walk: Any, streams: Streams) -> Any:
        """The walk one step on."""

    def level(self, walk: Any) -> Tensor:
        """Level of noise (B,) that each row has come down to, 0 where it has arrived."""

    def arrived(self, model: Model, state: State) -> Any:
        """The walk at its end, of a clean state whose free regions may be walked again."""

    def rewind(self, model: Model, walk: Any, level: float, streams: Streams) -> Any:
        """The walk noised back up to `level`, or to the next level of its grid above; costs no network evaluation.

        Raises:
            RedraftError: the sampler cannot be taken up on its way.
        """

    def nfe(self, regions: Tensor, level: float = 1.0) -> Tensor:
        """The most network rows (B,) that a walk over `regions` (B,) noisy regions from `level` takes."""


def advance(sampler: Sampler, model: Model, walk: Any, streams: Streams) -> Any:
    """One step of the rows that have not arrived; the others stay."""
    going = ~walk.done
    return walk.put(going, sampler.step(model, walk[going], streams[going])) if going.any() else walk


def descend(sampler: Sampler, model: Model, walk: Any, level: float, streams: Streams) -> Any:
    """The walk come down to `level`, or to the next level of its grid below."""
    while True:
        above = ~walk.done & (sampler.level(walk) > level + 1e-6)
        if not above.any():
            return walk
        walk = walk.put(above, advance(sampler, model, walk[above], streams[above]))


def sample(sampler: Sampler, model: Model, state: State, streams: Streams) -> State:
    """Walk every row to its end; a row that arrives leaves the batch, so it costs nothing more."""
    walk = sampler.init(model, state, streams)
    rows = torch.arange(len(state), device=state.x.device)
    arrived: list[tuple[Tensor, State]] = []
    while True:
        done = walk.done
        if done.any():
            arrived.append((rows[done], walk.state[done]))
            rows, streams, walk = rows[~done], streams[~done], walk[~done]
        if not len(rows):
            break
        walk = sampler.step(model, walk, streams)
    order = torch.cat([r for r, _ in arrived]).argsort()
    return State.cat([s for _, s in arrived])[order]
