"""Evolutionary search: samples are parents of mutants of their noise, and later of mutants of their way.

He et al., "Scaling image and video generation via test-time evolutionary search" (EvoSearch), 2025,
https://arxiv.org/abs/2505.17618:

    population <- samples of N noises;  repeat: keep the E best, and make N - E children, each of the winner of a
    tournament: a new noise sqrt(1 - b^2) n + b z, or its state on the way at a level t mutated, walked to the end

Children are scored as finished samples, never as previews. Here a state on the way is the parent's sample noised up to
the level, a draw from q(x_t | x_0): the paper adds noise of the sampler's spread to the state that its walk went
through, which leaves the law of states at that level. A noise's mutant has the law N(0, I) that noise has. Every walk
of a problem draws the same noise on its way, so that noise to sample is a fixed map for stochastic samplers too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from redraft.core.distinct import among
from redraft.core.errors import RedraftError
from redraft.core.fields import Count, Part, checked
from redraft.core.method import Verifier
from redraft.core.model import Model
from redraft.core.state import Draft, State, merge
from redraft.core.streams import Streams
from redraft.methods.candidates import Candidates
from redraft.methods.value import needs_verifier, remembered, scored, spread
from redraft.methods.zero_order import continuous
from redraft.samplers import AnySampler, descend, for_searches, needs_restarts, sample, sampler_for


@dataclass(frozen=True)
class Evolution:
    """Breed samples: select by tournament, mutate noise or states on the way.

    Attributes:
        population: N, of each problem.
        levels: of noise at which the generations after the first mutate, never rising; 1 is the noise itself.
        elites: E, the best of a generation that live on as they are.
        tournament: members that are drawn for each child; the best of them is its parent.
        beta: b, share of new noise in a mutant at level 1.
        sampler: from noise to samples; one that suits the model if not given.
    """

    population: Count = 8
    levels: tuple[Part, ...] = (1.0, 1.0, 0.8, 0.6)
    elites: Count = 2
    tournament: Count = 3
    beta: Part = 0.2
    sampler: AnySampler | None = field(default=None, metadata={"suits": for_searches})

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)
        if self.elites >= self.population:
            raise RedraftError(f"elites is {self.elites}: it must be less than population, which is {self.population}")
        if any(high < low for high, low in zip(self.levels, self.levels[1:], strict=False)):
            raise RedraftError(f"levels is {self.levels}: they must never rise")

    @property
    def children(self) -> int:
        """Of each generation but the first."""
        return self.population - self.elites

    def drafts(self, model: Model, draft: Draft, streams: Streams, verifier: Verifier | None = None) -> Iterator[Draft]:
        """The best so far of each generation."""
        verifier = needs_verifier(verifier, "evolutionary search", relative=True)
        sampler = sampler_for(self, model)
        needs_restarts(sampler, model, "evolutionary search")
        if 1.0 in self.levels:
            continuous(model, "evolutionary search at level 1")
        if not sampler.by_level and min(self.levels, default=1.0) < 1:
            raise RedraftError("levels below 1 take walks up on their way: use Parallel or a masked sampler")
        if draft.number >= 0 and "noise" not in draft.carry:
            raise RedraftError("evolutionary search breeds its own samples: it cannot begin from finished ones")
        while draft.number < len(self.levels):
            draft = (self._first if draft.number < 0 else self._generation)(model, draft, streams, verifier)
            yield draft

    def nfe(self, model: Model, draft: Draft) -> Tensor:
        """The most network rows (B,) that the next draft can take."""
        sampler = sampler_for(self, model)
        regions = draft.state.free.sum(1)
        if draft.number < 0:
            return self.population * sampler.between(model, regions)
        if draft.number >= len(self.levels):
            return torch.zeros_like(regions)
        level = self.levels[draft.number]
        return self.children * sampler.between(model, regions, level)

    def verifier_calls(self, model: Model, draft: Draft) -> Tensor:
        """Verifier rows (B,) of the next draft."""
        number = self.children if "rewards" in draft.carry else self.population
        return torch.full((len(draft),), number)

    def total(self) -> int:
        """Drafts in all."""
        return 1 + len(self.levels)

    def _first(self, model: Model, draft: Draft, streams: Streams, verifier: Verifier) -> Draft:
        told = Candidates(model, draft)
        noisy, slots = spread(model, draft.state, self.population, streams)
        drawn = sample(sampler_for(self, model), model, noisy, streams.fold("initial").repeat(self.population))
        rewards = scored(model, drawn, verifier).view(len(draft), -1)
        numbers = told.add(rewards, slots.fold("prior"), beta=torch.nan)
        members = {"noise": _grouped(noisy.x, draft), "x": _grouped(drawn.x, draft)}
        return self._ranked(draft, members | {"number": numbers.to(rewards.device)}, rewards, told, verifier)

    def _generation(self, model: Model, draft: Draft, streams: Streams, verifier: Verifier) -> Draft:
        sampler = sampler_for(self, model)
        here, level, carry = streams.fold("generation").fold(draft.number), self.levels[draft.number], draft.carry
        told = Candidates(model, draft, self.population + draft.number * self.children)
        parent, mutation = self._parents(here), here.split(self.children).fold("mutation")
        noise, x = (_taken(carry[name], parent).flatten(0, 1) for name in ("noise", "x"))
        many = draft.state.repeat(self.children)
        if level == 1:
            way = streams.fold("initial").repeat(self.children)
            fresh = model.process.prior(many, many.free, mutation)
            noise = mutated(noise, fresh.x, many.free, self.beta)
            drawn = sample(sampler, model, fresh.to(noise, fresh.t), way)
        else:
            walk = sampler.rewind(model, sampler.arrived(model, many.to(x, many.t)), level, mutation)
            # numbers that made the parent would be in its noised state and on the way again
            drawn = descend(sampler, model, walk, 0.0, here.split(self.children).fold("walk")).state
        rewards, beta = self._rewards(model, draft, drawn, verifier), self.beta if level == 1 else torch.nan
        number = told.add(rewards[:, self.elites :], mutation, _taken(carry["number"], parent), level, beta=beta)
        born = {"noise": _grouped(noise, draft), "x": _grouped(drawn.x, draft), "number": number.to(parent.device)}
        members = {name: torch.cat([carry[name][:, : self.elites], born[name]], 1) for name in born}
        return self._ranked(draft, members, rewards, told, verifier)

    def _parents(self, streams: Streams) -> Tensor:
        """Places (P, C) of the children's parents: the best of those that a tournament draws; members are ranked."""
        drawn = streams.fold("tournament").uniform((self.children, self.tournament)) * self.population
        return drawn.long().clamp_max(self.population - 1).amin(2)

    def _rewards(self, model: Model, draft: Draft, drawn: State, verifier: Verifier) -> Tensor:
        """Rewards (P, N): of the elites, remembered or asked for in the same call as the children's, and of these."""
        if "rewards" in draft.carry:
            known = draft.carry["rewards"][:, : self.elites]
            return torch.cat([known, _grouped(scored(model, drawn, verifier), draft)], 1)
        together = torch.cat([draft.carry["x"][:, : self.elites], _grouped(drawn.x, draft)], 1).flatten(0, 1)
        many = draft.state.repeat(self.population)
        return _grouped(scored(model, many.to(together, many.t), verifier), draft)

    def _ranked(
        self, draft: Draft, members: dict[str, Tensor], rewards: Tensor, told: Candidates, verifier: Verifier
    ) -> Draft:
        """The draft of the best member, which remembers all members, best first; of equals, the elder."""
        rewards, order = rewards.sort(stable=True, dim=1, descending=True)
        members = {name: _taken(value, order) for name, value in members.items()}
        state = draft.state.to(members["x"][:, 0], torch.zeros_like(draft.state.t))
        scores = {"reward": rewards[:, 0], "mean_reward": rewards.mean(1), "candidate": members["number"][:, 0]}
        scores |= among(members["x"].flatten(0, 1), len(draft))
        carry = members | remembered(verifier, rewards=rewards)
        return Draft(state, draft.number + 1, scores, carry, told.table())


def mutated(parent: Tensor, fresh: Tensor, free: Tensor, beta: float) -> Tensor:
    """Noise sqrt(1 - b^2) n + b z (B, R, *region) of `parent` n and `fresh` z: N(0, I) if they are, independently.

    Regions that are not `free` (B, R) stay as they are in `parent`.
    """
    return merge(free, (1 - beta**2) ** 0.5 * parent + beta * fresh, parent)


def _grouped(rows: Tensor, draft: Draft) -> Tensor:
    """Rows (P * N, ...) that lie side by side as (P, N, ...)."""
    return rows.reshape(len(draft), -1, *rows.shape[1:])


def _taken(members: Tensor, places: Tensor) -> Tensor:
    """Of members (P, N, ...) those at `places` (P, K)."""
    return members[torch.arange(len(members), device=places.device)[:, None], places]
