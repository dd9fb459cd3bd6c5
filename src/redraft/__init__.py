"""Inference-time scaling of diffusion models: better samples for more compute, counted one way."""

from typing import TYPE_CHECKING

from redraft.core.lazy import attributes

__version__ = "0.1.0"

if TYPE_CHECKING:
    from redraft import bench, core, methods, models, processes, report, samplers, tasks, testing, training, verifiers
    from redraft.core.errors import RedraftError
    from redraft.core.ledger import Budget, Ledger
    from redraft.core.registry import METHODS, MODELS, SAMPLERS, TASKS, VERIFIERS
    from redraft.core.result import Result
    from redraft.core.run import run
    from redraft.methods.beam import Beam
    from redraft.methods.best_of_n import BestOfN
    from redraft.methods.blame import Blame, Metropolis
    from redraft.methods.drafts import DraftThenVerify, Halving
    from redraft.methods.evolution import Evolution
    from redraft.methods.fk import FK
    from redraft.methods.generate import Generate
    from redraft.methods.ipr import IPR
    from redraft.methods.iterref import IterRef
    from redraft.methods.lineage import noise
    from redraft.methods.particle_gibbs import ParticleGibbs
    from redraft.methods.paths import Paths
    from redraft.methods.selection import Disagreement, Sweep, Uncertainty, Uniform
    from redraft.methods.svdd import SVDD
    from redraft.methods.value import Reward
    from redraft.methods.zero_order import ZeroOrder
    from redraft.models.guidance import guided
    from redraft.models.load import load_model
    from redraft.samplers import Parallel, Preset, Scheduled, Sequential, Unmask, preset
    from redraft.tasks.load import load_task
    from redraft.tasks.prompts import prompts
    from redraft.verifiers.load import load_verifier

_HOME = {
    "core.errors": ("RedraftError",),
    "core.ledger": ("Budget", "Ledger"),
    "core.registry": ("METHODS", "MODELS", "SAMPLERS", "TASKS", "VERIFIERS"),
    "core.result": ("Result",),
    "core.run": ("run",),
    "methods.beam": ("Beam",),
    "methods.best_of_n": ("BestOfN",),
    "methods.blame": ("Blame", "Metropolis"),
    "methods.drafts": ("DraftThenVerify", "Halving"),
    "methods.evolution": ("Evolution",),
    "methods.fk": ("FK",),
    "methods.generate": ("Generate",),
    "methods.ipr": ("IPR",),
    "methods.iterref": ("IterRef",),
    "methods.lineage": ("noise",),
    "methods.particle_gibbs": ("ParticleGibbs",),
    "methods.paths": ("Paths",),
    "methods.svdd": ("SVDD",),
    "methods.value": ("Reward",),
    "methods.zero_order": ("ZeroOrder",),
    "methods.selection": ("Disagreement", "Sweep", "Uncertainty", "Uniform"),
    "models.guidance": ("guided",),
    "models.load": ("load_model",),
    "samplers": ("Parallel", "Preset", "Scheduled", "Sequential", "Unmask", "preset"),
    "tasks.load": ("load_task",),
    "verifiers.load": ("load_verifier",),
    "tasks.prompts": ("prompts",),
}


if not TYPE_CHECKING:  # a type checker would take any name for one of ours
    __getattr__ = attributes(__name__, _HOME)


def __dir__() -> list[str]:
    return __all__


__all__ = [
    "Beam",
    "BestOfN",
    "Blame",
    "Budget",
    "Disagreement",
    "DraftThenVerify",
    "Evolution",
    "FK",
    "Generate",
    "Halving",
    "IPR",
    "IterRef",
    "Ledger",
    "METHODS",
    "MODELS",
    "Metropolis",
    "Parallel",
    "ParticleGibbs",
    "Paths",
    "Preset",
    "RedraftError",
    "Result",
    "Reward",
    "SAMPLERS",
    "SVDD",
    "Scheduled",
    "Sequential",
    "Sweep",
    "TASKS",
    "Uncertainty",
    "Uniform",
    "Unmask",
    "VERIFIERS",
    "ZeroOrder",
    "bench",
    "core",
    "guided",
    "load_model",
    "load_task",
    "load_verifier",
    "methods",
    "models",
    "noise",
    "preset",
    "processes",
    "prompts",
    "report",
    "run",
    "samplers",
    "tasks",
    "testing",
    "training",
    "verifiers",
]
