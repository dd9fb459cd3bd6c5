"""Samplers walk a state from noise to clean."""

from redraft.samplers.base import Sampler, Walk, sample
from redraft.samplers.parallel import Parallel
from redraft.samplers.sequential import Sequential

__all__ = ["Parallel", "Sampler", "Sequential", "Walk", "sample"]
