"""Experiment trackers, told of every cell: optional, and never the truth, which is in the folder."""

from __future__ import annotations

from typing import Any, Literal, Protocol

from redraft.core.errors import require


class Sink(Protocol):
    """Takes what is to be shown."""

    def log(self, values: dict[str, Any]) -> None:
        """One cell's numbers."""


def tracker(name: Literal["trackio", "wandb"], project: str) -> Sink:
    """A run of trackio or of wandb, which have one interface.

    Raises:
        RedraftError: the package is not installed.
    """
    module = require(name, name)
    run: Sink = module.init(project=project)
    return run
