"""Which regions of a finished draft to redraw next, and whether to keep what is redrawn."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from redraft.core.fields import Count, Inside, checked
from redraft.core.method import Verifier
from redraft.core.model import Model, demand
from redraft.core.state import Draft, State, merge
from redraft.core.streams import Streams


class Selection(Protocol):
    """Gives each region a priority."""

    @property
    def nfe(self) -> int:
        """Network rows that one call takes."""

    def __call__(self, model: Model, state: State, number: Tensor, round_: int, streams: Streams) -> Tensor:
        """Priorities (B, R) of the regions of a clean `state`.

        Args:
            model: may be evaluated, `nfe` times a row.
            state: the draft to choose from; what is chosen of frozen regions is ignored.
            number: how many regions (B,) will be taken.
            round_: the refinement's number, from 0.
            streams: the run's streams, the same in every round.
        """


@runtime_checkable
class Judged(Protocol):
    """Gives each region a priority by what the verifier says, which is asked once a round."""

    @property
    def nfe(self) -> int:
        """Network rows that one call takes."""

    def chosen(
        self, model: Model, state: State, number: Tensor, round_: int, streams: Streams, verifier: Verifier | None
    ) -> tuple[Tensor, Tensor]:
        """Priorities (B, R), and how many regions (B,) to redraw, at most `number`; arguments as of `Selection`."""


class Keep(Protocol):
    """Decides of each row whether its redraft takes the place of the draft."""

    @property
    def asks(self) -> bool:
        """Whether it asks the verifier."""

    def cost(self, draft: Draft) -> tuple[int, int]:
        """The most network rows, and verifier rows, that the decision about a redraft of a row of `draft` takes."""

    def kept(self, model: Model, draft: Draft, new: State, streams: Streams, verifier: Verifier | None) -> Draft:
        """The draft with the `new` state in the rows that take it.

        What is remembered for the next decision is in its `carry`, what the trace is to show in its `scores`; streams
        are the run's, the same in every round.
        """


@dataclass(frozen=True)
class Uniform:
    """Regions at random, each set of them as likely as any other (the paper's choice)."""

    nfe = 0

    def __call__(self, model: Model, state: State, number: Tensor, round_: int, streams: Streams) -> Tensor:
        """Priorities (B, R)."""
        return streams.at(state.origin).fold("select").fold(round_).uniform(state.t.shape[1:])


@dataclass(frozen=True)
class Sweep:
    """A low-discrepancy order: regions are redrawn in turn, in a new random order each time all have had theirs."""

    nfe = 0

    def __call__(self, model: Model, state: State, number: Tensor, round_: int, streams: Streams) -> Tensor:
        """Priorities (B, R)."""
        free = state.free.sum(1)
        rounds = (free + number - 1) // number
        order = streams.at(state.origin).fold("sweep").fold(round_ // rounds).uniform(state.t.shape[1:])
        rank = torch.where(state.free, order, torch.inf).argsort(1).argsort(1)
        return -((rank - (round_ % rounds * number)[:, None]) % free[:, None]).double()


@dataclass(frozen=True)
class Uncertainty:
    """Regions that the network is least sure of when they are lightly re-noised, at random in proportion.

    Attributes:
        level: noise level in (0, 1) at which to ask.
        sharpness: regions are drawn with probability proportional to uncertainty ** (2 * sharpness); 0 is uniform.
    """

    level: Inside = 0.1
    sharpness: float = 1.0
    nfe = 1

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)

    def __call__(self, model: Model, state: State, number: Tensor, round_: int, streams: Streams) -> Tensor:
        """Priorities (B, R)."""
        demand(model, "uncertainty", "selection by uncertainty")
        streams = streams.fold("uncertainty").fold(round_)
        noisy = _renoised(model, state, self.level, streams)
        uncertainty = model.process.uncertainty(noisy, model.predict(noisy))
        return _in_proportion(uncertainty**2, self.sharpness, streams.at(state.origin))


@dataclass(frozen=True)
class Disagreement:
    """Regions that the network would draw otherwise: re-noise all, predict, compare; at random in proportion.

    How far a region is from its prediction from a noisy copy, all others noisy too (the mean squared difference, or of
    tokens -log p), is a pseudo-likelihood of the region under the model, up to sign and constants.

    Attributes:
        level: noise level in (0, 1) to which all free regions are re-noised; the higher, the more context decides.
        sharpness: regions are drawn with probability proportional to disagreement ** sharpness; 0 is uniform.
        draws: how many noisy copies are averaged.
    """

    level: Inside = 0.7
    sharpness: float = 1.0
    draws: Count = 1
    asks = False

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)

    @property
    def nfe(self) -> int:
        """Network rows that one call takes."""
        return self.draws

    def __call__(self, model: Model, state: State, number: Tensor, round_: int, streams: Streams) -> Tensor:
        """Priorities (B, R)."""
        streams = streams.fold("disagreement").fold(round_)
        return _in_proportion(self.measure(model, state, streams), self.sharpness, streams.at(state.origin))

    def measure(self, model: Model, state: State, streams: Streams) -> Tensor:
        """The disagreement (B, R) of each region of a clean state."""
        total = torch.zeros_like(state.t)
        for draw in range(self.draws):
            noisy = _renoised(model, state, self.level, streams.fold(draw))
            total += model.process.disagreement(noisy, model.predict(noisy), state.x)
        return total / self.draws

    def cost(self, draft: Draft) -> tuple[int, int]:
        """The network rows, and no verifier rows, of the decision about a redraft."""
        return self.draws * (1 if draft.carry else 2), 0

    def kept(self, model: Model, draft: Draft, new: State, streams: Streams, verifier: Verifier | None = None) -> Draft:
        """The new state in the rows where the model disagrees with it no more than with the old."""
        streams = streams.fold("keep")  # the same noise in every round: scores are compared like with like
        cached = draft.carry.get("disagreement")
        before = self._mean(model, draft.state, streams) if cached is None else cached
        after = self._mean(model, new, streams)
        better = after <= before
        x = merge(better[:, None].expand_as(new.t), new.x, draft.state.x)
        score = torch.where(better, after, before)
        scores = {"disagreement": score, "kept": better.float()}
        return replace(draft, state=new.to(x, new.t), carry={"disagreement": score}, scores=scores)

    def _mean(self, model: Model, state: State, streams: Streams) -> Tensor:
        return (self.measure(model, state, streams) * state.free).sum(1) / state.free.sum(1)


def _renoised(model: Model, state: State, level: float, streams: Streams) -> State:
    levels = torch.full_like(state.t, level)
    noisy: State = model.process.renoise(state, state.free, levels, streams.fold("renoise"))
    return noisy


def _in_proportion(weight: Tensor, sharpness: float, streams: Streams) -> Tensor:
    """Gumbel-perturbed log weights: their top k are a draw without replacement in proportion to the weights."""
    noise = streams.fold("gumbel").gumbel(weight.shape[1:])
    return sharpness * weight.double().clamp_min(1e-12).log() + noise
