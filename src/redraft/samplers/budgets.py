"""How many tokens a step of a masked sampler reveals, and how many it masks again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from redraft.core.errors import RedraftError
from redraft.core.fields import AtLeast0, Count, Number, Positive, Share, checked
from redraft.processes.categorical import entropy
from redraft.processes.mask import most_remasked, revealed
from redraft.samplers.rules import Counts, Moment, Rates


@dataclass(frozen=True)
class Remask:
    """Each revealed token is masked with probability sigma, each mask revealed so that a_s tokens survive (ReMDM).

    Attributes:
        sigma: one of
            'none': 0, ancestral sampling (MDLM);
            'cap': min(eta, sigma_max);
            'rescale': eta sigma_max;
            'confidence': sigma_max times a softmax over the revealed tokens of minus the probability that each had when
            it was revealed; masks make up for the mean;
            'forward-backward': (a_s - a_t) / a_t, within sigma_max (Campbell et al. 2022), which a linear schedule
            passes in its last step alone;
            'star': 1 - a_s, which draws every token anew from q(x_s | x^) (G-Star's unguided step).
        eta: of 'cap' and 'rescale'.
        compensated: of 'confidence': masks are revealed the oftener the more tokens are masked again, so that a_s
            survive. False is ReMDM's released code, where sigma is 0 at masks, so that fewer do.
    """

    sigma: Literal["none", "cap", "rescale", "confidence", "forward-backward", "star"] = "none"
    eta: Share = 0.0
    compensated: bool = True
    random = True

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)
        if not self.compensated and self.sigma != "confidence":
            raise RedraftError(f"compensated=False is of sigma='confidence' alone, not of {self.sigma!r}")

    @property
    def revises(self) -> bool:
        """Whether it masks tokens again."""
        return self.sigma != "none" and not (self.sigma in ("cap", "rescale") and self.eta == 0)

    def __call__(self, now: Moment) -> Rates:
        """Probabilities (B, R) or (B, 1)."""
        sigma = self._sigma(now, most_remasked(now.kept, now.kept_next))
        made_up = _mean(sigma, now) if self.compensated else torch.zeros_like(now.kept)
        return Rates(revealed(now.kept, now.kept_next, made_up), sigma)

    def _sigma(self, now: Moment, most: Tensor) -> Tensor:
        match self.sigma:
            case "cap":
                return most.clamp_max(self.eta)
            case "rescale":
                return most * self.eta
            case "confidence":
                return most * _distrust(now)
            case "forward-backward":
                return torch.minimum((now.kept_next - now.kept) / now.kept.clamp_min(1e-12), most)
            case "star":
                return 1 - now.kept_next
        return torch.zeros_like(most)


def _distrust(now: Moment) -> Tensor:
    """Softmax (B, R) over the revealed tokens of minus their probability when revealed; 0 if none is."""
    weight = now.shown * (-now.confidence.double().exp()).exp()
    return weight / weight.sum(1, keepdim=True).clamp_min(1e-12)


def _mean(sigma: Tensor, now: Moment) -> Tensor:
    """Sigma (B, 1) of all revealed tokens: what the masks have to make up for."""
    if sigma.shape[1] == 1:
        return sigma
    return (sigma * now.shown).sum(1, keepdim=True) / now.shown.sum(1, keepdim=True).clamp_min(1)


@dataclass(frozen=True)
class OnSchedule:
    """After the step (1 - a_s) n of the n active tokens are masked, rounded down or up.

    Attributes:
        rounding: 'floor' (MaskGIT, P2, Token-Critic) or 'ceil' (G-Star, Halton).
        least: masks that a step reveals at least (MaskGIT's 1).
        left: masks that a step leaves at least, but for the last (MaskGIT's 1), even if it then reveals none.
    """

    rounding: Literal["floor", "ceil"] = "floor"
    least: Number | None = None
    left: Number = 0
    revises = False
    random = False

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)

    def __call__(self, now: Moment) -> Counts:
        """Numbers (B,)."""
        share = (1 - now.kept_next[:, 0]) * now.size
        # 0.3 * 10 is a little more than 3 in binary
        number = (share + 1e-9).floor() if self.rounding == "floor" else (share - 1e-9).ceil()
        masks = now.masked.sum(1)
        reveal = masks - number.long()
        reveal = reveal if self.least is None else reveal.clamp_min(self.least)
        reveal = torch.minimum(reveal, (masks - self.left).clamp_min(0)) if self.left else reveal
        return Counts(reveal, torch.zeros_like(reveal))


@dataclass(frozen=True)
class Even:
    """The active masks there are in equal numbers a step, what is left over in the first steps (LLaDA)."""

    revises = False
    random = False

    def __call__(self, now: Moment) -> Counts:
        """Numbers (B,)."""
        reveal = -(-now.masked.sum(1) // (now.steps - now.step))
        return Counts(reveal, torch.zeros_like(reveal))


@dataclass(frozen=True)
class Proportional:
    """The share (m_t - m_s) / m_t of the masks that there are, rounded down; m = 1 - a is the share at a level.

    Attributes:
        end: share of masks at the end of the grid, to which m falls from 1. Dream's is 1e-3: of 128 tokens its 128
            steps reveal 0, 1, ..., 1, 2.
    """

    end: Share = 0.0
    revises = False
    random = False

    def __post_init__(self) -> None:
        """Reject ends that are no share."""
        checked(self)

    def __call__(self, now: Moment) -> Counts:
        """Numbers (B,)."""
        share, share_next = (self.end + (1 - self.end) * (1 - kept[:, 0]) for kept in (now.kept, now.kept_next))
        reveal = ((1 - share_next / share) * now.masked.sum(1) + 1e-9).floor().long()
        return Counts(reveal, torch.zeros_like(reveal))


@dataclass(frozen=True)
class Threshold:
    """All masks whose token is surer than a threshold, and at least so many of the surest (Fast-dLLM, LLaDA2).

    Attributes:
        confidence: the least probability of a token.
        least: masks that a step reveals at least.
        extra: of a block's steps, so many of the first that reveal at least one more.
        shaped: probabilities are those after temperature and top-p, and not the network's own.
    """

    confidence: Share = 0.9
    least: Count = 1
    extra: Number = 0
    shaped: bool = False
    revises = False
    random = False

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)

    def __call__(self, now: Moment) -> Counts:
        """Numbers (B,)."""
        logp = now.proposal.shaped if self.shaped else now.proposal.logp
        sure = (now.masked & (logp.exp() > self.confidence)).sum(1)
        least = self.least + (now.step < self.extra).long()
        return Counts(torch.maximum(sure, least), torch.zeros_like(sure))

    def slowest(self, masks: Tensor) -> Tensor:
        """The most steps (B,) that so many masks (B,) take."""
        return -(-masks // self.least)


@dataclass(frozen=True)
class Factor:
    """The n surest masks, for the largest n with (n + 1) (1 - p_n) < `factor`, p_n the nth largest probability.

    Wu et al., "Fast-dLLM: Training-free acceleration of diffusion LLM by enabling KV cache and parallel decoding",
    2025, https://arxiv.org/abs/2505.22618: within the bound, the likeliest tokens are the likeliest jointly too. The
    released code reveals the least sure mask too where all others are within the bound; here it waits for its step.

    Attributes:
        factor: of the bound; higher reveals more.
    """

    factor: Positive = 1.0
    revises = False
    random = False

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)

    def __call__(self, now: Moment) -> Counts:
        """Numbers (B,)."""
        doubt = torch.where(now.masked, -torch.expm1(now.proposal.logp), torch.inf).sort(1).values
        number = torch.arange(1, doubt.shape[1] + 1, device=doubt.device)
        fits = (number + 1) * doubt < self.factor  # both factors grow with n
        return Counts(fits.sum(1).clamp_min(1), torch.zeros_like(now.step))

    def slowest(self, masks: Tensor) -> Tensor:
        """The most steps (B,) that so many masks (B,) take."""
        return masks


@dataclass(frozen=True)
class EntropyBound:
    """As many masks, in order of entropy, as keep the sum of all their entropies but the last within `bound`.

    Ben-Hamu et al., "Accelerated sampling from masked diffusion models via entropy bounded unmasking", 2025: the sum
    bounds the mutual information that is lost by drawing the tokens independently.

    Attributes:
        bound: in nats.
    """

    bound: AtLeast0 = 0.1
    revises = False
    random = False

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)

    def __call__(self, now: Moment) -> Counts:
        """Numbers (B,)."""
        entropies = now.spread(entropy(now.prediction, now.masked), now.masked)
        ordered = torch.where(now.masked, entropies, torch.inf).sort(1).values
        before = ordered.cumsum(1) - ordered
        fits = (before <= self.bound) & ordered.isfinite()
        return Counts(fits.sum(1).clamp_min(1), torch.zeros_like(now.step))

    def slowest(self, masks: Tensor) -> Tensor:
        """The most steps (B,) that so many masks (B,) take."""
        return masks


@dataclass(frozen=True)
class Refresh:
    """The scheduled reveals, and as many more as revealed tokens are masked again (PRISM).

    Attributes:
        eta: a revealed token is counted with probability min(eta, (1 - a_s) / a_t).
        number: masked again in every step instead, if given.
    """

    eta: Share = 0.01
    number: Number | None = None
    revises = True

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)

    @property
    def random(self) -> bool:
        """Whether it draws random numbers itself."""
        return self.number is None

    def __call__(self, now: Moment) -> Counts:
        """Numbers (B,)."""
        planned = OnSchedule(least=0)(now).reveal
        if self.number is not None:
            remask = torch.full_like(planned, self.number)
        else:
            rate = most_remasked(now.kept, now.kept_next).clamp_max(self.eta)
            chance = now.streams.fold("refresh").uniform(now.active.shape[1:])
            remask = (now.shown & (chance < rate)).sum(1)
        remask = torch.minimum(remask, now.masked.sum(1) - planned)  # only masks can make up for them
        return Counts(planned + remask, remask)
