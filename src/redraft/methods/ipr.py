"""Inference-Time Scaling in Diffusion Models through Iterative Partial Refinement (IPR).

Jaesik Yoon, Taegu Kang, Sungjin Ahn, 2026, https://arxiv.org/abs/2605.19317.

    x <- generate(given regions)
    repeat: S <- k = max(1, floor(ratio |free|)) of the free regions, uniformly without replacement
            x_S <- noise;  x_S <- generate(S | all others clean)

A random-scan block Gibbs sampler with the network's own conditionals; no verifier. Beyond the paper: regions may be
selected in other ways, re-noised to a level below 1, and a redraft kept only if the model itself prefers it; a verifier
may say where to redraw, and its reward what to keep. Unlike the released code, rows are batched, schedules are exact,
and several regions may share a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from torch import Tensor

from redraft.core.errors import RedraftError
from redraft.core.fields import Like, Number, Part, checked
from redraft.core.method import Verifier
from redraft.core.model import Model, demand
from redraft.core.ranking import choose
from redraft.core.state import Draft, State
from redraft.core.streams import Streams
from redraft.methods.blame import Blame, Metropolis, blaming
from redraft.methods.selection import Disagreement, Judged, Keep, Selection, Sweep, Uncertainty, Uniform
from redraft.methods.value import needs_verifier
from redraft.samplers import AnySampler, Sequential, sample

if TYPE_CHECKING:
    AnySelection = Selection | Judged
    AnyKeep = Keep
else:  # those that a command line can spell
    AnySelection = Annotated[
        Uniform | Sweep | Uncertainty | Disagreement | Blame, Like((Judged, Selection), "redraft.Uniform()")
    ]
    AnyKeep = Annotated[Disagreement | Metropolis, Like((Keep,), "redraft.Metropolis()")]


@dataclass(frozen=True)
class IPR:
    """Re-noise some regions of a finished sample, regenerate them given the rest, repeat.

    The defaults are the paper's settings for Sudoku.

    Attributes:
        iterations: refinements after the first draft.
        ratio: share of the free regions that is redrawn, in (0, 1].
        level: noise level in (0, 1] that they are taken to; the paper's is 1.
        initial: the sampler of the first draft.
        refine: the sampler of the refinements.
        select: which regions to redraw; the paper's are uniform, `Blame` asks the verifier. One of your own is a
            `redraft.methods.selection.Selection`, or `Judged` if it asks the verifier.
        noise: 'fresh' noise in every round, or the 'fixed' noise of the first draft.
        keep: None keeps every redraft (paper); a `Disagreement` keeps it only if it has no more of it than before;
            `Metropolis` accepts it by the verifier's reward, which with uniform selection leaves p(x) exp(r(x) / alpha)
            as it is. One of your own is a `redraft.methods.selection.Keep`.
    """

    iterations: Number = 50
    ratio: Part = 0.25
    level: Part = 1.0
    initial: AnySampler = field(default_factory=Sequential)
    refine: AnySampler = field(default_factory=lambda: Sequential(steps_per_region=10, overlap=0.8))
    select: AnySelection = field(default_factory=Uniform)
    noise: Literal["fresh", "fixed"] = "fresh"
    keep: AnyKeep | None = None

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)

    @classmethod
    def quick(cls) -> IPR:
        """A quarter of the free regions at a time, all of them together: 10 NFE a refinement instead of about 41.

        On Sudoku it is ahead of the paper's settings up to 600 NFE, and ends where they are at 1,000: see the README.
        """
        return cls(iterations=40, refine=Sequential(steps_per_region=10, overlap=1.0))

    def drafts(self, model: Model, draft: Draft, streams: Streams, verifier: Verifier | None = None) -> Iterator[Draft]:
        """The first draft, unless `draft` is one already, then a refinement for each iteration."""
        demand(model, "regions", "IPR")
        judging = self.keep is not None and self.keep.asks
        asks = judging or isinstance(self.select, Judged)
        if asks != (verifier is not None):
            if asks:
                raise RedraftError("IPR with these settings needs a verifier: give run(..., verifier=...)")
            raise RedraftError("IPR without Blame or Metropolis takes no verifier: leave verifier=None")
        if isinstance(self.select, Blame):
            blaming(verifier)
        if judging:
            needs_verifier(verifier, f"IPR(keep={type(self.keep).__name__}(...))")
        while draft.number < self.iterations:
            if draft.number < 0:
                draft = replace(self._generate(model, draft, streams), number=0)
            else:
                draft = replace(self._refine(model, draft, streams, verifier), number=draft.number + 1)
            yield draft

    def nfe(self, model: Model, draft: Draft) -> Tensor:
        """Network rows (B,) of the next draft: exact, by the samplers' formulas."""
        if draft.number < 0:
            return self.initial.nfe(draft.state.free.sum(1))
        keeping = self.keep.cost(draft)[0] if self.keep else 0
        return self.refine.nfe(self._number(draft.state), self.level) + self.select.nfe + keeping

    def verifier_calls(self, model: Model, draft: Draft) -> Tensor:
        """The most verifier rows (B,) that the next draft can take."""
        asked = isinstance(self.select, Judged) + (self.keep.cost(draft)[1] if self.keep else 0)
        return torch.full((len(draft),), asked * (draft.number >= 0))

    def total(self) -> int:
        """Drafts in all."""
        return self.iterations + 1

    def _number(self, state: State) -> Tensor:
        """K (B,), in exact arithmetic."""
        ratio = Fraction(str(self.ratio))
        return (state.free.sum(1) * ratio.numerator // ratio.denominator).clamp_min(1)

    def _generate(self, model: Model, draft: Draft, streams: Streams) -> Draft:
        noisy = model.process.prior(draft.state, draft.state.free, streams.fold("prior"))
        return replace(draft, state=sample(self.initial, model, noisy, streams.fold("initial")))

    def _refine(self, model: Model, draft: Draft, streams: Streams, verifier: Verifier | None) -> Draft:
        old, number = draft.state, self._number(draft.state)
        if isinstance(self.select, Judged):
            priority, number = self.select.chosen(model, old, number, draft.number, streams, verifier)
        else:
            priority = self.select(model, old, number, draft.number, streams)
        chosen = choose(priority, old.free, number)
        round_ = streams.fold("round").fold(draft.number)
        noise = streams.fold("prior") if self.noise == "fixed" else round_.fold("noise")
        noisy = model.process.renoise(old, chosen, torch.full_like(old.t, self.level), noise)
        new = sample(self.refine, model, noisy, round_.fold("walk"))
        return self.keep.kept(model, draft, new, streams, verifier) if self.keep else replace(draft, state=new)
