"""Experiment trackers, told of every cell: optional, and never the truth, which is in the folder."""

from __future__ import annotations

import warnings
from typing import Any, Literal, Protocol

from redraft.core.errors import require, said


class Sink(Protocol):
    """Takes what is to be shown."""

    def log(self, values: dict[str, Any]) -> None:
        """One cell's numbers."""


def tracker(name: Literal["trackio", "wandb"], project: str) -> Sink | None:
    """A run of trackio or of wandb, which have one interface; None, and a warning, if it cannot be begun.

    Raises:
        RedraftError: the package is not installed.
    """
    module = require(name, name)
    try:
        run: Sink = module.init(project=project)
    except Exception as error:
        warnings.warn(f"the tracker {name} failed, the run goes on without it: {said(error)}", stacklevel=2)
        return None
    return run
