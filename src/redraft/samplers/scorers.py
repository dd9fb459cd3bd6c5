"""Which tokens a step of a masked sampler trusts: scores, the best highest."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from redraft.core.errors import RedraftError
from redraft.core.fields import AtLeast0, Count, checked
from redraft.processes.categorical import entropy, margin, peaks, surprise
from redraft.samplers.rules import Moment


@dataclass(frozen=True)
class Confidence:
    """How likely the token drawn was (MaskGIT, LLaDA); of revealed tokens, when they were revealed.

    Attributes:
        shaped: in the distribution after temperature and top-p (Dream, LLaDA2), not in the network's own.
        log: the logarithm, or with noise in the rule the probability itself (Dream); without noise both rank alike.
    """

    shaped: bool = False
    log: bool = True
    passes = 0
    needs = ()
    random = False

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)

    def __call__(self, now: Moment) -> Tensor:
        """Scores (B, R)."""
        logp = now.proposal.shaped if self.shaped else now.proposal.logp
        return logp if self.log else logp.exp()


@dataclass(frozen=True)
class Margin:
    """Difference of the two highest probabilities (Kim et al., "Train for the worst, plan for the best", 2025).

    Attributes:
        shaped: of the distribution after temperature and top-p (Dream), not of the network's own.
    """

    shaped: bool = False
    passes = 0
    needs = ()
    random = False

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)

    def __call__(self, now: Moment) -> Tensor:
        """Scores (B, R)."""
        return now.spread(margin(now.prediction, now.masked, now.draw if self.shaped else None), now.masked)


@dataclass(frozen=True)
class Entropy:
    """Minus the entropy of the network's distribution.

    Attributes:
        shaped: of the distribution after temperature and top-p (Dream).
    """

    shaped: bool = False
    passes = 0
    needs = ()
    random = False

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)

    def __call__(self, now: Moment) -> Tensor:
        """Scores (B, R)."""
        return -now.spread(entropy(now.prediction, now.masked, now.draw if self.shaped else None), now.masked)


@dataclass(frozen=True)
class EndsLast:
    """Confidence, but tokens that end a text come last, and the others' probabilities are among themselves.

    `confidence_eos_eot_inf` of LLaDA's generate(), at temperature 0: the logits of EOS and EoT are lowered after the
    tokens are drawn and before their probabilities are taken. At other temperatures the released code lowers EoT alone
    there, since it writes EOS's into a copy; this scorer lowers both, as the paper says (arXiv 2502.09992, B.4).
    """

    passes = 0
    needs = ("ends",)
    random = False

    def __call__(self, now: Moment) -> Tensor:
        """Scores (B, R)."""
        ends: tuple[int, ...] = now.model.convention.ends  # type: ignore[attr-defined]
        tokens = now.proposal.tokens
        logp = now.spread(-surprise(now.prediction, now.masked, tokens, ends), now.masked)
        return torch.where(now.masked, logp, now.confidence.double())


@dataclass(frozen=True)
class Planner:
    """P2's self-planning: log p of the token, at revealed positions from the network's raw logits there.

    Peng et al., "Path planning for masked diffusion model sampling", 2025. With logits that carry revealed tokens over,
    those would have p = 1 and never be masked again (as in G-Star's P2 baseline), so such models are refused.

    Attributes:
        eta: factor of the scores at revealed positions, which are negative: above 1 masks more of them, 0 none.
        fresh: as in the authors' code, where a score is not of the token that is there but of a fresh draw in its
            place, and has the Gumbel noise of that draw: the largest of log softmax(logits / temperature + noise), at
            masks with the noise that draws the proposed token.
    """

    eta: AtLeast0 = 1.0
    fresh: bool = False
    passes = 0
    needs = ("raw logits",)

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)

    @property
    def random(self) -> bool:
        """Whether it draws random numbers itself."""
        return self.fresh

    def __call__(self, now: Moment) -> Tensor:
        """Scores (B, R)."""
        scores = self._drawn(now) if self.fresh else self._given(now)
        # without the factor above all masks, whatever their log p
        kept = self.eta * scores if self.eta else torch.full_like(scores, torch.inf)
        return torch.where(now.masked, scores, kept)

    def _given(self, now: Moment) -> Tensor:
        kept = now.spread(-surprise(now.prediction, now.shown, now.state.x), now.shown)
        return torch.where(now.masked, now.proposal.logp.double(), kept)

    def _drawn(self, now: Moment) -> Tensor:
        tokens = torch.where(now.masked, now.proposal.tokens, -1)
        values = peaks(now.prediction, now.active, tokens, now.draw.temperature, now.streams.fold("planner"))
        return now.spread(values, now.active)


@dataclass(frozen=True)
class Judge:
    """Minus a critic's logit that the token is wrong, read off the whole proposal (G-Star, Token-Critic).

    Attributes:
        critic: its name among the model's critics.
    """

    critic: str = "star"
    passes = 1
    random = False

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)

    @property
    def needs(self) -> tuple[str, ...]:
        """The critic."""
        return (f"critic:{self.critic}",)

    def __call__(self, now: Moment) -> Tensor:
        """Scores (B, R); a network pass of its own."""
        wrong: Tensor = now.model.judge(self.critic, now.proposal.tokens, now.state)  # type: ignore[attr-defined]
        return -wrong.double()


@dataclass(frozen=True)
class Quality:
    """At revealed positions minus the logit of a critic that reads the denoiser's own pass (PRISM); masks at random.

    Attributes:
        critic: its name among the model's critics.
    """

    critic: str = "prism"
    passes = 0
    random = True

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)

    @property
    def needs(self) -> tuple[str, ...]:
        """The critic."""
        return (f"critic:{self.critic}",)

    def __call__(self, now: Moment) -> Tensor:
        """Scores (B, R)."""
        wrong: Tensor = now.model.quality(self.critic, now.state, now.prediction)  # type: ignore[attr-defined]
        chance = now.streams.fold("quality").uniform(now.active.shape[1:])
        return torch.where(now.masked, chance, -wrong.double())


@dataclass(frozen=True)
class Halton:
    """A fixed order that fills a picture evenly: the Halton sequence of bases 2 and 3 on the grid of tokens.

    Besnier et al., "Halton scheduler for masked generative image transformer", 2025. As in the authors' code the
    sequence begins with the point (1/2, 1/3), not with (0, 0).

    Attributes:
        height: rows of tokens; the square root of their number if not given.
    """

    height: Count | None = None
    passes = 0
    needs = ()
    random = False

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)

    def __call__(self, now: Moment) -> Tensor:
        """Scores (B, R), the same in every step."""
        tokens = now.active.shape[1]
        height = self.height or round(tokens**0.5)
        if tokens % height or (not self.height and height**2 != tokens):
            raise RedraftError(f"{tokens} tokens are no grid of {height} rows: give Halton(height=...)")
        rank = halton_rank(height, tokens // height).to(now.active.device).expand(len(now.active), tokens)
        return -rank.double()


@lru_cache(maxsize=16)
def halton_rank(height: int, width: int) -> Tensor:
    """Place (height * width,) of each cell, row by row, in the Halton order of the grid."""
    cells: dict[int, int] = {}
    number = 1
    while len(cells) < height * width:
        cell = _mirrored(number, 2, height) * width + _mirrored(number, 3, width)
        cells.setdefault(cell, len(cells))
        number += 1
    return torch.tensor([cells[cell] for cell in range(height * width)])


def _mirrored(number: int, base: int, size: int) -> int:
    """Which of `size` equal parts of [0, 1) holds the digits of `number` in `base`, mirrored at the point; exact."""
    mirrored, whole = 0, 1
    while number:
        mirrored, whole = mirrored * base + number % base, whole * base
        number //= base
    return mirrored * size // whole
