"""Iterative refinement of diffusion states by reward-guided multiple-try Metropolis (IterRef).

2025, https://arxiv.org/abs/2511.05562. On the way from noise to data, at chosen levels t,

    K(x, y): noise x from t up to t + distance, walk back down to t with the base sampler
    repeat `moves` times: draw candidates y ~ K(x, .), pick one, accept it or keep x

which leaves p(x_t) exp(V(x_t) / alpha) as it is where K is reversible with respect to p (Liu, Liang, Wong, "The
multiple-try method and local optimization in Metropolis sampling", 2000). The weights w(y | x) = exp((a V(y) - (1 - a)
V(x)) / alpha) are a family:

    a = 0       (the paper's) any candidate is picked, accepted with min(1, exp((V(y) - V(x)) / alpha))
    a = 1/2, 1  a candidate is picked in proportion to w(. | x), accepted with min(1, sum w(y_j | x) / sum w(x*_j | y)),
                where the reference set x* is N - 1 draws of K(y, .) and x itself

With a = 0 more than one candidate changes no law unless they are used again: after a rejection the next candidate of
the same pool is the next move (`reuse`), which makes N a number of moves proposed ahead of time, in one batch. A
candidate that was rejected is not tried again, which would bias the chain. The value of the current state is kept,
never drawn anew, as pseudo-marginal correctness asks; rewards are evaluated one candidate at a time, and the accepted
one's evaluation is that of its next step.

A sampler in blocks has come down to a level when that share of its walk is left: with eight blocks at 0.5, four are
finished, and a distance of 0.125 masks the last of them again and walks it anew. At level 0, `distance` is the share of
the tokens in all blocks that are masked, and walked again from the left; where a network sees no later blocks
(`aligned`), which rules this out, the last ones again. Both leave p as it is where one token is drawn at a time.

The paper states neither the distance nor the levels: the defaults are what docs/reward.md found best on its two tasks,
with one candidate, as more than one only save time and not evaluations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from redraft.core.errors import RedraftError
from redraft.core.fields import BelowOne, Count, Number, Part, checked
from redraft.core.method import Verifier
from redraft.core.model import Model
from redraft.core.ranking import flat
from redraft.core.rows import Rows
from redraft.core.state import Draft
from redraft.core.streams import Streams
from redraft.core.weights import resample
from redraft.methods.value import AnyReward, Reward, needs_verifier, scored
from redraft.samplers import AnySampler, descend, for_choices, looks, sampler_for


@dataclass(frozen=True, repr=False)
class Chain(Rows):
    """A Markov chain for each problem.

    Attributes:
        walk: the current states.
        value: V (B,) of them.
        left: moves (B,) to be made.
        used: how many of its pool's candidates (B,) a row has tried; N asks for a new pool.
        accepted: moves (B,) that were accepted.
    """

    walk: Any
    value: Tensor
    left: Tensor
    used: Tensor
    accepted: Tensor


@dataclass(frozen=True)
class IterRef:
    """Refine states by noising, denoising and accepting by reward.

    Attributes:
        levels: where to refine on the way; 0 is the finished sample, with its exact reward.
        distance: how far up a candidate is noised, in levels.
        moves: k, Metropolis moves at each level.
        candidates: N, drawn in one batch.
        a: 0, 0.5 or 1, see above.
        reuse: go on through a pool after a rejection (with a = 0).
        rounds: further drafts, each of `moves` moves of the finished sample.
        reward: the target's temperature, and how states are valued.
        sampler: the base; one that suits the model if not given.
    """

    levels: tuple[BelowOne, ...] = (0.5, 0.125)
    distance: Part = 0.125
    moves: Count = 4
    candidates: Count = 1
    a: float = 0.0
    reuse: bool = True
    rounds: Number = 0
    reward: AnyReward = field(default_factory=Reward)
    sampler: AnySampler | None = field(default=None, metadata={"suits": for_choices})

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)
        if self.a not in (0, 0.5, 1):
            raise RedraftError(f"a is {self.a}: use 0, 0.5 or 1")
        if len({*self.levels}) < len(self.levels):
            raise RedraftError(f"levels are {self.levels}: give each once, and more moves to be there longer")

    def drafts(self, model: Model, draft: Draft, streams: Streams, verifier: Verifier | None = None) -> Iterator[Draft]:
        """The refined walk, unless `draft` is a sample already, then `rounds` of moves of the finished sample."""
        verifier = needs_verifier(verifier, "IterRef")
        if any(self.levels) and not sampler_for(self, model).by_level:
            raise RedraftError("this sampler's walks can be taken up at their end only: set levels=(0.0,)")
        while draft.number < self.rounds:
            make = self._first if draft.number < 0 else self._again
            draft = make(model, draft, streams, verifier)
            yield draft

    def nfe(self, model: Model, draft: Draft) -> Tensor:
        """The most network rows (B,) that the next draft can take."""
        sampler = sampler_for(self, model)
        regions = draft.state.free.sum(1)
        levels = self.levels if draft.number < 0 else (0.0,)
        walk = sampler.between(model, regions) if draft.number < 0 else torch.zeros_like(regions)
        return walk + sum(self._level_nfe(model, regions, level) for level in levels)

    def verifier_calls(self, model: Model, draft: Draft) -> Tensor:
        """The most verifier rows (B,) that the next draft can take."""
        levels = self.levels if draft.number < 0 else (0.0,)
        tries = 2 * self.candidates - 1 if self.a else 1
        each = self.moves * tries + 1
        return torch.full((len(draft),), len(levels) * each * self.reward.draws + 1)

    def total(self) -> int:
        """Drafts in all."""
        return self.rounds + 1

    def _level_nfe(self, model: Model, regions: Tensor, level: float) -> Tensor:
        """The most evaluations (B,) of the moves at one level: a candidate's steps, and one to value what is noisy."""
        sampler = sampler_for(self, model)
        steps = sampler.between(model, regions, min(1.0, level + self.distance), level)
        look = looks(sampler, model, regions, level)
        pools = self.moves * (2 * self.candidates - 1 if self.a else self.candidates)
        return pools * (steps + look) + look

    def _first(self, model: Model, draft: Draft, streams: Streams, verifier: Verifier) -> Draft:
        sampler = sampler_for(self, model)
        noisy = model.process.prior(draft.state, draft.state.free, streams.fold("prior"))
        base = streams.fold("initial")
        walk = sampler.init(model, noisy, base)
        accepted = tried = torch.zeros_like(draft.state.problem)
        value: Tensor | None = None
        if self.reward.alpha < torch.inf:
            for level in sorted(self.levels, reverse=True):
                walk = descend(sampler, model, walk, level, base)
                chain = self._refined(model, walk, None, level, streams.fold(f"level {level}"), verifier)
                walk, value = chain.walk, chain.value if level == 0 else None
                accepted, tried = accepted + chain.accepted, tried + self.moves
        walk = descend(sampler, model, walk, 0.0, base)
        reward = scored(model, walk.state, verifier) if value is None else value
        rate = accepted / tried.clamp_min(1)
        return Draft(walk.state, 0, {"reward": reward, "acceptance": rate.double()}, {"reward": reward})

    def _again(self, model: Model, draft: Draft, streams: Streams, verifier: Verifier) -> Draft:
        walk = sampler_for(self, model).arrived(model, draft.state)
        here = streams.fold("round").fold(draft.number)
        chain = self._refined(model, walk, draft.carry.get("reward"), 0.0, here, verifier)
        scores = {"reward": chain.value, "acceptance": chain.accepted / self.moves}
        return Draft(chain.walk.state, draft.number + 1, scores, {"reward": chain.value})

    def _refined(
        self, model: Model, walk: Any, value: Tensor | None, level: float, streams: Streams, verifier: Verifier
    ) -> Chain:
        """The chain after its moves at one level; `value` of its state, if that is known."""
        if value is None:
            walk, value = self._valued(model, walk, streams.fold("start"), verifier)
        full = torch.full_like(value, self.moves, dtype=torch.int64)
        zero = torch.zeros_like(full)
        chain = Chain(walk, value, full, torch.full_like(full, self.candidates), zero)
        if self.a:
            return self._several_tries(model, chain, level, streams, verifier)
        return self._one_by_one(model, chain, level, streams, verifier)

    def _candidates(self, model: Model, walk: Any, number: int, level: float, streams: Streams) -> Any:
        """`number` draws of K(x, .) for each row, side by side."""
        sampler, slots = sampler_for(self, model), streams.split(number)
        high = min(1.0, level + self.distance)
        up = sampler.rewind(model, walk.repeat(number), high, slots.fold("noise"), at=level)
        return descend(sampler, model, up, level, slots.fold("walk"))

    def _one_by_one(self, model: Model, chain: Chain, level: float, streams: Streams, verifier: Verifier) -> Chain:
        """Metropolis moves, a = 0: rows that need candidates draw them together, then each row tries its next."""
        size = self.candidates
        pool: Any = None
        while (going := chain.left > 0).any():
            here = streams.fold("move").fold(chain.left)
            empty = going & (chain.used >= size)
            if empty.any():
                fresh = self._candidates(model, chain.walk[empty], size, level, here[empty])
                every = empty.repeat_interleave(size)
                pool = fresh if pool is None else pool.put(every, fresh)
                chain = replace(chain, used=chain.used.masked_fill(empty, 0))
            tried = self._tried(model, chain[going], pool[flat(chain.used, size)[going]], here[going], verifier)
            chain = chain.put(going, tried)
        return chain

    def _tried(self, model: Model, chain: Chain, candidate: Any, streams: Streams, verifier: Verifier) -> Chain:
        """The chain after its candidates were accepted or not."""
        candidate, value = self._valued(model, candidate, streams.fold("value"), verifier)
        chance = streams.fold("accept").uniform((1,))[:, 0].log()
        yes = chance < self.reward.log_weight(value - chain.value)
        spent = yes if self.reuse else torch.ones_like(yes)
        return Chain(
            chain.walk.put(yes, candidate[yes]) if yes.any() else chain.walk,
            torch.where(yes, value, chain.value),
            chain.left - 1,
            torch.where(spent, self.candidates, chain.used + 1),
            chain.accepted + yes,
        )

    def _valued(self, model: Model, walk: Any, streams: Streams, verifier: Verifier) -> tuple[Any, Tensor]:
        """The walk, looked at where it had to be, and V (B,) of its rows."""
        return self.reward.value(sampler_for(self, model), model, walk, streams, verifier)

    def _several_tries(self, model: Model, chain: Chain, level: float, streams: Streams, verifier: Verifier) -> Chain:
        """Multiple-try moves, a > 0, each with its reference set."""
        size = self.candidates
        for number in range(self.moves):
            here = streams.fold("move").fold(number)
            pool = self._candidates(model, chain.walk, size, level, here.fold("pool"))
            pool, values = self._valued(model, pool, here.fold("value").split(size), verifier)
            forward = self._log_w(values.view(-1, size), chain.value)
            picked = resample(forward, here.fold("pick"), "multinomial")[:, 0]
            rows = flat(picked, size)
            walk, value = pool[rows], values[rows]
            others = self._reference(model, walk, level, here.fold("reference"), verifier)
            backward = self._log_w(torch.cat([others, chain.value[:, None]], 1), value)
            chance = here.fold("accept").uniform((1,))[:, 0].log()
            yes = chance < forward.logsumexp(1) - backward.logsumexp(1)
            chain = replace(
                chain,
                walk=chain.walk.put(yes, walk[yes]) if yes.any() else chain.walk,
                value=torch.where(yes, value, chain.value),
                accepted=chain.accepted + yes,
            )
        return chain

    def _reference(self, model: Model, walk: Any, level: float, streams: Streams, verifier: Verifier) -> Tensor:
        """Values (B, N - 1) of draws of K(y, .)."""
        size = self.candidates - 1
        if not size:
            return torch.zeros(len(walk), 0, dtype=torch.float64, device=walk.done.device)
        pool = self._candidates(model, walk, size, level, streams)
        return self._valued(model, pool, streams.fold("value").split(size), verifier)[1].view(-1, size)

    def _log_w(self, to: Tensor, origin: Tensor) -> Tensor:
        """Log w (B, M) of states of value `to` (B, M) seen from states of value `origin` (B,)."""
        return self.reward.log_weight(self.a * to - (1 - self.a) * origin[:, None])
