"""Inference-time scaling of diffusion models: better samples for more compute, counted one way."""

__version__ = "0.1.0"

from typing import Any

from redraft.core.errors import RedraftError
from redraft.core.ledger import Budget, Ledger
from redraft.core.registry import METHODS, MODELS, TASKS
from redraft.core.result import Result
from redraft.core.run import run
from redraft.methods.ipr import IPR
from redraft.methods.selection import Disagreement, Sweep, Uncertainty, Uniform
from redraft.models.load import load_model
from redraft.samplers import Parallel, Sequential


def load_task(name: str, **settings: Any) -> Any:  # noqa: ANN401 - tasks have methods of their own
    """A task by name (see `redraft list`), with its own settings.

    Raises:
        RedraftError: unknown name.
    """
    return TASKS[name](**settings)


__all__ = [
    "IPR",
    "METHODS",
    "MODELS",
    "TASKS",
    "Budget",
    "Disagreement",
    "Ledger",
    "Parallel",
    "RedraftError",
    "Result",
    "Sequential",
    "Sweep",
    "Uncertainty",
    "Uniform",
    "load_model",
    "load_task",
    "run",
]
