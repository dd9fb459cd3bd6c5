"""Search over paths: noise is added again on the way, and the paths whose previews a verifier likes go on.

Ma et al., "Inference-time scaling for diffusion models beyond scaling denoising steps", 2025,
https://arxiv.org/abs/2501.09732.

    walk N noises down to a level;  repeat: noise each path M ways up by `forward`, walk each down by `backward`,
    keep the N whose clean predictions score best;  until the level is 0, then take the best sample

It needs backward > forward. The defaults are the values that the paper's appendix reports (0.11, 0.78, 0.81).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import ceil

import torch
from torch import Tensor

from redraft.core.errors import RedraftError
from redraft.core.fields import Count, Inside, Part, checked
from redraft.core.method import Verifier
from redraft.core.model import Model
from redraft.core.ranking import best_rows
from redraft.core.state import Draft
from redraft.core.streams import Streams
from redraft.methods.candidates import Candidates
from redraft.methods.value import Reward, needs_verifier, scored, spread
from redraft.samplers import AnySampler, descend, for_searches, looks, sampler_for


@dataclass(frozen=True)
class Paths:
    """Widen and prune paths.

    Attributes:
        paths: N, kept of each problem.
        width: M noises of each path in a round.
        level: at which the search begins.
        forward: levels that a path is noised up.
        backward: levels that it is walked down again.
        draws: clean samples a preview is valued by, of models that draw them.
        sampler: the base; one that suits the model if not given.
    """

    paths: Count = 2
    width: Count = 4
    level: Inside = 0.11
    forward: Part = 0.78
    backward: Part = 0.81
    draws: Count = 1
    sampler: AnySampler | None = field(default=None, metadata={"suits": for_searches})

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)
        if not self.forward < self.backward:
            raise RedraftError(f"forward is {self.forward}: it must be less than backward, which is {self.backward}")

    @property
    def rounds(self) -> int:
        """How often paths are widened until the level is 0."""
        return ceil(self.level / (self.backward - self.forward) - 1e-9)

    def drafts(self, model: Model, draft: Draft, streams: Streams, verifier: Verifier | None = None) -> Iterator[Draft]:
        """One draft."""
        verifier = needs_verifier(verifier, "search over paths", relative=self.draws == 1)
        if not sampler_for(self, model).by_level:
            raise RedraftError("a search over paths takes walks up on their way: use Parallel or a masked sampler")
        if draft.number < 0:
            yield self._run(model, draft, streams, verifier)

    def nfe(self, model: Model, draft: Draft) -> Tensor:
        """The most network rows (B,) that the draft can take."""
        sampler = sampler_for(self, model)
        regions = draft.state.free.sum(1)
        each = sampler.between(model, regions, 1.0, self.level)
        for number in range(self.rounds):
            up, level = min(1.0, self.level_after(number - 1) + self.forward), self.level_after(number)
            walked = sampler.between(model, regions, up, level)
            each = each + self.width * (walked + looks(sampler, model, regions, level))
        return self.paths * each

    def verifier_calls(self, model: Model, draft: Draft) -> Tensor:
        """The most verifier rows (B,) that the draft can take."""
        return torch.full((len(draft),), self.paths * (self.rounds * self.width * self.draws + 1))

    def total(self) -> int:
        """Drafts in all."""
        return 1

    def _run(self, model: Model, draft: Draft, streams: Streams, verifier: Verifier) -> Draft:
        sampler = sampler_for(self, model)
        reward, (noisy, slots) = Reward(draws=self.draws), spread(model, draft.state, self.paths, streams)
        told, shape = Candidates(model, draft), (-1, self.paths)
        walk = sampler.init(model, noisy, slots)
        walk = descend(sampler, model, walk, self.level, slots.fold("initial"))
        number = told.add(torch.full((len(walk),), torch.nan), slots.fold("prior"))
        for place in range(self.rounds):
            here, level = slots.fold("round").fold(place).split(self.width), self.level_after(place)
            before = self.level_after(place - 1)
            up = min(1.0, before + self.forward)
            wide = sampler.rewind(model, walk.repeat(self.width), up, here.fold("noise"), at=before)
            wide = descend(sampler, model, wide, level, here.fold("walk"))
            wide, value = reward.value(sampler, model, wide, here.fold("value"), verifier)
            chosen = best_rows(value, self.paths * self.width, self.paths)
            parent = number.repeat_interleave(self.width, 1)
            number = told.add(value, here.fold("noise"), parent, up).flatten()[chosen.cpu()].view(shape)
            walk = wide[chosen]
        rewards = scored(model, walk.state, verifier)
        winner = best_rows(rewards, self.paths)
        mean, number = rewards.view(shape).mean(1), number.flatten()[winner.cpu()]
        scores = {"reward": rewards[winner], "mean_reward": mean, "candidate": number}
        return Draft(walk.state[winner], 0, scores, candidates=told.table())

    def level_after(self, number: int) -> float:
        """The level after round `number`, counted from 0; the first level after round -1."""
        return max(0.0, self.level - (number + 1) * (self.backward - self.forward)) if number + 1 < self.rounds else 0.0
