"""A general framework for inference-time scaling and steering of diffusion models (Feynman-Kac steering).

Raghav Singhal, Zachary Horvitz, Ryan Teehan, Mengye Ren, Zhou Yu, Kathleen McKeown, Rajesh Ranganath, 2025,
https://arxiv.org/abs/2501.06848. Sequential Monte Carlo over the sampler's steps:

    each particle takes a step;  log W += log G;  resample in proportion to W when the effective size is low
    potentials of values V at the steps where particles are weighed, lambda = 1 / alpha:
        difference  log G = lambda (V_now - V_before)         max  log G = lambda max(V_so_far)
        sum         log G = lambda sum(V_so_far)              reward  log G = lambda V_now
    and at the end log G = lambda r(x0) - (what was applied before), so that the product is exp(r / alpha) for all.

Unlike the released code, weights stay in log space, are carried on where resampling is skipped, belong to the state
that was valued rather than to its parent, and many problems run in one batch; the evidence and all particles are
returned.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, Literal

import torch
from torch import Tensor

from redraft.core.distinct import Differing
from redraft.core.fields import AtLeast0, Count, Share, checked
from redraft.core.method import Verifier
from redraft.core.model import Model
from redraft.core.ranking import flat
from redraft.core.rows import Rows
from redraft.core.state import Draft
from redraft.core.streams import Streams
from redraft.core.weights import effective_size, log_mean, resample
from redraft.methods.value import AnyReward, Reward, needs_verifier, scored, spread
from redraft.samplers import AnySampler, advance, for_choices, needs_random_steps, sampler_for

POTENTIALS = ("difference", "max", "sum", "reward")


@dataclass(frozen=True, repr=False)
class Cloud(Rows):
    """The weights of N particles of each of P problems.

    Attributes:
        log_weight: (P, N), since the last resampling.
        log_evidence: (P,), log of the product of mean weights so far; at the end exp of it is an unbiased estimate of
            E exp(r / alpha) under the base sampler.
        applied: sum of log G (P, N) along each particle's line.
        memory: V of the last weighing (P, N), or the largest, or their sum, as the potential needs.
        root: the first particle (P, N) of each line.
        resampled: how often (P,).
    """

    log_weight: Tensor
    log_evidence: Tensor
    applied: Tensor
    memory: Tensor
    root: Tensor
    resampled: Tensor

    @classmethod
    def start(cls, problems: int, particles: int, potential: str, device: torch.device) -> Cloud:
        """No weight yet."""
        zero = torch.zeros(problems, particles, dtype=torch.float64, device=device)
        memory = torch.full_like(zero, -torch.inf) if potential == "max" else zero
        root = torch.arange(particles, device=device).expand(problems, particles)
        return cls(zero, zero[:, 0], zero, memory, root, torch.zeros_like(root[:, 0]))

    def weighed(self, log_g: Tensor) -> Cloud:
        """With one more factor G (P, N)."""
        return replace(self, log_weight=self.log_weight + log_g, applied=self.applied + log_g)

    def drawn(self, ancestors: Tensor) -> Cloud:
        """After resampling: weights even, their mean in the evidence."""
        applied, memory, root = (x.gather(1, ancestors) for x in (self.applied, self.memory, self.root))
        evidence = self.log_evidence + log_mean(self.log_weight)
        return Cloud(torch.zeros_like(self.log_weight), evidence, applied, memory, root, self.resampled + 1)


@dataclass(frozen=True)
class FK:
    """Steer N particles by their rewards on the way.

    Attributes:
        particles: N, of each problem.
        reward: the target's temperature, and how states are valued.
        potential: 'difference', 'max', 'sum' or 'reward'.
        every: steps between weighings.
        threshold: particles are resampled when their effective size is below this share of N; 1 is always, 0 never.
        scheme: 'systematic', 'stratified', 'residual' or 'multinomial'.
        ramp: the exponent p of the factor (1 - level)^p on lambda on the way; 0 is full strength from the start.
        choose: the sample is the 'best' particle, or one drawn in proportion to its 'weight'.
        sampler: the base, of random steps; one that suits the model if not given.
    """

    particles: Count = 4
    reward: AnyReward = field(default_factory=Reward)
    potential: Literal["difference", "max", "sum", "reward"] = "difference"
    every: Count = 1
    threshold: Share = 0.5
    scheme: Literal["systematic", "stratified", "residual", "multinomial"] = "systematic"
    ramp: AtLeast0 = 0.0
    choose: Literal["best", "weight"] = "best"
    sampler: AnySampler | None = field(default=None, metadata={"suits": for_choices})

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)

    def drafts(self, model: Model, draft: Draft, streams: Streams, verifier: Verifier | None = None) -> Iterator[Draft]:
        """One draft: the chosen particle; `carry` holds all of them with their weights."""
        verifier = needs_verifier(verifier, "FK steering")
        needs_random_steps(sampler_for(self, model), model, "FK steering", self.particles > 1)
        if draft.number < 0:
            yield self._run(model, draft, streams, verifier)

    def nfe(self, model: Model, draft: Draft) -> Tensor:
        """The most network rows (B,) that the draft can take."""
        return self.particles * sampler_for(self, model).between(model, draft.state.free.sum(1))

    def verifier_calls(self, model: Model, draft: Draft) -> Tensor:
        """The most verifier rows (B,) that the draft can take."""
        weighings = sampler_for(self, model).nfe(draft.state.free.sum(1)) // self.every
        return self.particles * (weighings * self.reward.draws + 1)

    def total(self) -> int:
        """Drafts in all."""
        return 1

    def _run(self, model: Model, draft: Draft, streams: Streams, verifier: Verifier) -> Draft:
        noisy, slots = spread(model, draft.state, self.particles, streams)
        sampler, slots = sampler_for(self, model), slots.fold("initial")
        walk = sampler.init(model, noisy, slots)
        cloud = Cloud.start(len(draft), self.particles, self.potential, walk.done.device)
        told = Differing.of(len(draft), walk.done.device)
        for number in count(1):
            walk = advance(sampler, model, walk, slots)
            going = ~walk.done.view(-1, self.particles).all(1)
            if not going.any():
                break
            if number % self.every == 0:
                rows = going.repeat_interleave(self.particles)
                told = told.and_of(walk.state.x[rows], going)
                moment = streams[going].fold("weigh").fold(number), slots[rows].fold("value").fold(number)
                part, weighed = self._weigh(model, walk[rows], cloud[going], moment, verifier)
                walk, cloud = walk.put(rows, part), cloud.put(going, weighed)
        told = told.and_of(walk.state.x, cloud.resampled >= 0)
        chosen = self._chosen(model, draft, walk.state, cloud, streams, verifier)
        return replace(chosen, scores=chosen.scores | told.scores(self.particles))

    def _weigh(
        self, model: Model, walk: Any, cloud: Cloud, streams: tuple[Streams, Streams], verifier: Verifier
    ) -> tuple[Any, Cloud]:
        """Value the particles, multiply their weights, resample the problems whose effective size is low."""
        sampler = sampler_for(self, model)
        walk, value = self.reward.value(sampler, model, walk, streams[1], verifier)
        value = self.reward.log_weight(value).view(-1, self.particles)
        level = sampler.level(walk).double().view_as(value).mean(1, keepdim=True)
        cloud = self._factor(cloud, (1 - level) ** self.ramp * value)
        low = effective_size(cloud.log_weight) <= self.threshold * self.particles + 1e-9
        if self.threshold == 0 or not low.any():
            return walk, cloud
        ancestors = torch.arange(self.particles, device=low.device).repeat(len(low), 1)
        ancestors[low] = resample(cloud.log_weight[low], streams[0][low], self.scheme)
        return walk[flat(ancestors)], cloud.put(low, cloud[low].drawn(ancestors[low]))

    def _factor(self, cloud: Cloud, value: Tensor) -> Cloud:
        """The weights times G for values V / alpha (P, N)."""
        if self.potential == "difference":
            return replace(cloud.weighed(value - cloud.memory), memory=value)
        memory = {
            "max": torch.maximum(cloud.memory, value),
            "sum": cloud.memory + value,
            "reward": value,
        }[self.potential]
        return replace(cloud.weighed(memory), memory=memory)

    def _chosen(
        self, model: Model, draft: Draft, state: Any, cloud: Cloud, streams: Streams, verifier: Verifier
    ) -> Draft:
        rewards = scored(model, state, verifier).view(-1, self.particles)
        cloud = cloud.weighed(self.reward.log_weight(rewards) - cloud.applied)
        evidence = cloud.log_evidence + log_mean(cloud.log_weight)
        place = rewards.argmax(1)
        if self.choose == "weight":
            place = resample(cloud.log_weight, streams.fold("choose"), "multinomial")[:, 0]
        first = torch.zeros_like(cloud.root, dtype=torch.bool).scatter(1, cloud.root, True)
        scores = {
            "reward": rewards.gather(1, place[:, None])[:, 0],
            "mean_reward": rewards.mean(1),
            "effective_size": effective_size(cloud.log_weight),
            "distinct_ancestors": first.sum(1).double(),
            "resampled": cloud.resampled.double(),
            "log_evidence": evidence,
        }
        rows = flat(place, self.particles)
        particles = state.x.view(len(draft), self.particles, *state.x.shape[1:])
        carry = {"particles": particles, "log_weight": cloud.log_weight, "log_evidence": evidence}
        return Draft(state[rows], draft.number + 1, scores, carry)
