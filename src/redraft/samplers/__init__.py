"""Samplers walk a state from noise to clean data."""

from typing import TYPE_CHECKING, Annotated

from redraft.core.fields import Like
from redraft.core.lazy import attributes
from redraft.processes.categorical import Draw
from redraft.processes.mask import Arccos, Cosine, Linear, Plateau
from redraft.samplers.base import Sampler, Walk, advance, descend, looks, sample
from redraft.samplers.budgets import EntropyBound, Even, Factor, OnSchedule, Proportional, Refresh, Remask, Threshold
from redraft.samplers.parallel import Parallel
from redraft.samplers.presets import Preset, preset
from redraft.samplers.revising import Corrector, Edit
from redraft.samplers.rules import Budget, Choice, Counts, Moment, Rates, Rule, Scorer
from redraft.samplers.scheduled import Scheduled
from redraft.samplers.scorers import Confidence, EndsLast, Entropy, Halton, Judge, Margin, Planner, Quality
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
    AnySampler = Annotated[Sequential | Parallel | Preset | Scheduled, Like((Sampler,), "redraft.Parallel(50)")]

__getattr__ = attributes(__name__)

__all__ = [
    "AnySampler",
    "Arccos",
    "Budget",
    "Choice",
    "Confidence",
    "Corrector",
    "Cosine",
    "Counts",
    "Draw",
    "Edit",
    "EndsLast",
    "Entropy",
    "EntropyBound",
    "Even",
    "Factor",
    "Halton",
    "Judge",
    "Linear",
    "Margin",
    "Moment",
    "OnSchedule",
    "Parallel",
    "Planner",
    "Plateau",
    "Preset",
    "Proportional",
    "Quality",
    "Rates",
    "Refresh",
    "Remask",
    "Rule",
    "Sampler",
    "Scheduled",
    "Scorer",
    "Sequential",
    "Threshold",
    "Unmask",
    "Walk",
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
