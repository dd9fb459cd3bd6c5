"""The walk of a diffusers pipeline by its own scheduler, which can stop at any step and go on from any.

A scheduler keeps its solver's history in its attributes. Here each row has its own copy of whatever a step has changed,
so rows can be reordered, repeated and sent back, and stand at different steps in one batch. What a scheduler draws
comes from the rows' streams.

Most solvers draw nothing, and methods that let several walks go on from one state need steps that do. With the
`stochasticity` alpha above 0 the walk has the pipeline's levels t and, in place of its solver, the process's reverse
step, which for x_t = a_t x0 + b_t e is

    x_s = a_s x0 + b_s sqrt(1 - alpha^2 (1 - rho^2)) e + alpha b_s sqrt(1 - rho^2) n,  rho = a_t b_s / (a_s b_t),

of the predicted x0 and the noise e = (x_t - a_t x0) / b_t, with fresh n ~ N(0, I). Whatever alpha is, x_s has the
variance b_s^2 around a_s x0, so that every level keeps its law, with an error that falls with the number of steps as
Euler's does. It is DDIM's step with eta = alpha (Song, Meng, Ermon, "Denoising diffusion implicit models", 2021,
https://arxiv.org/abs/2010.02502), at alpha = 1 DDPM's, for any path of one signal and one noise; for flows it solves an
SDE of the family of Kim et al. (2025, https://arxiv.org/abs/2503.19385), who leave open how much noise it has.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, Literal

import torch
from torch import Tensor

from redraft.core.errors import RedraftError
from redraft.core.fields import AtLeast0, Count, Share, checked
from redraft.core.model import Model
from redraft.core.state import State, expand
from redraft.core.streams import Streams
from redraft.models.probe import Draws
from redraft.models.schedule import Schedule
from redraft.processes.paths import level_at
from redraft.samplers.base import Looked, linear, random_steps, wanted

Memory = dict[str, Any]
"""What a step changed in a scheduler, of one row: tensors (1, *latent), numbers, and lists of both."""


@dataclass(frozen=True, repr=False)
class ScheduledWalk(Looked):
    """A walk along a pipeline's schedule.

    Attributes:
        step: steps done (B,).
        steps: steps in all (B,).
        memory: of the solver, by rows; empty at its start.
    """

    step: Tensor
    steps: Tensor
    memory: list[Memory] = field(default_factory=list)

    @property
    def done(self) -> Tensor:
        """Rows (B,) that have arrived."""
        return self.step >= self.steps


@dataclass(frozen=True)
class Scheduled:
    """The pipeline's own schedule and solver, or random steps along the schedule.

    Attributes:
        steps: how many, of one network evaluation each; Heun's take two but the last, and PNDM's first takes two.
        stochasticity: 0 is the pipeline's own solver, above it the process's reverse step is taken; 1 is ancestral.
        temperature: scale of the noise that this adds.
        path: 'own' levels of the pipeline, or for a flow and steps that are random those of a variance-preserving path,
            'vp'; see `redraft.processes.paths`.
    """

    steps: Count = 50
    stochasticity: Share = 0.0
    temperature: AtLeast0 = 1.0
    path: Literal["own", "vp"] = "own"
    by_level = True

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)
        if self.path != "own" and not self.stochasticity:
            raise RedraftError(
                "path='vp' is for random steps, as the pipeline's solver has levels of its own: set stochasticity=1"
            )

    def random_start(self, model: Model) -> bool:
        """Noise differs from draw to draw."""
        return True

    def random_steps(self, model: Model) -> bool:
        """Whether the process's steps draw numbers, or the pipeline's solver does."""
        if self.stochasticity:
            return random_steps(model, self.steps, self.stochasticity, self.temperature)
        return self._schedule(model).random

    def nfe(self, regions: Tensor, level: float = 1.0) -> Tensor:
        """Network rows (B,) of a walk over `regions` (B,) noisy regions if a step takes one, not counting guidance."""
        return (regions > 0) * self.steps

    def between(self, model: Model, regions: Tensor, high: float = 1.0, low: float = 0.0) -> Tensor:
        """Network rows (B,) of a walk over `regions` (B,) noisy regions from `high` to `low`, without guidance."""
        return (regions > 0) * self._schedule(model).evaluations(high, low)

    def init(self, model: Model, state: State, streams: Streams) -> ScheduledWalk:
        """The walk at its start; a row that begins on its way is noised up to the schedule's next level."""
        schedule = self._schedule(model)
        t = state.t[:, 0]
        step, pure = torch.where(t > 0, schedule.above(t), self.steps), t >= 1
        begun = state.to(state.x * float(schedule.start / schedule.scales[0]), schedule.grid.to(state.t)[step][:, None])
        if not pure.all():
            up = self._noised(model, state, step, streams.fold("begin"))
            begun = begun.to(torch.where(expand(pure[:, None], up.x), begun.x, up.x), up.t)
        return self._at(begun, step)

    def look(self, model: Model, walk: ScheduledWalk) -> ScheduledWalk:
        """The walk with the network's prediction for its state, which its next step then uses."""
        return walk.looked(model)

    def step(self, model: Model, walk: ScheduledWalk, streams: Streams) -> ScheduledWalk:
        """One step: one network evaluation, or two of solvers that need as many."""
        if self.stochasticity:
            return self._random_step(model, walk, streams)
        schedule = self._schedule(model)
        at, end = schedule.begins[walk.step.cpu()], schedule.begins[walk.step.cpu() + 1]
        walk = _moved(model, schedule, walk, at, streams)
        if (more := at + 1 < end).any():
            walk = walk.put(more, _moved(model, schedule, walk[more], at[more] + 1, streams[more]))
        return replace(walk, step=walk.step + 1)

    def level(self, walk: ScheduledWalk) -> Tensor:
        """Level of noise (B,) that each row has come down to."""
        return walk.state.t.amax(1).double()

    def arrived(self, model: Model, state: State) -> ScheduledWalk:
        """The walk at its end, of a clean state that may be walked again from any level."""
        clean = state.to(state.x, torch.zeros_like(state.t))
        return self._at(clean, torch.full_like(state.problem, self.steps))

    def rewind(
        self, model: Model, walk: ScheduledWalk, level: float, streams: Streams, at: float = 0.0
    ) -> ScheduledWalk:
        """The walk noised back up to `level`, or to the next level of the schedule above, its solver begun anew."""
        free = walk.state.free.any(1)
        above = self._schedule(model).above(torch.full_like(walk.state.t[:, 0], level))
        step = torch.where(free, torch.minimum(above, walk.step), walk.step)
        return self._at(self._noised(model, walk.state, step, streams), step)

    def _schedule(self, model: Model) -> Schedule:
        wanted(model, "schedule", "the sampler Scheduled")
        linear(model, self.path)
        schedule: Schedule = model.schedule(self.steps)  # type: ignore[attr-defined]
        if not self.stochasticity:
            return schedule
        time = torch.linspace(1, 0, self.steps + 1, dtype=torch.float64)
        return schedule.by_single_steps(schedule.grid if self.path == "own" else level_at(time).to(schedule.levels))

    def _random_step(self, model: Model, walk: ScheduledWalk, streams: Streams) -> ScheduledWalk:
        """One evaluation and a step of the process to the schedule's next level."""
        t_next = self._schedule(model).grid.to(walk.state.t)[walk.step + 1][:, None]
        noise = streams.fold("scheduled").fold(walk.step)
        prediction = walk.predicted(model)
        state = model.process.step(walk.state, prediction, t_next, noise, self.stochasticity, self.temperature)
        return ScheduledWalk(state, walk.step + 1, walk.steps, walk.memory)

    def _at(self, state: State, step: Tensor) -> ScheduledWalk:
        return ScheduledWalk(state, step, torch.full_like(step, self.steps), [{} for _ in range(len(state))])

    def _noised(self, model: Model, state: State, step: Tensor, streams: Streams) -> State:
        """The rows noised up to the levels of their steps (B,)."""
        level = self._schedule(model).grid.to(state.t)[step][:, None]
        noised: State = model.process.renoise(state, level > state.t, level, streams)
        return noised.to(noised.x, level)


def _moved(model: Model, schedule: Schedule, walk: ScheduledWalk, at: Tensor, streams: Streams) -> ScheduledWalk:
    """The walk after the evaluations number `at` (B,), with the same number of steps."""
    state, prediction = walk.state, walk.predicted(model)
    output: Tensor = model.output(state, prediction)  # type: ignore[attr-defined]
    x, memory, groups = state.x, walk.memory, _alike(at, walk.memory)
    if len(groups) == 1:
        x, memory = _stepped(schedule, int(at[0]), output, x, memory, streams)
    else:
        x, memory = x.clone(), list(memory)
        for rows in groups:
            given = [walk.memory[i] for i in rows.tolist()]
            x[rows], kept = _stepped(schedule, int(at[rows[0]]), output[rows], x[rows], given, streams[rows])
            for i, row in enumerate(rows.tolist()):
                memory[row] = kept[i]
    t = schedule.levels[at + 1].to(state.t)[:, None]
    return ScheduledWalk(state.to(x, t), walk.step, walk.steps, memory)


def _alike(at: Tensor, memory: list[Memory]) -> list[Tensor]:
    """Numbers of the rows that are at the same evaluation with solvers in the same condition, group by group."""
    groups: dict[tuple[int, str], list[int]] = {}
    for row, (number, kept) in enumerate(zip(at.tolist(), memory, strict=True)):
        groups.setdefault((number, repr(_outline(kept))), []).append(row)
    return [torch.tensor(rows) for rows in groups.values()]


def _outline(value: Any) -> Any:
    """What is not a row's own values."""
    if isinstance(value, dict):
        return {key: _outline(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_outline(v) for v in value]
    if isinstance(value, Tensor):
        return "row" if value.ndim else value.item()
    return value


def _stepped(
    schedule: Schedule, k: int, output: Tensor, x: Tensor, memory: list[Memory], streams: Streams
) -> tuple[Tensor, list[Memory]]:
    """Rows (B, 1, *latent) after evaluation k, and what their solvers keep."""
    scheduler = _revived(schedule.scheduler, memory, k)
    numbers = count()
    who = type(scheduler).__name__

    def draw(shape: tuple[int, ...]) -> Tensor:
        if shape != tuple(x[:, 0].shape):
            raise RedraftError(f"{who} draws noise of shape {shape} for latents of shape {tuple(x[:, 0].shape)}")
        return streams.fold("scheduled").fold(k).fold(next(numbers)).normal(tuple(x.shape[1:]))[:, 0]

    with Draws(draw, who):
        after = scheduler.step(
            output[:, 0], scheduler.timesteps[k], x[:, 0] * schedule.scales[k].to(x), **schedule.options,
            return_dict=False,
        )[0]  # fmt: skip
    if not memory[0] and k and hasattr(scheduler, "counter"):
        scheduler.counter = k + 1  # PNDM, begun on its way with one plain step, would evaluate twice here too
    return (after / schedule.scales[k + 1].to(x))[:, None].to(x), _kept(scheduler, schedule.scheduler, len(x), who)


def _revived(base: Any, memory: list[Memory], k: int) -> Any:
    """A copy of the scheduler with the history of these rows, or begun at evaluation k if there is none."""
    scheduler = copy.copy(base)
    own = vars(scheduler)
    own.update({name: list(value) for name, value in own.items() if isinstance(value, list)})
    own.update({name: _joined([row[name] for row in memory]) for name in memory[0]})
    if not memory[0] and hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(k)
    return scheduler


def _joined(values: list[Any]) -> Any:
    first = values[0]
    if isinstance(first, list):
        return [_joined(list(items)) for items in zip(*values, strict=True)]
    return torch.cat(values) if isinstance(first, Tensor) and first.ndim else first


def _kept(scheduler: Any, base: Any, rows: int, who: str) -> list[Memory]:
    """What is changed in `scheduler` against `base`, for each row."""
    before = vars(base)
    changed = {name: v for name, v in vars(scheduler).items() if name not in before or not _same(v, before[name])}
    return [{name: _row(v, i, rows, f"{who}.{name}") for name, v in changed.items()} for i in range(rows)]


def _same(value: Any, before: Any) -> bool:
    if isinstance(value, Tensor) or isinstance(before, Tensor):
        equal_kind = isinstance(value, Tensor) and isinstance(before, Tensor) and value.shape == before.shape
        return value is before or (equal_kind and bool((value.cpu() == before.cpu()).all()))
    if isinstance(value, list) and isinstance(before, list):
        return len(value) == len(before) and all(map(_same, value, before))
    return bool(value is before or value == before)


def _row(value: Any, i: int, rows: int, who: str) -> Any:
    if isinstance(value, list | tuple):
        return [_row(v, i, rows, who) for v in value]
    if isinstance(value, Tensor) and value.ndim:
        if value.ndim < 2 or len(value) != rows:
            raise RedraftError(f"{who} of shape {tuple(value.shape)} cannot be split by rows: choose another scheduler")
        return value[i : i + 1].clone()
    if value is None or isinstance(value, Tensor | int | float | str | bool):
        return value
    raise RedraftError(f"{who} is a {type(value).__name__}, which cannot be split by rows: choose another scheduler")
