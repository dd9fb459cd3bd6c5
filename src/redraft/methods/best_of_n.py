"""Best of N: independent samples, and of each problem the one that the verifier likes best.

The plain baseline of all search; anytime, as every draft has seen `at_once` samples more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from redraft.core.distinct import distinct, prints
from redraft.core.errors import RedraftError
from redraft.core.fields import Count, checked
from redraft.core.method import Verifier
from redraft.core.model import Model
from redraft.core.ranking import flat
from redraft.core.state import Draft
from redraft.core.streams import Streams
from redraft.methods.candidates import Candidates
from redraft.methods.value import compared, needs_verifier, remembered
from redraft.samplers import AnySampler, for_samples, needs_restarts, sample, sampler_for


@dataclass(frozen=True)
class BestOfN:
    """Keep the best of `n` samples.

    Attributes:
        n: samples of each problem, in all.
        at_once: samples of each problem that are drawn together, for one draft; changes no sample.
        sampler: how they are drawn; one that suits the model if not given.
    """

    n: Count = 4
    at_once: Count = 1
    sampler: AnySampler | None = field(default=None, metadata={"suits": for_samples})

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)
        if self.n % self.at_once:
            raise RedraftError(f"n is {self.n} and at_once {self.at_once}: the second must divide the first")

    def drafts(self, model: Model, draft: Draft, streams: Streams, verifier: Verifier | None = None) -> Iterator[Draft]:
        """The best of 1, 2, ... times `at_once` samples; a start from elsewhere is the first to beat."""
        verifier = needs_verifier(verifier, "best-of-N", relative=True)
        needs_restarts(sampler_for(self, model), model, "best-of-N", self.n > 1)
        while draft.number < self.total() - 1:
            draft = self._better(model, draft, streams, verifier)
            yield draft

    def nfe(self, model: Model, draft: Draft) -> Tensor:
        """The most network rows (B,) that the next draft can take."""
        return self.at_once * sampler_for(self, model).between(model, draft.state.free.sum(1))

    def verifier_calls(self, model: Model, draft: Draft) -> Tensor:
        """The most verifier rows (B,) that the next draft can take."""
        again = draft.number >= 0 and "reward" not in draft.carry
        return torch.full((len(draft),), self.at_once + again)

    def total(self) -> int:
        """Drafts in all."""
        return self.n // self.at_once

    def _better(self, model: Model, draft: Draft, streams: Streams, verifier: Verifier) -> Draft:
        many = draft.state.repeat(self.at_once)
        number = (draft.number + 1) * self.at_once + torch.arange(self.at_once).repeat(len(draft))
        chains = streams.repeat(self.at_once).fold("sample").fold(number)
        noise = chains.fold("prior")
        noisy, told = model.process.prior(many, many.free, noise), Candidates(model, draft, int(number[0]))
        drawn = sample(sampler_for(self, model), model, noisy, chains.fold("initial"))
        before, rewards = compared(model, draft, drawn, verifier)
        numbers = told.add(rewards, noise)
        best, place = rewards.max(1)
        better = best > before
        state = draft.state.put(better, drawn[flat(place, self.at_once)[better]]) if better.any() else draft.state
        reward = torch.where(better, best, before)
        winner = draft.carry.get("candidate", torch.full_like(place, -1))
        winner = torch.where(better, numbers.to(place).gather(1, place[:, None])[:, 0], winner)
        new = prints(drawn.x).view(len(draft), -1)
        seen = torch.cat([draft.carry.get("seen", new[:, :0]), new], 1)
        scores = {"reward": reward, "mean_reward": rewards.mean(1), "candidate": winner} | distinct(seen)
        carry = remembered(verifier, reward=reward) | {"candidate": winner, "seen": seen}
        return Draft(state, draft.number + 1, scores, carry, told.table())
