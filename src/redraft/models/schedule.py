"""When a pipeline's scheduler evaluates the network, and how noisy the latents are then.

Some solvers evaluate twice in a step: Heun's in every step but the last, PNDM in its first. The second evaluation is at
a provisional state of the level that the step ends at, from which the solver then makes the final one. Steps here are
whole: between two of them nothing is provisional.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from redraft.core.errors import RedraftError
from redraft.models.probe import Draws, StandIn


@dataclass(frozen=True)
class Schedule:
    """The n steps of a pipeline's scheduler, which take E network evaluations.

    Attributes:
        scheduler: a copy of it, with its timesteps set; never stepped itself.
        timesteps: (E,) of the evaluations, as the network is told.
        levels: (E + 1,) of noise at each evaluation and after the last, which is 0.
        scales: (E + 1,), what a state's values are multiplied by for the scheduler.
        begins: (n + 1,) the evaluation that each step begins with, and E.
        start: what pure noise is multiplied by for the first step.
        options: the pipeline's own arguments of the scheduler's step.
    """

    scheduler: Any
    timesteps: Tensor
    levels: Tensor
    scales: Tensor
    begins: Tensor
    start: float
    options: dict[str, Any]

    @property
    def grid(self) -> Tensor:
        """Levels (n + 1,) before each step and after the last."""
        return self.levels[self.begins]

    @cached_property
    def random(self) -> bool:
        """Whether the scheduler's steps draw numbers, tried on a walk of zeros."""
        scheduler, x, drawn = copy.deepcopy(self.scheduler), torch.zeros(1, 4, 8, 8), list[int]()

        def draw(shape: tuple[int, ...]) -> Tensor:
            drawn.append(1)
            return torch.zeros(shape)

        with Draws(draw, type(scheduler).__name__):
            for timestep in scheduler.timesteps:
                x = scheduler.step(torch.zeros_like(x), timestep, x, **self.options, return_dict=False)[0]
        return bool(drawn)

    def by_single_steps(self, levels: Tensor) -> Schedule:
        """A schedule of one evaluation a step at `levels` (n + 1,), of which the last is 0."""
        steps = len(levels) - 1
        scales = self.scales[:1].expand(steps + 1)
        return replace(self, levels=levels, scales=scales, begins=torch.arange(steps + 1))

    def above(self, level: Tensor) -> Tensor:
        """The last step (B,) that begins no lower than `level` (B,), or the first."""
        high = self.grid[:-1].to(level)[None] >= level[:, None] - 1e-6
        return (high.sum(1) - 1).clamp_min(0)

    def evaluations(self, high: float, low: float) -> int:
        """Network evaluations of a walk from `high`, or the next level above, to `low`, or the next level below."""
        first = int(self.above(torch.tensor([high]))[0])
        last = int((self.grid > low + 1e-6).sum())
        return int((self.begins[last] - self.begins[first]).clamp_min(0))


def schedule_of(base: Any, steps: int, asked: StandIn, seen: StandIn, flow: bool) -> Schedule:
    """The schedule of the scheduler `base` at so many steps.

    Args:
        base: of diffusers; stays as it is.
        steps: n.
        asked: what the pipeline called when it set its timesteps.
        seen: what it called at its first step.
        flow: noise is added by x = (1 - t) x0 + t e.

    Raises:
        RedraftError: the scheduler refuses, evaluates at other levels than those of its steps, does not say how noisy
            these are, or scales its input in a way that is not known here.
    """
    scheduler, who = copy.deepcopy(base), type(base).__name__
    args, kwargs = asked.asked
    try:
        scheduler.set_timesteps(*args, **kwargs)
    except ValueError as error:
        raise RedraftError(f"{who} refuses {steps} steps: {error}") from error
    timesteps = scheduler.timesteps.cpu()
    begins = _begins(timesteps, steps, who)
    sigma, levels = _levels(scheduler, timesteps, flow)
    if not (levels[begins].diff() < 0).all() or levels[0] > 1:
        raise RedraftError(f"the noise of {who} does not fall at every step: choose another scheduler")
    scales = _scales(scheduler, sigma, who)
    if hasattr(scheduler, "is_scale_input_called"):
        scheduler.is_scale_input_called = True  # it would warn: the scale is in `scales`
    start = float(scheduler.init_noise_sigma) if seen.scaled else 1.0
    return Schedule(scheduler, timesteps, levels.float(), scales.float(), begins, start, seen.options)


def _begins(timesteps: Tensor, steps: int, who: str) -> Tensor:
    """See `Schedule`: where timesteps repeat, the first of the two is at a provisional state."""
    number = len(timesteps)
    provisional = torch.cat([timesteps[1:] == timesteps[:-1], torch.tensor([False])])
    settled = ~provisional if number != steps else torch.ones(number, dtype=torch.bool)
    begins = torch.cat([settled.nonzero()[:, 0], torch.tensor([number])])
    if len(begins) != steps + 1 or begins[0] != 0 or (begins.diff() > 2).any():
        better = "PNDMScheduler.from_config(pipeline.scheduler.config, skip_prk_steps=True)"
        if "PNDM" not in who:
            better = "DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)"
        raise RedraftError(
            f"{who} takes {number} network evaluations for {steps} steps, at levels between them: "
            f"set pipeline.scheduler = {better}"
        )
    return begins


def _levels(scheduler: Any, timesteps: Tensor, flow: bool) -> tuple[Tensor, Tensor]:
    """Sigmas and levels (E + 1,) each, float64."""
    end = torch.zeros(1, dtype=torch.float64)
    sigma = getattr(scheduler, "sigmas", None)
    if sigma is not None and len(sigma) > len(timesteps):
        sigma = torch.cat([torch.as_tensor(sigma).double().cpu()[: len(timesteps)], end])
    elif hasattr(scheduler, "alphas_cumprod") and not flow:
        bar = scheduler.alphas_cumprod.double().cpu()[timesteps.long()]
        sigma = torch.cat([((1 - bar) / bar).sqrt(), end])
    else:
        raise RedraftError(f"{type(scheduler).__name__} does not say how noisy its steps are: choose another scheduler")
    return sigma, sigma if flow else sigma / (1 + sigma**2).sqrt()


def _scales(scheduler: Any, sigma: Tensor, who: str) -> Tensor:
    """See `Schedule`: 1, or sqrt(1 + sigma^2) for schedulers that count in sigma."""
    first, ones = copy.copy(scheduler), torch.ones(1)
    scale_input = getattr(first, "scale_model_input", None)
    shrunk = float(scale_input(ones, scheduler.timesteps[0])) if scale_input else 1.0
    scales = torch.ones_like(sigma) if shrunk == 1 else (1 + sigma**2).sqrt()
    if abs(shrunk * float(scales[0]) - 1) > 1e-4:
        raise RedraftError(f"{who} scales its input in a way that is not known here: choose another scheduler")
    return scales
