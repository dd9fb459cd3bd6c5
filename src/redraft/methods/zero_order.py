"""Zero-order search for the noise that a verifier likes best.

Ma, Tong, Jia, Hu, Su, Zhang, Yang, Li, Jaakkola, Jia, Xie, "Inference-time scaling for diffusion models beyond scaling
denoising steps", 2025, https://arxiv.org/abs/2501.09732.

    n <- noise;  repeat: draw N neighbours of n at a fixed distance, sample from each, n <- the noise of the best

The paper leaves the distance open. Here a neighbour has the pivot's norm and a given cosine to it, as in what its first
author gave to a public implementation: |n| (c u + sqrt(1 - c^2) w), u = n / |n|, w a random unit vector orthogonal to
u. The pivot is scored once, and stays unless a neighbour beats it. Every walk of a problem draws the same noise on its
way, so that noise to sample is a fixed map for stochastic samplers too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from redraft.core.errors import RedraftError
from redraft.core.fields import BelowOne, Count, Number, Part, checked
from redraft.core.method import Verifier
from redraft.core.model import Model
from redraft.core.ranking import flat
from redraft.core.state import Draft, State, expand
from redraft.core.streams import Streams
from redraft.methods.candidates import Candidates
from redraft.methods.value import compared, needs_verifier, remembered, scored
from redraft.samplers import AnySampler, for_searches, sample, sampler_for


@dataclass(frozen=True)
class ZeroOrder:
    """Walk through noise space, from one noise to the best of its neighbours.

    Attributes:
        rounds: after the first sample.
        neighbours: N, of each round.
        cosine: of a neighbour to the pivot, in [0, 1): near 1 is near.
        decay: factor on 1 - cosine from round to round; 1 keeps the distance.
        patience: rounds without a better sample after which the search begins anew elsewhere; None never does.
        sampler: from noise to samples; one that suits the model if not given.
    """

    rounds: Number = 8
    neighbours: Count = 4
    cosine: BelowOne = 0.95
    decay: Part = 1.0
    patience: Count | None = None
    sampler: AnySampler | None = field(default=None, metadata={"suits": for_searches})

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)

    def drafts(self, model: Model, draft: Draft, streams: Streams, verifier: Verifier | None = None) -> Iterator[Draft]:
        """The sample of the first noise, then the best so far after each round."""
        verifier = needs_verifier(verifier, "zero-order search", relative=not self.patience)
        continuous(model, "zero-order search")
        if draft.number >= 0 and "noise" not in draft.carry:
            raise RedraftError("zero-order search moves noise: it cannot begin from finished samples")
        while draft.number < self.rounds:
            draft = (self._first if draft.number < 0 else self._round)(model, draft, streams, verifier)
            yield draft

    def nfe(self, model: Model, draft: Draft) -> Tensor:
        """Network rows (B,) of the next draft."""
        return sampler_for(self, model).between(model, draft.state.free.sum(1)) * (
            self.neighbours if draft.number >= 0 else 1
        )

    def verifier_calls(self, model: Model, draft: Draft) -> Tensor:
        """Verifier rows (B,) of the next draft."""
        again = "reward" not in draft.carry
        return torch.full((len(draft),), self.neighbours + again if draft.number >= 0 else 1)

    def total(self) -> int:
        """Drafts in all."""
        return self.rounds + 1

    def _first(self, model: Model, draft: Draft, streams: Streams, verifier: Verifier) -> Draft:
        told, noise = Candidates(model, draft), streams.fold("prior")
        noisy = model.process.prior(draft.state, draft.state.free, noise)
        state = sample(sampler_for(self, model), model, noisy, streams.fold("initial"))
        reward = scored(model, state, verifier)
        number = told.add(reward, noise, cosine=torch.nan)[:, 0].to(reward.device)
        carry = {"noise": noisy.x, "at": number, "best": number, "idle": torch.zeros_like(reward)}
        carry |= remembered(verifier, reward=reward, pivot=reward)
        return Draft(state, 0, {"reward": reward, "candidate": number}, carry, told.table())

    def _round(self, model: Model, draft: Draft, streams: Streams, verifier: Verifier) -> Draft:
        here, carry = streams.fold("round").fold(draft.number), draft.carry
        slots = here.split(self.neighbours).fold("neighbour")
        noisy, told = self._around(model, draft, slots), Candidates(model, draft, 1 + draft.number * self.neighbours)
        drawn = sample(sampler_for(self, model), model, noisy, streams.fold("initial").repeat(self.neighbours))
        before, rewards = compared(model, draft, drawn, verifier)
        begun, pivot = self._anew(carry), carry.get("pivot", before)
        numbers = self._told(told, draft, rewards, slots, begun).to(rewards.device)
        found, place = rewards.max(1)
        rows, number = flat(place, self.neighbours), numbers.gather(1, place[:, None])[:, 0]
        moved, better = begun | (found > pivot), found > before
        state = draft.state.put(better, drawn[rows[better]]) if better.any() else draft.state
        reward, best = torch.where(better, found, before), torch.where(better, number, carry["best"])
        after = {
            "noise": torch.where(expand(moved[:, None], noisy.x), noisy.x[rows], carry["noise"]),
            "at": torch.where(moved, number, carry["at"]),
            "best": best,
            "idle": torch.where(moved, 0.0, carry["idle"] + 1),
        } | remembered(verifier, reward=reward, pivot=torch.where(moved, found, pivot))
        scores = {"reward": reward, "mean_reward": rewards.mean(1), "moved": moved.double(), "candidate": best}
        return Draft(state, draft.number + 1, scores, after, told.table())

    def _told(self, told: Candidates, draft: Draft, rewards: Tensor, noise: Streams, begun: Tensor) -> Tensor:
        """Numbers (P, N) of the neighbours, written down; those of problems that begin anew come from nothing."""
        parent = torch.where(begun, -1, draft.carry["at"])[:, None].expand_as(rewards)
        cosine = torch.full_like(rewards, self._cosine(draft)).masked_fill(begun[:, None], torch.nan)
        return told.add(rewards, noise, parent, cosine=cosine.cpu())

    def _anew(self, carry: dict[str, Tensor]) -> Tensor:
        """Problems (B,) that begin anew, from noises that have nothing to do with their pivots."""
        return (
            torch.zeros_like(carry["idle"], dtype=torch.bool) if not self.patience else carry["idle"] >= self.patience
        )

    def _cosine(self, draft: Draft) -> float:
        """Of the neighbours that follow on a draft to their pivot."""
        return float(1 - (1 - self.cosine) * self.decay**draft.number)

    def _around(self, model: Model, draft: Draft, slots: Streams) -> State:
        """Neighbours of each pivot, side by side, at pure noise."""
        many = draft.state.repeat(self.neighbours)
        fresh: State = model.process.prior(many, many.free, slots)
        pivot = draft.carry["noise"].repeat_interleave(self.neighbours, 0)
        near = neighbour(pivot, fresh.x, many.free, self._cosine(draft))
        begun = self._anew(draft.carry).repeat_interleave(self.neighbours)[:, None]
        return fresh.to(torch.where(expand(begun, near), fresh.x, near), fresh.t)


def neighbour(pivot: Tensor, fresh: Tensor, free: Tensor, cosine: float) -> Tensor:
    """Noise (B, R, *region) of the norm of `pivot` and with `cosine` to it, in the plane of `pivot` and `fresh` noise.

    Regions that are not `free` (B, R) stay as they are in `pivot`.
    """
    where = expand(free, pivot).to(pivot)
    n, v = ((noise * where).flatten(1).double() for noise in (pivot, fresh))
    norm = _sum(n * n).sqrt()
    u = n / norm
    w = v - _sum(v * u) * u
    w = w / _sum(w * w).sqrt()
    moved = norm * (cosine * u + (1 - cosine**2) ** 0.5 * w)
    return torch.where(where.bool(), moved.view(pivot.shape).to(pivot), pivot)


def _sum(values: Tensor) -> Tensor:
    """Sums (B, 1) to the digits of float32, which do not depend on the order in which a batch is added up."""
    return values.sum(1, keepdim=True).float().double()


def continuous(model: Model, method: str) -> None:
    """Raise the error for models whose noise is no vector."""
    if "tokens" in model.offers:
        raise RedraftError(
            f"{method} moves through Gaussian noise; {model.name!r} masks tokens: use BestOfN or IterRef"
        )
