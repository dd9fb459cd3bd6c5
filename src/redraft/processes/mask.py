"""Absorbing noise: a token survives to level t with probability a(t), and is a mask otherwise.

Austin et al., "Structured denoising diffusion models in discrete state-spaces" (D3PM), 2021; Sahoo et al., "Simple and
effective masked diffusion language models" (MDLM), 2024; re-masking steps after Wang et al., "Remasking discrete
diffusion models with inference-time scaling" (ReMDM), 2025. A token's level is the state's t: 0 means that it is given
or finished; above 0 it is a mask, or was revealed and may still be masked again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import pi
from typing import Protocol

import torch
from torch import Tensor

from redraft.core.errors import RedraftError
from redraft.core.fields import Inside, checked
from redraft.core.state import Prediction, State
from redraft.core.streams import Streams
from redraft.processes.categorical import Draw, entropy, surprise


class Schedule(Protocol):
    """How many tokens survive to a level of noise."""

    def kept(self, t: Tensor) -> Tensor:
        """a(t): from 1 at t = 0 down to 0 at t = 1, never up."""


@dataclass(frozen=True)
class Linear:
    """a(t) = 1 - t, the log-linear schedule of MDLM and LLaDA."""

    def kept(self, t: Tensor) -> Tensor:
        """a(t)."""
        return 1 - t


@dataclass(frozen=True)
class Cosine:
    """a(t) = 1 - sin(pi t / 2): few tokens at first, many at the end (MaskGIT)."""

    def kept(self, t: Tensor) -> Tensor:
        """a(t)."""
        return (1 - (pi / 2 * t).sin()).clamp(0, 1)


@dataclass(frozen=True)
class Arccos:
    """a(t) = 1 - (2 / pi) arccos(1 - t) (Halton-MaskGIT)."""

    def kept(self, t: Tensor) -> Tensor:
        """a(t)."""
        return 1 - (1 - t).acos() * 2 / pi


@dataclass(frozen=True)
class Plateau:
    """Falls linearly to a constant a = `kept_on` on [off, on], then to all: the loop schedule of ReMDM and G-Star.

    Attributes:
        on: level below which a stays constant.
        off: level below which it rises to 1.
        kept_on: the constant.
    """

    on: Inside = 0.55
    off: Inside = 0.05
    kept_on: Inside = 0.9

    def __post_init__(self) -> None:
        """Reject windows that are none."""
        checked(self)
        if not self.off < self.on:
            raise RedraftError(f"off is {self.off} and on {self.on}: the first must be less than the second")

    def kept(self, t: Tensor) -> Tensor:
        """a(t)."""
        early = (1 - t) * self.kept_on / (1 - self.on)
        late = 1 - t * (1 - self.kept_on) / self.off
        constant = torch.full_like(t, self.kept_on)
        return torch.where(t > self.on, early, torch.where(t >= self.off, constant, late))


def check_schedule(schedule: Schedule, points: int = 1001) -> None:
    """Raise the error that says how `schedule` fails to fall from 1 to 0, if it does."""
    kept = schedule.kept(torch.linspace(0, 1, points, dtype=torch.float64))
    if (kept[0] - 1).abs() > 1e-6 or kept[-1].abs() > 1e-6:
        ends = f"{kept[0]:.3g} and {kept[-1]:.3g}"
        raise RedraftError(f"a schedule must keep all at t = 0 and nothing at t = 1, not the shares {ends}")
    if (kept.diff() > 1e-9).any():
        raise RedraftError("a schedule must never keep more tokens at a higher level of noise")


def most_remasked(kept: Tensor, kept_next: Tensor) -> Tensor:
    """The largest sigma for which the step keeps the marginals: min(1, (1 - a_s) / a_t) (ReMDM, eq. 9)."""
    return ((1 - kept_next) / kept.clamp_min(1e-12)).clamp(0, 1)


def revealed(kept: Tensor, kept_next: Tensor, sigma: Tensor) -> Tensor:
    """Probability (a_s - (1 - sigma) a_t) / (1 - a_t) that a mask is revealed when others are masked at `sigma`."""
    return ((kept_next - (1 - sigma) * kept) / (1 - kept).clamp_min(1e-12)).clamp(0, 1)


@dataclass(frozen=True)
class MaskDiffusion:
    """The process: prior, re-masking to any higher level, and the reverse step to any lower one.

    Attributes:
        mask: the id that stands for a masked token.
        schedule: how many tokens survive to a level.
    """

    mask: int
    schedule: Schedule = field(default_factory=Linear)
    random_prior = False

    def random_steps(self, steps: int, stochasticity: float, temperature: float) -> bool:
        """Whether `step` draws numbers on a position's way down in so many steps: which it is, or its token."""
        return steps > 1 or temperature > 0

    def prior(self, state: State, where: Tensor, streams: Streams) -> State:
        """Masks, level 1, in the positions `where` (B, R)."""
        return state.to(state.x.masked_fill(where, self.mask), state.t.masked_fill(where, 1))

    def renoise(self, state: State, where: Tensor, level: Tensor, streams: Streams) -> State:
        """A draw from q(x_s | x_t) with s = `level` (B, R) in the positions `where` (B, R), where s is at least t.

        A token stays with probability a_s / a_t. Other positions stay as they are.
        """
        where = where & (level > state.t)
        kept = self.schedule.kept(level) / self.schedule.kept(state.t).clamp_min(1e-12)
        lost = where & (streams.at(state.origin).uniform(state.t.shape[1:]) >= kept)
        return state.to(state.x.masked_fill(lost, self.mask), torch.where(where, level, state.t))

    def step(
        self,
        state: State,
        prediction: Prediction,
        t_next: Tensor,
        streams: Streams,
        stochasticity: float = 0.0,
        temperature: float = 1.0,
    ) -> State:
        """One reverse step of every position from its level t to `t_next` (B, R), where t_next is at most t.

        `stochasticity` is ReMDM's eta: tokens that were revealed on the way are masked again with probability sigma =
        eta sigma_max; 0 is ancestral sampling. `temperature` is the softmax's; 0 takes the likeliest token.
        """
        moving = t_next < state.t
        kept, kept_next = self.schedule.kept(state.t.double()), self.schedule.kept(t_next.double())
        sigma = stochasticity * most_remasked(kept, kept_next)
        masked, streams = state.x == self.mask, streams.at(state.origin)
        chance = streams.fold("reveal").uniform(state.t.shape[1:])
        reveal = moving & masked & (chance < revealed(kept, kept_next, sigma))
        remask = moving & ~masked & (chance < sigma)
        x = state.x.masked_fill(remask, self.mask)
        x[reveal] = Draw(temperature)(prediction, reveal, streams.fold("draw")).tokens
        return state.to(x, torch.where(moving, t_next, state.t))

    def guess(self, state: State, prediction: Prediction, streams: Streams, draw: Draw = Draw()) -> State:
        """A clean sample with a draw for every mask, each from its own marginal, shaped as `draw` says."""
        masked = state.x == self.mask
        x = state.x.clone()
        x[masked] = draw(prediction, masked, streams.at(state.origin)).tokens
        return state.to(x, torch.zeros_like(state.t))

    def uncertainty(self, state: State, prediction: Prediction) -> Tensor:
        """Entropy (B, R) of what a mask hides, in nats; 0 where nothing is hidden."""
        masked = state.x == self.mask
        return _placed(entropy(prediction, masked), masked, state.t)

    def disagreement(self, noisy: State, prediction: Prediction, clean: Tensor) -> Tensor:
        """-log p (B, R) of the tokens `clean` (B, R) that masks hide; 0 where nothing is hidden."""
        masked = noisy.x == self.mask
        return _placed(surprise(prediction, masked, clean), masked, noisy.t)


def _placed(values: Tensor, where: Tensor, like: Tensor) -> Tensor:
    placed = torch.zeros_like(like)
    placed[where] = values.to(placed)
    return placed
