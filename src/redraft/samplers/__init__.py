"""Samplers walk a state from noise to clean data."""

from typing import TYPE_CHECKING, Annotated

from redraft.core.fields import Like
from redraft.samplers.base import Sampler, advance, descend, looks, sample
from redraft.samplers.parallel import Parallel
from redraft.samplers.presets import Preset, preset
from redraft.samplers.scheduled import Scheduled
from redraft.samplers.sequential import Sequential
from redraft.samplers.suited import needs_random_steps, needs_restarts, suited
from redraft.samplers.unmask import Unmask

if TYPE_CHECKING:
    AnySampler = Sampler
else:  # those that a command line can spell
    AnySampler = Annotated[Sequential | Parallel | Preset | Scheduled, Like(Sampler, "redraft.Parallel(50)")]

__all__ = [
    "AnySampler",
    "Parallel",
    "Preset",
    "Sampler",
    "Scheduled",
    "Sequential",
    "Unmask",
    "advance",
    "descend",
    "looks",
    "needs_random_steps",
    "needs_restarts",
    "preset",
    "sample",
    "suited",
]
