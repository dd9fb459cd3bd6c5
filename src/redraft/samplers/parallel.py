"""All noisy regions walk together: Euler steps of the process, or Heun steps of its deterministic flow."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from redraft.core.errors import RedraftError
from redraft.core.fields import AtLeast0, Count, Share, checked
from redraft.core.model import Model
from redraft.core.state import State, expand
from redraft.core.streams import Streams
from redraft.processes.categorical import Draw
from redraft.processes.paths import level_at, time_at
from redraft.samplers.base import Looked, linear, random_prior, random_steps, stretch


@dataclass(frozen=True, repr=False)
class ParallelWalk(Looked):
    """A walk of all regions together.

    Attributes:
        top: each region's level (B, R) at the start.
        step: steps done (B,).
        steps: steps in all (B,).
    """

    top: Tensor
    step: Tensor
    steps: Tensor

    @property
    def done(self) -> Tensor:
        """Rows (B,) that have arrived."""
        return self.step >= self.steps


@dataclass(frozen=True)
class Parallel:
    """Every region goes from its own level to 0 in equal steps.

    Attributes:
        steps: how many.
        order: 1 for the process's own step (Euler), 2 for Heun's, which calls the network twice a step but once in the
            last and asks for stochasticity 0.
        stochasticity: 0 deterministic, 1 ancestral.
        temperature: scale of the noise that is added.
        path: 'own', equal steps in the process's level, or for a flow 'vp', equal steps in the time of a
            variance-preserving path; see `redraft.processes.paths`.
    """

    steps: Count = 50
    order: Literal[1, 2] = 1
    stochasticity: Share = 0.0
    temperature: AtLeast0 = 1.0
    path: Literal["own", "vp"] = "own"
    by_level = True

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)
        if self.order == 2 and self.stochasticity > 0:
            raise RedraftError("Heun's steps (order=2) are deterministic: set stochasticity=0 or order=1")

    @property
    def draw(self) -> Draw:
        """How tokens are drawn, of masked models."""
        return Draw(self.temperature)

    def random_start(self, model: Model) -> bool:
        """Whether pure noise is random."""
        return random_prior(model)

    def random_steps(self, model: Model) -> bool:
        """Whether the process's steps draw numbers."""
        return self.order == 1 and random_steps(model, self.steps, self.stochasticity, self.temperature)

    def nfe(self, regions: Tensor, level: float = 1.0) -> Tensor:
        """Network rows (B,) of a walk over `regions` (B,) noisy regions, whatever their level."""
        return (regions > 0) * (self.steps * self.order - (self.order - 1))

    def between(self, model: Model, regions: Tensor, high: float = 1.0, low: float = 0.0) -> Tensor:
        """Network rows (B,) of the part of a walk over `regions` (B,) noisy regions from `high` to `low`."""
        first, last = stretch(torch.full_like(regions, self.steps), *map(self._share, (high, low)))
        to_end = (last > first) & (last == self.steps)
        return (regions > 0) * ((last - first) * self.order - to_end * (self.order - 1))

    def init(self, model: Model, state: State, streams: Streams) -> ParallelWalk:
        """The walk at its start; rows without a noisy region have arrived."""
        if self.order == 2 and not hasattr(model.process, "velocity"):
            raise RedraftError(f"Heun's steps need a velocity, which the process of {model.name!r} lacks: set order=1")
        linear(model, self.path)
        steps = (state.t > 0).any(1) * self.steps
        return ParallelWalk(state, state.t, torch.zeros_like(steps), steps)

    def look(self, model: Model, walk: ParallelWalk) -> ParallelWalk:
        """The walk with the network's prediction for its state, which its next step then uses."""
        return walk.looked(model)

    def step(self, model: Model, walk: ParallelWalk, streams: Streams) -> ParallelWalk:
        """One step: one network evaluation, or two."""
        state, process = walk.state, model.process
        t_next = self._level(walk.top, (1 - (walk.step + 1) / walk.steps)[:, None])
        prediction = walk.predicted(model)
        if self.order == 1:
            noise = streams.fold("parallel").fold(walk.step)
            after = process.step(state, prediction, t_next, noise, self.stochasticity, self.temperature)
        else:
            after = _heun(model, state, process.velocity(state, prediction), t_next)
        return replace(walk, state=after, step=walk.step + 1, prediction=None, fresh=None)

    def level(self, walk: ParallelWalk) -> Tensor:
        """Level of noise (B,) that each row has come down to."""
        return self._level(walk.top.amax(1).double(), 1 - walk.step / walk.steps.clamp_min(1))

    def arrived(self, model: Model, state: State) -> ParallelWalk:
        """The walk at its end, of a clean state whose free regions may be walked again from level 1."""
        steps = torch.full_like(state.problem, self.steps)
        return ParallelWalk(state.to(state.x, torch.zeros_like(state.t)), state.free.to(state.t), steps, steps)

    def rewind(self, model: Model, walk: ParallelWalk, level: float, streams: Streams, at: float = 0.0) -> ParallelWalk:
        """The walk noised back up to `level`, or to the next level of its grid above."""
        most = walk.top.amax(1).double().clamp_min(1e-12)
        step = (walk.steps * (1 - self._share(level, most)) + 1e-6).floor().long().clamp_min(0)
        t = self._level(walk.top, (1 - step / walk.steps)[:, None])
        state = model.process.renoise(walk.state, walk.top > 0, t.to(walk.state.t), streams)
        return replace(walk, state=state, step=step, prediction=None, fresh=None)

    def _level(self, top: Tensor, share: Tensor) -> Tensor:
        """Level of regions that begin at `top`, when this share of their steps is left; shapes broadcast."""
        return top * share if self.path == "own" else level_at(share * time_at(top)).to(top)

    def _share(self, level: float, top: Tensor | None = None) -> Any:
        """The share of steps that is left at a level of regions that begin at `top` (B,), or at 1: of `_level`."""
        if self.path == "own":
            return level if top is None else level / top
        time = time_at(torch.tensor(level, dtype=torch.float64))
        return float(time) if top is None else time.to(top) / time_at(top)


def _heun(model: Model, state: State, velocity: Tensor, t_next: Tensor) -> State:
    """Z + h (v(z, t) + v(z + h v, t*)) / 2; Euler's step for rows at their last, where v(., 0) is not defined."""
    h = expand(t_next - state.t, state.x)
    euler = state.to(state.x + h * velocity, t_next)
    more = (t_next > 0).any(1)
    if not more.any():
        return euler
    at_end = euler[more]
    second = model.process.velocity(at_end, model.predict(at_end))
    x = euler.x.clone()
    x[more] = state.x[more] + h[more] * (velocity[more] + second) / 2
    return euler.to(x, t_next)
