"""Samplers walk a state from noise to clean data."""

from typing import TYPE_CHECKING

from redraft.samplers.base import Sampler, advance, descend, looks, sample
from redraft.samplers.parallel import Parallel
from redraft.samplers.presets import Preset, preset
from redraft.samplers.scheduled import Scheduled
from redraft.samplers.sequential import Sequential
from redraft.samplers.suited import (
    for_choices,
    for_rough_drafts,
    for_samples,
    for_searches,
    needs_random_steps,
    needs_restarts,
    sampler_for,
)
from redraft.samplers.unmask import Unmask

if TYPE_CHECKING:
    AnySampler = Sampler
else:  # those that a command line can spell
    AnySampler = Sequential | Parallel | Preset | Scheduled

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
    "for_choices",
    "for_rough_drafts",
    "for_samples",
    "for_searches",
    "looks",
    "needs_random_steps",
    "needs_restarts",
    "preset",
    "sample",
    "sampler_for",
]
