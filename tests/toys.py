"""A model of additions and multiplications only, whose rounding cannot depend on the batch, and problems for it."""

import time

import torch

from redraft.core.state import Prediction
from redraft.core.streams import Streams
from redraft.core.task import Problems
from redraft.processes.flow import RectifiedFlow


class Toy:
    """Predicts a region from itself and from its left neighbour, so that order and context matter."""

    name, graph = "toy", None

    def __init__(self, regions=6, values=2, pause=0.0, variance=None, offers=("regions", "uncertainty", "graph")):
        self.shape, self.process, self.pause, self.variance = (regions, values), RectifiedFlow(), pause, variance
        self.offers = frozenset(offers)
        number = torch.arange(regions)
        self.graph = (number[:, None] - number).abs() == 1
        self.rows, self.calls = 0, 0

    def predict(self, state):
        time.sleep(self.pause)
        self.rows, self.calls = self.rows + len(state), self.calls + 1
        near = state.x.roll(1, 1) * (1 - state.t.roll(1, 1))[..., None]
        clean = 0.5 * state.x + 0.25 * near + 0.1
        uncertainty = clean[..., 0] * clean[..., 0] + state.t
        variance = None if self.variance is None else torch.full_like(clean, self.variance)
        return Prediction(clean, uncertainty, variance)

    def decode(self, x):
        return x

    def encode(self, samples):
        return samples


def toy_problems(given, regions=6, values=2, first=100):
    """A problem with each number of given regions in `given`; values and places follow from the ids first, ..."""
    ids = first + torch.arange(len(given))
    streams = Streams.root(77, ids)
    x = streams.fold("x").normal((regions, values))
    rank = streams.fold("given").uniform((regions,)).argsort(1).argsort(1)
    return Problems(ids, x, rank < torch.tensor(given)[:, None])
