"""Inference-time scaling of diffusion models: better samples for more compute, counted one way."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from redraft.core.errors import RedraftError
    from redraft.core.ledger import Budget, Ledger
    from redraft.core.registry import METHODS, MODELS, SAMPLERS, TASKS
    from redraft.core.result import Result
    from redraft.core.run import run
    from redraft.methods.generate import Generate
    from redraft.methods.ipr import IPR
    from redraft.methods.selection import Disagreement, Sweep, Uncertainty, Uniform
    from redraft.models.guidance import guided
    from redraft.models.load import load_model
    from redraft.samplers import Parallel, Preset, Sequential, Unmask, preset
    from redraft.tasks.load import load_task
    from redraft.tasks.prompts import prompts

_HOME = {
    "core.errors": ("RedraftError",),
    "core.ledger": ("Budget", "Ledger"),
    "core.registry": ("METHODS", "MODELS", "SAMPLERS", "TASKS"),
    "core.result": ("Result",),
    "core.run": ("run",),
    "methods.generate": ("Generate",),
    "methods.ipr": ("IPR",),
    "methods.selection": ("Disagreement", "Sweep", "Uncertainty", "Uniform"),
    "models.guidance": ("guided",),
    "models.load": ("load_model",),
    "samplers": ("Parallel", "Preset", "Sequential", "Unmask", "preset"),
    "tasks.load": ("load_task",),
    "tasks.prompts": ("prompts",),
}


def __getattr__(name: str) -> Any:
    """Import what is asked for now, so that `import redraft` stays quick."""
    for module, names in _HOME.items():
        if name in names:
            return getattr(import_module(f"redraft.{module}"), name)
    raise AttributeError(f"module 'redraft' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__


__all__ = [
    "IPR",
    "METHODS",
    "MODELS",
    "SAMPLERS",
    "TASKS",
    "Budget",
    "Disagreement",
    "Generate",
    "Ledger",
    "Parallel",
    "Preset",
    "RedraftError",
    "Result",
    "Sequential",
    "Sweep",
    "Uncertainty",
    "Uniform",
    "Unmask",
    "guided",
    "load_model",
    "load_task",
    "prompts",
    "preset",
    "run",
]
