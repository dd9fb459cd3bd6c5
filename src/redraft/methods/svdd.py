"""Derivative-free guidance in continuous and discrete diffusion models with soft value-based decoding (SVDD).

Xiner Li, Yulai Zhao, Chenyu Wang, Gabriele Scalia, Gokcen Eraslan, Surag Nair, Tommaso Biancalani, Shuiwang Ji, Aviv
Regev, Sergey Levine, Masatoshi Uehara, 2024, https://arxiv.org/abs/2408.08252. The posterior-mean variant (SVDD-PM):

    of each state draw M children, each by one step;  go on from one of them, in proportion to exp(V / alpha)

A child's evaluation, which its value needs, is the one that its own next step uses: M evaluations a step, where the
released code makes M + 1. The released code takes the best child whatever alpha is (`greedy`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import torch
from torch import Tensor

from redraft.core.distinct import Differing
from redraft.core.fields import Count, checked
from redraft.core.method import Verifier
from redraft.core.model import Model
from redraft.core.ranking import flat
from redraft.core.state import Draft
from redraft.core.streams import Streams
from redraft.core.weights import resample
from redraft.methods.value import AnyReward, Reward, needs_verifier
from redraft.samplers import AnySampler, advance, for_choices, needs_random_steps, sampler_for


@dataclass(frozen=True)
class SVDD:
    """Choose among children by value, at every step.

    Attributes:
        children: M.
        reward: the target's temperature, and how states are valued.
        greedy: take the best child.
        sampler: the base, of random steps; one that suits the model if not given.
    """

    children: Count = 4
    reward: AnyReward = field(default_factory=Reward)
    greedy: bool = False
    sampler: AnySampler | None = field(default=None, metadata={"suits": for_choices})

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)

    def drafts(self, model: Model, draft: Draft, streams: Streams, verifier: Verifier | None = None) -> Iterator[Draft]:
        """One draft."""
        verifier = needs_verifier(verifier, "SVDD")
        needs_random_steps(sampler_for(self, model), model, "SVDD", self.children > 1)
        if draft.number < 0:
            yield self._run(model, draft, streams, verifier)

    def nfe(self, model: Model, draft: Draft) -> Tensor:
        """The most network rows (B,) that the draft can take."""
        steps = sampler_for(self, model).between(model, draft.state.free.sum(1))
        return 1 + self.children * (steps - 1)

    def verifier_calls(self, model: Model, draft: Draft) -> Tensor:
        """The most verifier rows (B,) that the draft can take."""
        return self.children * self.reward.draws * sampler_for(self, model).nfe(draft.state.free.sum(1))

    def total(self) -> int:
        """Drafts in all."""
        return 1

    def _run(self, model: Model, draft: Draft, streams: Streams, verifier: Verifier) -> Draft:
        noisy = model.process.prior(draft.state, draft.state.free, streams.fold("prior"))
        sampler = sampler_for(self, model)
        walk = sampler.init(model, noisy, streams)
        value = torch.zeros_like(walk.done, dtype=torch.float64)
        told = Differing.of(len(walk), walk.done.device)
        for number in count():
            going = ~walk.done
            if not going.any():
                break
            here = streams[going].fold("step").fold(number)
            family, values = born(sampler, model, walk[going], self.children, here, self.reward, verifier)
            told = told.and_of(family.state.x, going)
            values = values.view(-1, self.children)
            chosen = values.argmax(1) if self.greedy else self._drawn(values, here)
            walk = walk.put(going, family[flat(chosen, self.children)])
            value[going] = values.gather(1, chosen[:, None])[:, 0]
        return Draft(walk.state, draft.number + 1, {"reward": value} | told.scores(self.children))

    def _drawn(self, values: Tensor, streams: Streams) -> Tensor:
        return resample(self.reward.log_weight(values), streams.fold("choose"), "multinomial")[:, 0]


def born(
    sampler: AnySampler, model: Model, walk: Any, children: int, streams: Streams, reward: AnyReward, verifier: Verifier
) -> tuple[Any, Tensor]:
    """`children` of each row of a walk, side by side, each one step on, and their values (B * children,)."""
    slots = streams.split(children)
    going = ~walk.done
    walk = walk.put(going, sampler.look(model, walk[going])) if going.any() else walk
    family = advance(sampler, model, walk.repeat(children), slots)
    return reward.value(sampler, model, family, slots.fold("value"), verifier)
