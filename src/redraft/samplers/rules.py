"""One step of a masked sampler: which masks are revealed, and which revealed tokens are masked again.

A budget says how many, a scorer says which, a rule puts the two together; budgets.py and scorers.py hold the choices.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from redraft.core.errors import RedraftError
from redraft.core.fields import AtLeast0, checked
from redraft.core.model import Model
from redraft.core.ranking import choose
from redraft.core.state import Prediction, State
from redraft.core.streams import Streams
from redraft.processes.categorical import Draw


class Proposal(NamedTuple):
    """A whole sequence, and how likely its tokens were.

    Attributes:
        tokens: ids (B, R): draws, or what there is.
        logp: log probability (B, R) of draws under the network's own distribution.
        shaped: log probability (B, R) of draws under the distribution that they were drawn from, after temperature and
            top-p (at temperature 0 see `Draw.weights`). Of other positions both are `Moment.confidence`.
    """

    tokens: Tensor
    logp: Tensor
    shaped: Tensor


@dataclass(frozen=True)
class Moment:
    """What a step knows.

    Attributes:
        model: the model; its critics may be asked.
        state: where the rows are.
        prediction: of the network for `state`.
        active: positions (B, R) that this step may change.
        masked: those of them that are masked.
        confidence: log probability (B, R) that revealed tokens had when they were revealed, in the distribution that
            they were drawn from; 0 if that was before.
        t: level of noise (B, 1).
        kept: a at this level (B, 1).
        kept_next: a at the level that the step leads to (B, 1).
        step: steps done (B,), of this block.
        steps: steps in all (B,), of this block.
        draw: how tokens are drawn.
        streams: of this step.
        before: the prediction of each row's evaluation before this one, if a rule of the sampler `remembers`, else
            None; rows that have none hold the present one.
        remembered: rows (B,) that have one before.
    """

    model: Model
    state: State
    prediction: Prediction
    active: Tensor
    masked: Tensor
    confidence: Tensor
    t: Tensor
    kept: Tensor
    kept_next: Tensor
    step: Tensor
    steps: Tensor
    draw: Draw
    streams: Streams
    before: Prediction | None = None
    remembered: Tensor | None = None

    @property
    def t_next(self) -> Tensor:
        """Level of noise (B, 1) that the step leads to."""
        left = (self.steps - self.step).double()[:, None]
        return self.t * (left - 1) / left

    @property
    def shown(self) -> Tensor:
        """Active positions (B, R) that hold a token."""
        return self.active & ~self.masked

    @property
    def size(self) -> Tensor:
        """Number (B,) of active positions."""
        return self.active.sum(1)

    @cached_property
    def proposal(self) -> Proposal:
        """The whole sequence x^, with a draw for every active mask."""
        return self.drawn(self.masked)

    def drawn(self, where: Tensor) -> Proposal:
        """Draws in the positions `where` (B, R), what there is elsewhere.

        A position's draw is the same whatever the other positions in `where`.
        """
        drawn = self.draw(self.prediction, where, self.streams.fold("draw"))
        tokens, logp, shaped = self.state.x.clone(), self.confidence.clone(), self.confidence.clone()
        tokens[where], logp[where], shaped[where] = drawn.tokens, drawn.logp.to(logp), drawn.shaped.to(shaped)
        return Proposal(tokens, logp, shaped)

    def spread(self, values: Tensor, where: Tensor) -> Tensor:
        """`values` (A,) of the positions `where` (B, R) as (B, R), 0 elsewhere."""
        placed = torch.zeros(where.shape, dtype=torch.float64, device=where.device)
        placed[where] = values.to(placed)
        return placed


@dataclass(frozen=True)
class Rates:
    """Probabilities (B, R) or (B, 1) that a mask is revealed, and that a revealed token is masked again."""

    reveal: Tensor
    remask: Tensor


@dataclass(frozen=True)
class Counts:
    """Numbers (B,) of masks to reveal, and of revealed tokens to mask again.

    Where both are ranked together only the difference counts, which may be below 0.
    """

    reveal: Tensor
    remask: Tensor


class Budget(Protocol):
    """How many tokens a step reveals and masks again.

    One with `remembers = True` finds the row's prediction before in `Moment.before`; so does a scorer.
    """

    @property
    def revises(self) -> bool:
        """Whether it masks tokens again."""

    @property
    def random(self) -> bool:
        """Whether it draws random numbers itself; probabilities are drawn by the rule."""

    def __call__(self, now: Moment) -> Rates | Counts:
        """Probabilities, or numbers."""


class Scorer(Protocol):
    """Which tokens are to be trusted."""

    @property
    def passes(self) -> int:
        """Network rows that a call takes beyond the denoiser's own."""

    @property
    def needs(self) -> tuple[str, ...]:
        """What the model has to offer."""

    @property
    def random(self) -> bool:
        """Whether it draws random numbers itself, other than the proposal's tokens."""

    def __call__(self, now: Moment) -> Tensor:
        """Scores (B, R), float64, the best highest: of x^ at masks, of what is there at revealed positions."""


class Choice(Protocol):
    """How a step chooses: `Rule`, or one's own."""

    @property
    def revises(self) -> bool:
        """Whether it masks tokens again."""

    @property
    def passes(self) -> int:
        """Network rows that a step takes beyond the denoiser's own."""

    @property
    def needs(self) -> tuple[str, ...]:
        """What the model has to offer."""

    @property
    def remembers(self) -> bool:
        """Whether it asks for the prediction before: `Moment.before`, which doubles the memory of logits."""

    def __call__(self, now: Moment) -> tuple[Tensor, Tensor]:
        """Masks to reveal and revealed tokens to mask again, (B, R) bool each."""


@dataclass(frozen=True)
class Rule:
    """How a step chooses.

    With rates and no scorer, each position is chosen by itself. With a scorer, the numbers are the budget's, or drawn
    by its rates, and the highest scores are revealed, the lowest masked again.

    Attributes:
        budget: how many.
        scorer: which; None is at random.
        noise: scale of the Gumbel noise that is added to the scores: a draw without replacement in proportion to
            exp(score / noise); 0 takes the best.
        annealed: the noise falls with the level of noise that the step leads to, to 0 at the end (MaskGIT).
        joint: masks and revealed tokens are ranked together, and a proposed token competes with one that is there.
    """

    budget: Budget
    scorer: Scorer | None = None
    noise: AtLeast0 = 0.0
    annealed: bool = False
    joint: bool = False

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)

    @property
    def revises(self) -> bool:
        """Whether it masks tokens again."""
        return self.joint or self.budget.revises

    @property
    def random(self) -> bool:
        """Whether it draws numbers; parts of one's own that do not say are taken to."""
        parts = [part for part in (self.budget, self.scorer) if part is not None]
        return self.noise > 0 or self.scorer is None or any(getattr(part, "random", True) for part in parts)

    @property
    def passes(self) -> int:
        """Network rows that a step takes beyond the denoiser's own."""
        return self.scorer.passes if self.scorer else 0

    @property
    def needs(self) -> tuple[str, ...]:
        """What the model has to offer."""
        return self.scorer.needs if self.scorer else ()

    @property
    def remembers(self) -> bool:
        """Whether a part asks for the prediction before."""
        return any(getattr(part, "remembers", False) for part in (self.budget, self.scorer))

    def __call__(self, now: Moment) -> tuple[Tensor, Tensor]:
        """Masks to reveal and revealed tokens to mask again, (B, R) bool each."""
        amount = self.budget(now)
        if isinstance(amount, Rates):
            _check(amount)
            chance = now.streams.fold("chance").uniform(now.active.shape[1:])
            reveal, remask = now.masked & (chance < amount.reveal), now.shown & (chance < amount.remask)
            if self.scorer is None and not self.joint:
                return reveal, remask
            amount = Counts(reveal.sum(1), remask.sum(1))
        scores = self.scores(now)
        noise = self._noise(now)
        if not self.joint:
            return choose(scores + noise, now.masked, amount.reveal), choose(noise - scores, now.shown, amount.remask)
        number = now.masked.sum(1) - amount.reveal + amount.remask
        after = choose(noise - scores, now.active, number)
        return now.masked & ~after, now.shown & after

    def scores(self, now: Moment) -> Tensor:
        """The scorer's scores (B, R), or random ones."""
        if self.scorer is None:
            return now.streams.fold("scores").uniform(now.active.shape[1:])
        return self.scorer(now).double()

    def _noise(self, now: Moment) -> Tensor:
        if not self.noise:
            return torch.zeros(now.active.shape, dtype=torch.float64, device=now.active.device)
        scale = self.noise * (now.t_next if self.annealed else 1.0)
        return scale * now.streams.fold("noise").gumbel(now.active.shape[1:])


def _check(rates: Rates) -> None:
    found = {"sigma, the probability to mask again,": rates.remask, "the probability to reveal": rates.reveal}
    for what, rate in found.items():
        if not ((rate >= 0) & (rate <= 1)).all():
            raise RedraftError(f"{what} is out of bounds: {float(rate.min()):.3g} to {float(rate.max()):.3g}")
