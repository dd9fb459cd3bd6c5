"""Beam search over the sampler's steps: of all children of all beams, those of the highest value go on.

The dynamic beams of Li et al., "Dynamic search for inference-time alignment in diffusion models" (DSearch), 2025,
https://arxiv.org/abs/2503.02039, with a constant width:

    of each of B beams draw M children, each by one step;  the B of highest value V are the next beams
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

import torch
from torch import Tensor

from redraft.core.distinct import Differing
from redraft.core.fields import Count, checked
from redraft.core.method import Verifier
from redraft.core.model import Model
from redraft.core.ranking import best_rows
from redraft.core.state import Draft
from redraft.core.streams import Streams
from redraft.methods.svdd import born
from redraft.methods.value import AnyReward, Reward, needs_verifier, spread
from redraft.samplers import AnySampler, for_choices, needs_random_steps, sampler_for


@dataclass(frozen=True)
class Beam:
    """Keep the best `beams` of all children at every step.

    Attributes:
        beams: B.
        children: M of each beam.
        reward: how states are valued; a beam search has no temperature, so that of `alpha` only joins the draws.
        sampler: the base, of random steps; one that suits the model if not given.
    """

    beams: Count = 2
    children: Count = 2
    reward: AnyReward = field(default_factory=Reward)
    sampler: AnySampler | None = field(default=None, metadata={"suits": for_choices})

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)

    def drafts(self, model: Model, draft: Draft, streams: Streams, verifier: Verifier | None = None) -> Iterator[Draft]:
        """One draft."""
        verifier = needs_verifier(verifier, "beam search")
        needs_random_steps(sampler_for(self, model), model, "beam search", self.beams * self.children > 1)
        if draft.number < 0:
            yield self._run(model, draft, streams, verifier)

    def nfe(self, model: Model, draft: Draft) -> Tensor:
        """The most network rows (B,) that the draft can take."""
        steps = sampler_for(self, model).between(model, draft.state.free.sum(1))
        return self.beams * (1 + self.children * (steps - 1))

    def verifier_calls(self, model: Model, draft: Draft) -> Tensor:
        """The most verifier rows (B,) that the draft can take."""
        return self.beams * self.children * self.reward.draws * sampler_for(self, model).nfe(draft.state.free.sum(1))

    def total(self) -> int:
        """Drafts in all."""
        return 1

    def _run(self, model: Model, draft: Draft, streams: Streams, verifier: Verifier) -> Draft:
        noisy, slots = spread(model, draft.state, self.beams, streams)
        sampler = sampler_for(self, model)
        walk = sampler.init(model, noisy, slots)
        value = torch.zeros_like(walk.done, dtype=torch.float64)
        told = Differing.of(len(draft), walk.done.device)
        for number in count():
            going = ~walk.done.view(-1, self.beams).all(1).repeat_interleave(self.beams)
            if not going.any():
                break
            here = slots[going].fold("step").fold(number)
            family, values = born(sampler, model, walk[going], self.children, here, self.reward, verifier)
            told = told.and_of(family.state.x, going.view(-1, self.beams)[:, 0])
            rows = best_rows(values, self.beams * self.children, self.beams)
            walk, value[going] = walk.put(going, family[rows]), values[rows]
        rows = best_rows(value, self.beams)
        scores = {"reward": value[rows]} | told.scores(self.beams * self.children)
        return Draft(walk.state[rows], draft.number + 1, scores)
