"""Spend less on candidates that will not win: drafts at few steps, or halving the field on the way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import ceil

import torch
from torch import Tensor

from redraft.core.distinct import among
from redraft.core.errors import RedraftError
from redraft.core.fields import Count, Inside, checked
from redraft.core.method import Verifier
from redraft.core.model import Model
from redraft.core.ranking import best_rows
from redraft.core.state import Draft
from redraft.core.streams import Streams
from redraft.methods.candidates import Candidates
from redraft.methods.value import Reward, needs_verifier, scored, spread
from redraft.samplers import (
    AnySampler,
    descend,
    for_rough_drafts,
    for_searches,
    looks,
    needs_restarts,
    sample,
    sampler_for,
)


@dataclass(frozen=True)
class DraftThenVerify:
    """Sample all candidates at few steps, then the best again in full, from the same noise.

    Attributes:
        candidates: of each problem.
        finalists: of these, sampled in full.
        draft: the sampler of the drafts; one of few steps that suits the model if not given.
        sampler: the sampler of the finalists; one that suits the model if not given.
    """

    candidates: Count = 16
    finalists: Count = 2
    draft: AnySampler | None = field(default=None, metadata={"suits": for_rough_drafts})
    sampler: AnySampler | None = field(default=None, metadata={"suits": for_searches})

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)
        if self.finalists > self.candidates:
            raise RedraftError(
                f"finalists is {self.finalists}: it must lie between 1 and {self.candidates}, the candidates"
            )

    def drafts(self, model: Model, draft: Draft, streams: Streams, verifier: Verifier | None = None) -> Iterator[Draft]:
        """One draft."""
        verifier = needs_verifier(verifier, "draft-then-verify", relative=True)
        needs_restarts(sampler_for(self, model, "draft"), model, "draft-then-verify", self.candidates > 1)
        if draft.number < 0:
            yield self._run(model, draft, streams, verifier)

    def nfe(self, model: Model, draft: Draft) -> Tensor:
        """The most network rows (B,) that the draft can take."""
        regions = draft.state.free.sum(1)
        rough, full = (sampler_for(self, model, name).between(model, regions) for name in ("draft", "sampler"))
        return self.candidates * rough + self.finalists * full

    def verifier_calls(self, model: Model, draft: Draft) -> Tensor:
        """Verifier rows (B,) of the draft."""
        return torch.full((len(draft),), self.candidates + self.finalists)

    def total(self) -> int:
        """Drafts in all."""
        return 1

    def _run(self, model: Model, draft: Draft, streams: Streams, verifier: Verifier) -> Draft:
        told, (noisy, slots) = Candidates(model, draft), spread(model, draft.state, self.candidates, streams)
        rough = sample(sampler_for(self, model, "draft"), model, noisy, slots.fold("initial"))
        rewards = scored(model, rough, verifier)
        chosen = best_rows(rewards, self.candidates, self.finalists)
        number = told.add(rewards, slots.fold("prior")).flatten()
        slots = slots[chosen]
        final = sample(sampler_for(self, model), model, noisy[chosen], slots.fold("initial"))
        rewards = scored(model, final, verifier)
        winner = best_rows(rewards, self.finalists)
        parent = number[chosen.cpu()].view(-1, self.finalists)
        number = told.add(rewards, slots.fold("prior"), parent).flatten()
        scores = {"reward": rewards[winner], "candidate": number[winner.cpu()]} | among(rough.x, len(draft))
        return Draft(final[winner], 0, scores, candidates=told.table())


@dataclass(frozen=True)
class Halving:
    """Successive halving: at each level the better part of the candidates goes on, judged by previews.

    Jamieson, Talwalkar, "Non-stochastic best arm identification and hyperparameter optimization", 2016, with the clean
    prediction at a level of noise in place of a partly trained model.

    Attributes:
        candidates: of each problem, at the start.
        levels: at which candidates are judged.
        kept: share of them that goes on at each level.
        sampler: the base; one that suits the model if not given.
    """

    candidates: Count = 16
    levels: tuple[Inside, ...] = (0.7, 0.5, 0.3)
    kept: Inside = 0.5
    sampler: AnySampler | None = field(default=None, metadata={"suits": for_searches})

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)

    def drafts(self, model: Model, draft: Draft, streams: Streams, verifier: Verifier | None = None) -> Iterator[Draft]:
        """One draft."""
        verifier = needs_verifier(verifier, "successive halving", relative=True)
        sampler = sampler_for(self, model)
        needs_restarts(sampler, model, "successive halving", self.candidates > 1)
        if not sampler.by_level:
            raise RedraftError("successive halving judges walks on their way: use Parallel or a masked sampler")
        if draft.number < 0:
            yield self._run(model, draft, streams, verifier)

    def nfe(self, model: Model, draft: Draft) -> Tensor:
        """The most network rows (B,) that the draft can take."""
        sampler = sampler_for(self, model)
        regions, sizes = draft.state.free.sum(1), self._sizes()
        total = sizes[-1] * sampler.between(model, regions)
        for size, following, level in zip(sizes, sizes[1:], sorted(self.levels, reverse=True), strict=False):
            walked = sampler.between(model, regions, 1.0, level)
            total = total + (size - following) * (walked + looks(sampler, model, regions, level))
        return total

    def verifier_calls(self, model: Model, draft: Draft) -> Tensor:
        """Verifier rows (B,) of the draft."""
        return torch.full((len(draft),), sum(self._sizes()))

    def total(self) -> int:
        """Drafts in all."""
        return 1

    def _sizes(self) -> list[int]:
        """Candidates of each stretch of the walk."""
        sizes = [self.candidates]
        for _ in self.levels:
            sizes.append(max(1, ceil(sizes[-1] * self.kept)))
        return sizes

    def _run(self, model: Model, draft: Draft, streams: Streams, verifier: Verifier) -> Draft:
        sampler = sampler_for(self, model)
        told, (noisy, slots) = Candidates(model, draft), spread(model, draft.state, self.candidates, streams)
        walk = sampler.init(model, noisy, slots)
        sizes, parent = self._sizes(), None
        for size, following, level in zip(sizes, sizes[1:], sorted(self.levels, reverse=True), strict=False):
            walk = descend(sampler, model, walk, level, slots.fold("initial"))
            here = slots.fold("value").fold(f"level {level}")
            walk, value = Reward().value(sampler, model, walk, here, verifier)
            chosen = best_rows(value, size, following)
            parent = told.add(value, slots.fold("prior"), parent).flatten()[chosen.cpu()].view(-1, following)
            walk, slots = walk[chosen], slots[chosen]
        walk = descend(sampler, model, walk, 0.0, slots.fold("initial"))
        rewards = scored(model, walk.state, verifier)
        winner = best_rows(rewards, sizes[-1])
        number = told.add(rewards, slots.fold("prior"), parent).flatten()[winner.cpu()]
        scores = {"reward": rewards[winner], "candidate": number} | among(walk.state.x, len(draft))
        return Draft(walk.state[winner], 0, scores, candidates=told.table())
