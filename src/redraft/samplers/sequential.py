"""Regions are denoised one block after another, the surest first: the sequential sampler of SRM and of IPR.

Wewer, Pogodzinski, Schiele, Lenssen, "Spatial reasoning with denoising models", 2025, https://arxiv.org/abs/2502.21075,
and the sampler that IPR uses. With n blocks of
`regions_per_block` regions, p steps a region and overlap o between consecutive blocks, a walk takes

    T = ceil(p + (n - 1)(1 - o) p)                          network evaluations; block b starts at step
    s_b = floor(b l (1 - o)),  l = T / ((n - 1)(1 - o) + 1),  and each of its regions walks L = ceil(l) equal steps.

All in exact rational arithmetic: the reference rounds in float32 and so gets some of these wrong. Blocks that start at
the same step start together, and any number of regions may share a block; in the reference both are broken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from math import ceil, floor
from typing import Annotated

import torch
from torch import Tensor

from redraft.core.errors import RedraftError
from redraft.core.fields import Among, AtLeast0, Count, Share, checked
from redraft.core.model import Model, demand
from redraft.core.state import Prediction, State
from redraft.core.streams import Streams
from redraft.processes.categorical import Draw
from redraft.samplers.base import Looked, random_prior, random_steps, wanted


@dataclass(frozen=True)
class Schedule:
    """When blocks start: `steps` T in all, `length` L a region, `starts` s_b in order."""

    steps: int
    length: int
    starts: tuple[int, ...]


@lru_cache(maxsize=4096)
def schedule(blocks: int, steps_per_region: int, overlap: Fraction) -> Schedule:
    """The schedule of `blocks` blocks by the formulas above."""
    if blocks == 0:
        return Schedule(0, 0, ())
    apart = 1 - overlap
    steps = ceil(steps_per_region + (blocks - 1) * apart * steps_per_region)
    length = Fraction(steps) / ((blocks - 1) * apart + 1)
    return Schedule(steps, ceil(length), tuple(floor(b * length * apart) for b in range(blocks)))


@dataclass(frozen=True)
class _Tables:
    """The schedules of 0..n blocks: `steps` (n + 1,), `length` (n + 1,), blocks `due` by each step (n + 1, T)."""

    steps: Tensor
    length: Tensor
    due: Tensor


@lru_cache(maxsize=64)
def _tables(most: int, steps_per_region: int, overlap: Fraction, device: torch.device) -> _Tables:
    plans = [schedule(blocks, steps_per_region, overlap) for blocks in range(most + 1)]
    starts = torch.zeros(most + 1, max(plan.steps for plan in plans) + 1, dtype=torch.int64)
    for blocks, plan in enumerate(plans):
        for start in plan.starts:
            starts[blocks, start] += 1
    steps, length = (torch.tensor([getattr(p, name) for p in plans]) for name in ("steps", "length"))
    return _Tables(steps.to(device), length.to(device), starts.cumsum(1).to(device))


@dataclass(frozen=True, repr=False)
class SequentialWalk(Looked):
    """A walk through the blocks.

    Attributes:
        top: each region's level (B, R) at the start.
        begin: the step (B, R) at which a region was started, -1 before.
        step: steps done (B,).
        steps: steps in all (B,).
        blocks: number of blocks (B,).
    """

    top: Tensor
    begin: Tensor
    step: Tensor
    steps: Tensor
    blocks: Tensor

    @property
    def done(self) -> Tensor:
        """Rows (B,) that have arrived."""
        return self.step >= self.steps


Order = Callable[[Model, SequentialWalk, Prediction, Streams], Tensor]


def by_uncertainty(model: Model, walk: SequentialWalk, prediction: Prediction, streams: Streams) -> Tensor:
    """The region that the network is surest of first (the paper's order)."""
    demand(model, "uncertainty", "order='uncertainty'")
    uncertainty: Tensor = model.process.uncertainty(walk.state, prediction)
    return uncertainty


def at_random(model: Model, walk: SequentialWalk, prediction: Prediction, streams: Streams) -> Tensor:
    """In random order."""
    return streams.fold("order").uniform(walk.top.shape[1:])


def raster(model: Model, walk: SequentialWalk, prediction: Prediction, streams: Streams) -> Tensor:
    """In the order of the regions' numbers."""
    return torch.arange(walk.top.shape[1], device=walk.top.device).expand_as(walk.top).double()


def by_graph(model: Model, walk: SequentialWalk, prediction: Prediction, streams: Streams) -> Tensor:
    """The region that knows most of its neighbours first, with neighbours' neighbours at half weight; ties at random.

    certainty = known (I + D / 2 + D^2 / 4), D the graph of dependencies.
    """
    demand(model, "graph", "order='graph'")
    assert model.graph is not None
    graph = model.graph.to(walk.top)
    known = ((walk.top == 0) | (walk.begin >= 0)).to(walk.top)
    near = known @ graph
    return streams.fold("order").uniform(walk.top.shape[1:]) / 4 - known - near / 2 - near @ graph / 4


ORDERS: dict[str, Order] = {
    "uncertainty": by_uncertainty,
    "random": at_random,
    "raster": raster,
    "graph": by_graph,
}


@dataclass(frozen=True)
class Sequential:
    """Blocks of regions in an order found on the way.

    Attributes:
        steps_per_region: p, network evaluations from a region's start to its end.
        overlap: o in [0, 1], the share of a block's steps that it shares with the next; 1 starts all blocks at once.
        regions_per_block: regions that start together.
        order: 'uncertainty' (paper), 'random', 'raster' or 'graph'.
        stochasticity: alpha of the reverse step, 0 deterministic, 1 ancestral.
        temperature: scale of the noise that is added.
    """

    steps_per_region: Count = 3
    overlap: Share = 0.0
    regions_per_block: Count = 1
    order: Annotated[str, Among(ORDERS)] = "uncertainty"
    stochasticity: Share = 0.5
    temperature: AtLeast0 = 1.0
    by_level = False

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)

    def _tables(self, regions: int, device: torch.device) -> _Tables:
        # str() reads 0.8 as 4/5, not as its nearest binary fraction
        return _tables(regions, self.steps_per_region, Fraction(str(self.overlap)), device)

    def _blocks(self, regions: Tensor) -> Tensor:
        return (regions + self.regions_per_block - 1) // self.regions_per_block

    @property
    def draw(self) -> Draw:
        """How tokens are drawn, of masked models."""
        return Draw(self.temperature)

    def random_start(self, model: Model) -> bool:
        """Whether pure noise is random."""
        return random_prior(model)

    def random_steps(self, model: Model) -> bool:
        """Whether the process's steps draw numbers, or the order of the blocks does."""
        drawn = random_steps(model, self.steps_per_region, self.stochasticity, self.temperature)
        return drawn or self.order in ("random", "graph")

    def nfe(self, regions: Tensor, level: float = 1.0) -> Tensor:
        """Network rows (B,) of a walk over `regions` (B,) noisy regions, whatever their level."""
        blocks = self._blocks(regions)
        return self._tables(int(blocks.max()), blocks.device).steps[blocks]

    def between(self, model: Model, regions: Tensor, high: float = 1.0, low: float = 0.0) -> Tensor:
        """Network rows (B,) of a whole walk over `regions` (B,) noisy regions: it cannot be taken up on its way."""
        return self.nfe(regions)

    def init(self, model: Model, state: State, streams: Streams) -> SequentialWalk:
        """The walk at its start; rows without a noisy region have arrived."""
        wanted(model, "regions", "the sequential sampler")
        regions = (state.t > 0).sum(1)
        begin = torch.full_like(state.t, -1, dtype=torch.int64)
        return SequentialWalk(
            state,
            state.t,
            begin,
            torch.zeros_like(regions),
            self.nfe(regions),
            self._blocks(regions),
        )

    def look(self, model: Model, walk: SequentialWalk) -> SequentialWalk:
        """The walk with the network's prediction for its state, which its next step then uses."""
        return walk.looked(model)

    def step(self, model: Model, walk: SequentialWalk, streams: Streams) -> SequentialWalk:
        """One network evaluation: it chooses the regions that start now, and moves all that have started."""
        prediction = walk.predicted(model)
        streams = streams.at(walk.state.origin).fold("sequential").fold(walk.step)
        tables = self._tables(walk.top.shape[1], walk.step.device)
        due = tables.due[walk.blocks, walk.step] * self.regions_per_block
        begin = self._start(model, walk, prediction, due, streams)
        share = 1 - (walk.step[:, None] + 1 - begin) / tables.length[walk.blocks][:, None]
        t_next = torch.where(begin >= 0, walk.top * share.clamp_min(0), walk.state.t)
        state = model.process.step(walk.state, prediction, t_next, streams, self.stochasticity, self.temperature)
        return replace(walk, state=state, begin=begin, step=walk.step + 1, prediction=None, fresh=None)

    def level(self, walk: SequentialWalk) -> Tensor:
        """1 (B,) on the way, as each region has a level of its own; 0 where a row has arrived."""
        return (~walk.done).double()

    def arrived(self, model: Model, state: State) -> SequentialWalk:
        """The walk at its end, of a clean state whose free regions may be walked again."""
        walk = self.init(model, state.to(state.x, state.free.to(state.t)), Streams.root(0, state.problem))
        return replace(walk, state=state.to(state.x, torch.zeros_like(state.t)), step=walk.steps)

    def rewind(
        self, model: Model, walk: SequentialWalk, level: float, streams: Streams, at: float = 0.0
    ) -> SequentialWalk:
        """A walk that has arrived, all its regions noised to `level`, at its start."""
        if not walk.done.all():
            raise RedraftError("the sequential sampler can be taken up at its end only: refine at level 0")
        levels = torch.full_like(walk.state.t, level)
        return self.init(model, model.process.renoise(walk.state, walk.top > 0, levels, streams), streams)

    def _start(
        self,
        model: Model,
        walk: SequentialWalk,
        prediction: Prediction,
        due: Tensor,
        streams: Streams,
    ) -> Tensor:
        """The step at which each region started (B, R), when `due` (B,) of them have by now."""
        waiting = (walk.top > 0) & (walk.begin < 0)
        number = due - (walk.begin >= 0).sum(1)
        priority = ORDERS[self.order](model, walk, prediction, streams)
        rank = torch.where(waiting, priority, torch.inf).argsort(dim=1, stable=True).argsort(1)
        return torch.where(waiting & (rank < number[:, None]), walk.step[:, None], walk.begin)
