"""Masked models that are exact or trivial, and what tests of their samplers share."""

from dataclasses import replace
from itertools import product

import torch

from redraft.core.state import State
from redraft.core.streams import Streams
from redraft.core.task import Problems
from redraft.samplers import Unmask
from redraft.tasks.markov import MarkovChain, model

CHAIN = MarkovChain(
    transition=torch.tensor([[0.85, 0.15], [0.3, 0.7]], dtype=torch.float64),
    initial=torch.tensor([0.6, 0.4], dtype=torch.float64),
    length=4,
)


def causal_model(chain=CHAIN):
    """The chain's perfect model of a token given those before it: it does not see later ones, as in blocks of one."""
    base = model(chain)
    later = torch.ones(chain.length, chain.length, dtype=torch.bool).triu(1)

    def forward(x, state):
        seen = torch.where(later, chain.states, x[:, None]).flatten(0, 1)
        every = base.forward(seen, state)[0].unflatten(0, (len(x), -1))
        return every.diagonal(dim1=1, dim2=2).transpose(1, 2), None

    return replace(base, forward=forward)


class Fixed:
    """A critic with one opinion of each position, or of each token."""

    def __init__(self, logits, reads="proposal", vocabulary=3):
        self.vocabulary = vocabulary
        self.logits, self.reads = torch.as_tensor(logits, dtype=torch.float32), reads

    def __call__(self, x, features):
        return self.logits.expand(x.shape)


class ByToken(Fixed):
    """Finds the tokens with high ids wrong, so that a proposal's own tokens matter."""

    def __call__(self, x, features):
        return x.float() / 3


def exact_model(chain=CHAIN, **critics):
    """The chain's perfect model; it shows features of no meaning, so that critics of all kinds can be put on it."""
    base = model(chain)

    def forward(x, state):
        return base.forward(x, state)[0], torch.zeros(*x.shape, 2)

    return replace(base, forward=forward, features=True, critics=critics)


def problems(rows, length=4, given=(), x=None):
    """Problems with the positions `given` given by `x` (rows, length)."""
    frozen = torch.zeros(rows, length, dtype=torch.bool)
    frozen[:, list(given)] = True
    return Problems(torch.arange(rows), torch.zeros(rows, length, dtype=torch.int64) if x is None else x, frozen)


def walk_at(sampler: Unmask, token_model, x, step, seed=0):
    """The walk of rows `x` (B, R), all positions free, when `step` steps are done, and its streams."""
    rows = len(x)
    state = State(x, torch.full(x.shape, 0.5), torch.zeros(x.shape, dtype=torch.bool), torch.arange(rows))
    streams = Streams.root(seed, torch.arange(rows))
    walk = sampler.init(token_model, state, streams)
    return replace(walk, step=torch.full((rows,), step), top=torch.ones(rows, dtype=torch.float64)), streams


def after_one_step(sampler, token_model, x, step, seed=0):
    """Tokens (B, R) one step on."""
    walk, streams = walk_at(sampler, token_model, x, step, seed)
    return sampler.step(token_model, walk, streams).state.x


def masked_states(chain=CHAIN):
    """All (S + 1)^L sequences (N, L) with masks."""
    return torch.tensor(list(product(range(chain.states + 1), repeat=chain.length)))


def noised_law(kept, chain=CHAIN):
    """q(x_t) (N,) of every sequence with masks: each token survives with probability `kept`, its own if (L,)."""
    states, kept = masked_states(chain), torch.as_tensor(kept, dtype=torch.float64)
    survival = torch.where(states == chain.states, 1 - kept, kept).prod(1)
    return chain.log_likelihood(states).exp() * survival


def number(x, chain=CHAIN):
    """The place (B,) of sequences with masks in `masked_states`."""
    base = (chain.states + 1) ** torch.arange(chain.length - 1, -1, -1)
    return (x * base).sum(1)
