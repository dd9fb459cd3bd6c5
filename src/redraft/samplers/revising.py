"""What changes revealed tokens beside a sampler's rules: corrector steps, and edits from one token to another."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from redraft.core.fields import Count, Positive, Share, checked
from redraft.samplers.rules import Moment, Rates


@dataclass(frozen=True)
class Corrector:
    """Steps that leave the law of x_s as it is: tokens are masked and masks revealed at rates that balance.

    The uninformed corrector of Campbell et al., "A continuous time framework for discrete denoising models", 2022:
    with a kept, a token is masked at rate 1 and a mask revealed at rate a / (1 - a), here for a time `size`, solved
    exactly for each position alone.

    Attributes:
        size: of a step, in units of the mean time until a token is masked.
        steps: after each step of the sampler; each costs a network evaluation.
    """

    size: Positive = 0.1
    steps: Count = 1
    revises = True
    random = True

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)

    def __call__(self, now: Moment) -> Rates:
        """Probabilities (B, 1) of the two flips within `size`, in the two-state chain of a position."""
        moved = 1 - (-self.size / (1 - now.kept).clamp_min(1e-12)).exp()
        return Rates(now.kept * moved, (1 - now.kept) * moved)


@dataclass(frozen=True)
class Edit:
    """Revealed tokens give way to others that the network is sure of, without being masked between.

    "LLaDA2.1: Speeding up text diffusion via token editing", 2026, https://arxiv.org/abs/2602.08676: in every step, at
    the positions of the block that hold a token and were not given, one is drawn as at a mask.

    Attributes:
        confidence: the least probability, after temperature and top-p, of a token that replaces another.
        steps: that a block without masks is edited in at most; the first that changes nothing is the last.
    """

    confidence: Share = 0.5
    steps: Count = 16

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)

    def __call__(self, now: Moment) -> Tensor:
        """Positions (B, R) whose token is replaced by the one that is drawn there."""
        drawn = now.draw(now.prediction, now.shown, now.streams.fold("draw"))
        better = (drawn.tokens != now.state.x[now.shown]) & (drawn.shaped.exp() > self.confidence)
        return torch.zeros_like(now.shown).masked_scatter(now.shown, better)
