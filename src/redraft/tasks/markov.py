"""Markov chains: sequences whose every conditional is known, so what a sampler does to a law is seen exactly."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from hashlib import sha256
from itertools import product
from typing import Annotated

import numpy as np
import torch
from annotated_types import Interval
from torch import Tensor

from redraft.core.errors import RedraftError
from redraft.core.fields import Count, Positive, Seed, Share, checked, checks
from redraft.core.state import State
from redraft.core.task import HowMany, Problems, ProblemSeed, Split, check_samples, origin
from redraft.models.tokens import Convention, TokenModel

SPLITS = {"train": 0, "test": 1}


@dataclass(frozen=True, repr=False)
class MarkovChain:
    """A first-order chain over S states; a sequence x has L of them, and the id S stands for a masked one.

    Attributes:
        transition: probabilities (S, S) of the next state, a row for each state; all above 0.
        initial: probabilities (S,) of the first state; all above 0.
        length: L.
    """

    transition: Tensor
    initial: Tensor
    length: Count

    def __post_init__(self) -> None:
        """Reject what is no chain."""
        checked(self)
        states = len(self.initial)
        if self.transition.shape != (states, states):
            raise RedraftError(f"a chain of {states} states has transitions of shape ({states}, {states})")
        for rows in (self.transition, self.initial[None]):
            if (rows <= 0).any() or not torch.allclose(rows.double().sum(1), torch.ones(len(rows)).double(), atol=1e-6):
                raise RedraftError("probabilities of a chain must be above 0 and sum to 1")

    def __repr__(self) -> str:
        """Its size; no probabilities."""
        return f"MarkovChain: {self.states} states, length {self.length}"

    @property
    def states(self) -> int:
        """S."""
        return len(self.initial)

    def posterior(self, x: Tensor) -> Tensor:
        """p(x0_i | all visible tokens) (B, L, S), float64, of sequences (B, L) with masks; one-hot where visible."""
        seen = self._evidence(x)
        before, after, _ = self._messages(seen)
        return _normal(before * seen * after)

    def leave_one_out(self, x: Tensor) -> Tensor:
        """p(x0_i | all visible tokens but the one at i) (B, L, S), float64, of sequences (B, L) with masks."""
        before, after, _ = self._messages(self._evidence(x))
        return _normal(before * after)

    def log_likelihood(self, x: Tensor) -> Tensor:
        """Nats log p (B,), float64, of sequences (B, L); masks are summed over."""
        return self._messages(self._evidence(x))[2]

    def sample(self, n: int, seed: int) -> Tensor:
        """`n` sequences (n, L) that follow from the seed."""
        generator = torch.Generator().manual_seed(seed)
        x = torch.multinomial(self.initial.double().expand(n, -1), 1, generator=generator)
        for _ in range(self.length - 1):
            x = torch.cat([x, torch.multinomial(self.transition.double()[x[:, -1]], 1, generator=generator)], 1)
        return x

    def enumerate(self) -> tuple[Tensor, Tensor]:
        """All S^L sequences (N, L), and their probabilities (N,), float64."""
        sequences = torch.tensor(list(product(range(self.states), repeat=self.length)))
        return sequences, self.log_likelihood(sequences).exp()

    def _evidence(self, x: Tensor) -> Tensor:
        """What each position may be (B, L, S): one state where visible, any where masked."""
        return torch.cat([torch.eye(self.states), torch.ones(1, self.states)]).double().to(x.device)[x]

    def _messages(self, seen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """p(x_i | visible before i) and, up to a factor, p(visible after i | x_i), both (B, L, S); log p(visible)."""
        move, first = (p.double().to(seen.device) for p in (self.transition, self.initial))
        before, after = [first.expand(len(seen), -1)], [torch.ones_like(seen[:, 0])]
        log_p = torch.zeros(len(seen), dtype=torch.float64, device=seen.device)
        for i in range(self.length):
            joint = before[-1] * seen[:, i]
            log_p = log_p + joint.sum(1).log()
            before.append(_normal(joint) @ move)
        for i in range(self.length - 1, 0, -1):
            after.append(_normal((after[-1] * seen[:, i]) @ move.T))
        return torch.stack(before[:-1], 1), torch.stack(after[::-1], 1), log_p


def model(chain: MarkovChain) -> TokenModel:
    """The perfect masked diffusion model of a chain.

    Its raw logits are log p(x0_i | all other visible tokens), at revealed positions too, which is what methods that
    doubt revealed tokens ask for.
    """

    def forward(x: Tensor, state: State) -> tuple[Tensor, None]:
        logits = chain.leave_one_out(x).log()
        return torch.cat([logits, torch.full_like(logits[..., :1], -torch.inf)], 2), None

    convention = Convention(chain.states + 1, chain.states)
    likelihood = partial(_likelihood, chain)
    told = sha256(torch.cat([chain.initial[None], chain.transition]).double().numpy().tobytes()).hexdigest()
    return TokenModel("markov", forward, convention, length=chain.length, log_likelihood=likelihood, digest=told[:16])


@dataclass(frozen=True)
class Markov:
    """Sequences of a random Markov chain, whose model and likelihood are exact.

    Attributes:
        states: S.
        length: L.
        concentration: of the Dirichlet law that the chain's rows are drawn from; small makes next states more certain.
        chain_seed: of the chain.
    """

    states: Annotated[int, Interval(ge=1, le=4096)] = 6
    length: Count = 24
    concentration: Positive = 0.3
    chain_seed: Seed = 0
    name = "markov"

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)

    @cached_property
    def chain(self) -> MarkovChain:
        """The chain; no transition is rarer than one in ten thousand."""
        rng = np.random.default_rng(self.chain_seed)
        rows = rng.dirichlet(np.full(self.states, self.concentration), self.states + 1) + 1e-4
        table = torch.from_numpy(rows / rows.sum(1, keepdims=True))
        return MarkovChain(table[1:], table[0], self.length)

    @property
    def model(self) -> TokenModel:
        """The chain's perfect model."""
        return model(self.chain)

    @checks
    def problems(
        self,
        n: HowMany,
        seed: ProblemSeed = 0,
        split: Split = "test",
        given: Share = 0.0,
    ) -> Problems:
        """`n` problems; number i follows from (seed, split, given, i) alone.

        Args:
            n: how many.
            seed: of the sequences that given tokens are taken from, and of their positions.
            split: 'train' or 'test'.
            given: probability that a token is given.
        """
        ids = (((origin(SPLITS[split], seed) << 10) + round(1000 * given)) << 24) + torch.arange(n)
        rngs = [np.random.default_rng([seed, SPLITS[split], number]) for number in range(n)]
        x = torch.cat([self.chain.sample(1, int(rng.integers(2**62))) for rng in rngs])
        frozen = torch.from_numpy(np.stack([rng.uniform(size=self.length) < given for rng in rngs]))
        return Problems(ids, x, frozen, facts={"original": x})

    def evaluate(self, samples: Tensor, problems: Problems) -> dict[str, Tensor]:
        """Metrics (P,) of samples (P, L).

        Returns:
            log_likelihood: nats, under the chain; -inf where a mask is left.

        Raises:
            RedraftError: samples that are no sequences for these problems.
        """
        check_samples(samples, problems, self.states + 1)
        return {"log_likelihood": _likelihood(self.chain, samples.cpu())}


def _likelihood(chain: MarkovChain, samples: Tensor) -> Tensor:
    """Nats (B,) of samples (B, L), -inf where a mask is left."""
    return chain.log_likelihood(samples).masked_fill((samples == chain.states).any(1), -torch.inf)


def _normal(weights: Tensor) -> Tensor:
    return weights / weights.sum(-1, keepdim=True)
