"""Particle Gibbs over the sampler's trajectories (PG-DLM).

Andrieu, Doucet, Holenstein, "Particle Markov chain Monte Carlo methods", 2010, for diffusion language models by Dang et
al., "Inference-time scaling of diffusion language models with particle Gibbs sampling", 2025,
https://arxiv.org/abs/2507.08390. Each round is sequential Monte Carlo in which the first particle is held to the
trajectory that the round before it chose, and is never lost in resampling; a trajectory is then chosen in proportion to
the final weights. This leaves the tilted law of whole trajectories as it is for any number of particles; the first
round is plain SMC.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor

from redraft.core.distinct import Differing
from redraft.core.errors import RedraftError
from redraft.core.fields import Count, checked
from redraft.core.method import Verifier
from redraft.core.model import Model
from redraft.core.ranking import flat
from redraft.core.state import Draft, State
from redraft.core.streams import Streams
from redraft.core.weights import resample
from redraft.methods.fk import Cloud
from redraft.methods.value import AnyReward, Reward, needs_verifier, spread
from redraft.samplers import AnySampler, advance, for_choices, needs_random_steps, sampler_for


@dataclass(frozen=True)
class ParticleGibbs:
    """Rounds of conditional SMC.

    Attributes:
        rounds: drafts in all.
        particles: N of each problem, the one that is held included.
        reward: the target's temperature, and how states are valued.
        every: steps between weighings.
        sampler: the base, of random steps; one that suits the model if not given.
    """

    rounds: Count = 4
    particles: Annotated[int, Ge(2)] = 4
    reward: AnyReward = field(default_factory=Reward)
    every: Count = 1
    sampler: AnySampler | None = field(default=None, metadata={"suits": for_choices})

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)

    def drafts(self, model: Model, draft: Draft, streams: Streams, verifier: Verifier | None = None) -> Iterator[Draft]:
        """A draft a round; `carry` holds the trajectory that was chosen."""
        verifier = needs_verifier(verifier, "particle Gibbs")
        needs_random_steps(sampler_for(self, model), model, "particle Gibbs")
        if draft.number >= 0 and not draft.carry:
            raise RedraftError("particle Gibbs moves trajectories: it cannot begin from finished samples")
        while draft.number < self.rounds - 1:
            draft = self._round(model, draft, streams.fold("round").fold(draft.number + 1), verifier)
            yield draft

    def nfe(self, model: Model, draft: Draft) -> Tensor:
        """The most network rows (B,) that the next draft can take."""
        return self.particles * sampler_for(self, model).between(model, draft.state.free.sum(1))

    def verifier_calls(self, model: Model, draft: Draft) -> Tensor:
        """The most verifier rows (B,) that the next draft can take."""
        weighings = sampler_for(self, model).nfe(draft.state.free.sum(1)) // self.every + 1
        return self.particles * self.reward.draws * weighings

    def total(self) -> int:
        """Drafts in all."""
        return self.rounds

    def _round(self, model: Model, draft: Draft, streams: Streams, verifier: Verifier) -> Draft:
        noisy, slots = spread(model, draft.state, self.particles, streams)
        sampler = sampler_for(self, model)
        walk = sampler.init(model, noisy, slots)
        cloud = Cloud.start(len(draft), self.particles, "difference", walk.done.device)
        value, open_ = cloud.log_weight.flatten(), cloud.resampled == 0  # problems whose last weighing is to come
        history: list[tuple[Any, Tensor]] = []
        told, number = Differing.of(len(draft), walk.done.device), 0
        while True:
            number += 1
            walk = advance(sampler, model, walk, slots)
            over = bool(walk.done.all())
            if number % self.every and not over:
                continue
            if self.rounds > 1 and any(map(_remembers, getattr(walk, "memory", ()))):
                raise RedraftError(
                    "particle Gibbs cannot hold a trajectory whose solver remembers the steps before: choose a "
                    "scheduler of single steps, such as DDPM's or Euler's ancestral one"
                )
            walk = self._held(walk, draft.carry, len(history))
            rows = open_.repeat_interleave(self.particles)
            told = told.and_of(walk.state.x[rows], open_)
            value_streams = slots[rows].fold("value").fold(number)
            part, some = self.reward.value(sampler, model, walk[rows], value_streams, verifier)
            walk, value = walk.put(rows, part), value.masked_scatter(rows, some)
            cloud = cloud.put(open_, self._weighed(cloud[open_], some))
            ancestors = self._ancestors(cloud, walk, streams.fold("resample").fold(number), bool(draft.carry))
            history.append((replace(walk, prediction=None), ancestors))
            open_ = ~walk.done.view(-1, self.particles).all(1)
            if not open_.any():
                chosen = self._chosen(draft, history, cloud, value, streams)
                return replace(chosen, scores=chosen.scores | told.scores(self.particles))
            walk = walk[flat(ancestors)]
            cloud = cloud.put(open_, cloud[open_].drawn(ancestors[open_]))

    def _held(self, walk: Any, carry: dict[str, Tensor], place: int) -> Any:
        """The walk with the first particle of each problem where its trajectory was at this weighing."""
        if not carry:
            return walk
        first = torch.arange(len(walk), device=walk.done.device) % self.particles == 0
        return walk.put(first, unpacked(walk[first], carry, place))

    def _weighed(self, cloud: Cloud, value: Tensor) -> Cloud:
        """The weights times exp of the differences of V / alpha."""
        value = self.reward.log_weight(value).view(-1, self.particles)
        return replace(cloud.weighed(value - cloud.memory), memory=value)

    def _ancestors(self, cloud: Cloud, walk: Any, streams: Streams, held: bool) -> Tensor:
        """Ancestors (P, N), drawn multinomially; a held first particle, and all of a problem that is done, stay."""
        drawn = resample(cloud.log_weight, streams, "multinomial")
        if held:
            drawn[:, 0] = 0
        done = walk.done.view(-1, self.particles).all(1)
        return torch.where(done[:, None], torch.arange(self.particles, device=drawn.device), drawn)

    def _chosen(
        self, draft: Draft, history: list[tuple[Any, Tensor]], cloud: Cloud, value: Tensor, streams: Streams
    ) -> Draft:
        """The draft of a particle drawn by its weight, and its trajectory, traced back."""
        place = resample(cloud.log_weight, streams.fold("choose"), "multinomial")[:, 0]
        rows = flat(place, self.particles)
        reward, last = value[rows], history[-1][0].state[rows]
        path: list[dict[str, Tensor]] = []
        for walk, ancestors in reversed(history):
            if path:
                place = ancestors.gather(1, place[:, None])[:, 0]
            path.append(packed(walk[flat(place, self.particles)]))
        carry = {name: torch.stack([part[name] for part in reversed(path)], 1) for name in path[0]}
        scores = {"reward": reward, "mean_reward": value.view(-1, self.particles).mean(1)}
        return Draft(last, draft.number + 1, scores, carry)


def packed(walk: Any) -> dict[str, Tensor]:
    """All that changes along a walk, by name, one entry a row, but for what the network said and a solver's memory."""
    found = {"x": walk.state.x, "t": walk.state.t}
    names = [f.name for f in fields(walk) if f.name not in ("seen", "fresh")]
    return found | {name: value for name in names if isinstance(value := getattr(walk, name), Tensor)}


def _remembers(value: Any) -> bool:
    """Whether there is a row's own tensor in a solver's memory."""
    if isinstance(value, dict | list):
        return any(map(_remembers, value.values() if isinstance(value, dict) else value))
    return isinstance(value, Tensor) and value.ndim > 0


def unpacked(walk: Any, path: dict[str, Tensor], place: int) -> Any:
    """The walk with what a path (B, K, ...) has at `place`, or at its end if it is shorter."""
    here = {name: values[:, min(place, values.shape[1] - 1)] for name, values in path.items()}
    state: State = walk.state.to(here.pop("x"), here.pop("t"))
    gone = {f.name: None for f in fields(walk) if f.name in ("seen", "fresh", "prediction")}
    return replace(walk, state=state, **(here | gone))
