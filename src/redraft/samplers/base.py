"""What all samplers share: the protocol, and the loop that walks every row to its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from redraft.core.errors import RedraftError
from redraft.core.model import Model, demand
from redraft.core.rows import Rows
from redraft.core.state import Prediction, State
from redraft.core.streams import Streams
from redraft.processes.flow import RectifiedFlow

SUITED = {"schedule": "Scheduled(30)", "tokens": "Preset()", "regions": "Sequential()"}
"""A sampler for models that offer something."""


class Walk(Protocol):
    """A state on its way to clean, with all that its sampler carries over, by rows."""

    state: State

    @property
    def done(self) -> Tensor:
        """Rows (B,) that have arrived."""


@dataclass(frozen=True, repr=False)
class Looked(Rows):
    """Rows on their way, some of which the network was asked about before their step. Base of the walks.

    Attributes:
        state: where the rows are.
        prediction: of the network; for rows that are not `fresh` it means nothing.
        fresh: rows (B,) whose `state` the prediction is of; None if there is no prediction.
    """

    state: State
    prediction: Prediction | None = field(default=None, kw_only=True)
    fresh: Tensor | None = field(default=None, kw_only=True)

    @property
    def whole(self) -> State:
        """What the network sees."""
        return self.state

    def looked(self, model: Model) -> Self:
        """The walk with the network's prediction for all its rows; those that were looked at are not evaluated again.

        So what a row costs does not depend on the rows beside it.
        """
        return replace(
            self, prediction=self.predicted(model), fresh=torch.ones_like(self.state.problem, dtype=torch.bool)
        )

    def predicted(self, model: Model, stale: Tensor | None = None) -> Prediction:
        """The network's prediction for all rows; evaluated are the `stale` (B,), those not fresh if not given."""
        if stale is None and self.fresh is not None:
            stale = ~self.fresh
        if self.prediction is None or stale is None or stale.all():
            return model.predict(self.whole)
        return self.prediction.put(stale, model.predict(self.whole[stale])) if stale.any() else self.prediction

    @classmethod
    def cat(cls, parts: Sequence[Self]) -> Self:
        """The rows of all parts, in order; if some were looked at, the others have a prediction that is not fresh."""
        known = next((part.prediction for part in parts if part.prediction is not None and len(part)), None)
        return super().cat(parts if known is None else [part._stale(known) for part in parts])

    def _stale(self, known: Prediction) -> Self:
        if self.prediction is not None:
            return self
        rows = torch.zeros_like(self.state.problem)
        return replace(self, prediction=known[rows], fresh=rows.bool())


class Sampler(Protocol):
    """Walks states from noise to clean; regions at level 0 are context and stay as they are.

    Attributes:
        by_level: a walk can be taken up at any level of noise: all regions of a row come down together, or in blocks in
            a fixed order. One that draws tokens may have `draw`, how it does so; guesses are then drawn alike.
    """

    @property
    def by_level(self) -> bool:
        """See above."""

    def random_start(self, model: Model) -> bool:
        """Whether the outcome depends on the noise that a walk begins from."""

    def random_steps(self, model: Model) -> bool:
        """Whether the outcome differs between walks that go on from one state: some step draws numbers."""

    def init(self, model: Model, state: State, streams: Streams) -> Any:
        """The walk at its start."""

    def look(self, model: Model, walk: Any) -> Any:
        """The walk with the network's prediction for its state, which its next step then uses."""

    def step(self, model: Model, walk: Any, streams: Streams) -> Any:
        """The walk one step on."""

    def level(self, walk: Any) -> Tensor:
        """Level of noise (B,) that each row has come down to, 0 where it has arrived; in blocks, the share to go."""

    def arrived(self, model: Model, state: State) -> Any:
        """The walk at its end, of a clean state whose free regions may be walked again."""

    def rewind(self, model: Model, walk: Any, level: float, streams: Streams, at: float = 0.0) -> Any:
        """The walk noised back up to `level`, or to the next level of its grid above; costs no network evaluation.

        The caller has come down to the level `at`: a row that arrived before, with no noise left to take away, is a
        state of that level and is noised from there. Noised from 0 it would lose too much. A walk in blocks goes back
        the way that it came; at 0, all of the sample is noised to `level` if the network can redraw any part of it.

        Raises:
            RedraftError: the sampler cannot be taken up on its way.
        """

    def nfe(self, regions: Tensor, level: float = 1.0) -> Tensor:
        """The most network rows (B,) that a walk over `regions` (B,) noisy regions takes, if it begins at `level`."""

    def between(self, model: Model, regions: Tensor, high: float = 1.0, low: float = 0.0) -> Tensor:
        """The most network rows (B,) of the part of a walk over `regions` (B,) regions from level `high` to `low`.

        The walk began at level 1. Where its grid has no such level, it is the next above `high` and the next below
        `low`, as for `rewind` and `descend`. By it methods know what they will cost on uneven grids too.
        """


def wanted(model: Model, feature: str, by: str) -> None:
    """Raise the error that says what `model` lacks, and which sampler suits it, unless it offers `feature`."""
    try:
        demand(model, feature, by)
    except RedraftError as error:
        suited = next((sampler for offer, sampler in SUITED.items() if offer in model.offers), "Parallel(50)")
        raise RedraftError(f"{error}: give the method sampler=redraft.{suited}") from None


def linear(model: Model, path: str) -> None:
    """Raise unless the `path` is the model's own or its process is a flow, whose path is linear.

    Raises:
        RedraftError: it is not.
    """
    if path != "own" and not isinstance(model.process, RectifiedFlow):
        raise RedraftError(f"path={path!r} changes the path of a flow, and {model.name!r} is none: leave path='own'")


def random_prior(model: Model) -> bool:
    """Whether pure noise differs from draw to draw; processes of one's own that do not say are taken to draw it."""
    return bool(getattr(model.process, "random_prior", True))


def random_steps(model: Model, steps: int, stochasticity: float, temperature: float) -> bool:
    """Whether the process's own step draws numbers in a walk of so many; taken to where it does not say."""
    draws = getattr(model.process, "random_steps", None)
    return draws is None or bool(draws(steps, stochasticity, temperature))


def stretch(steps: Tensor, high: float, low: float) -> tuple[Tensor, Tensor]:
    """The first step (B,) of walks in `steps` (B,) equal ones that leads down from `high`, and the one after `low`."""
    first = (steps * (1 - high) + 1e-6).floor().long()
    return first, torch.maximum(first, (steps * (1 - low - 1e-6)).ceil().long())


def looks(sampler: Sampler, model: Model, regions: Tensor, level: float) -> Tensor:
    """Network rows (B,) that a look at walks costs which have come down to `level`: 0 where they have arrived."""
    down, whole = (sampler.between(model, regions, 1.0, low) for low in (level, 0.0))
    return (down < whole).long()


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


def sample(
    sampler: Sampler,
    model: Model,
    state: State,
    streams: Streams,
    arriving: Callable[[Tensor, Any], None] | None = None,
) -> State:
    """Walk every row to its end; a row that arrives leaves the batch, so it costs nothing more.

    Args:
        sampler: how.
        model: the model.
        state: where the rows begin.
        streams: of the rows.
        arriving: is told which rows (N,) arrive, with their walk.
    """
    walk = sampler.init(model, state, streams)
    rows = torch.arange(len(state), device=state.x.device)
    arrived: list[tuple[Tensor, State]] = []
    while True:
        done = walk.done
        if done.any():
            arrived.append((rows[done], walk.state[done]))
            if arriving:
                arriving(rows[done], walk[done])
            rows, streams, walk = rows[~done], streams[~done], walk[~done]
        if not len(rows):
            break
        walk = sampler.step(model, walk, streams)
    order = torch.cat([r for r, _ in arrived]).argsort()
    return State.cat([s for _, s in arrived])[order]
