"""From a name to a task."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from redraft.core.errors import RedraftError, check_settings, missing_settings
from redraft.core.fields import taken
from redraft.core.registry import TASKS
from redraft.models.weights import read_config


def load_task(name: str, **settings: Any) -> Any:
    """A task by name (see `redraft list`), with its own settings.

    Raises:
        RedraftError: unknown name or setting, or settings that the task needs are missing.
    """
    name = taken("name", name, str)
    make = TASKS[name]
    check_settings(f"task {name!r}", make, settings)
    if missing := missing_settings(make, settings):
        raise RedraftError(f"task {name!r} needs {', '.join(missing)}: give load_task({name!r}, {missing[0]}=...)")
    return make(**settings)


def task_of(model: str) -> str | None:
    """The task of a model's name, or of the name of what a folder holds; None where there is none."""
    if Path(model).is_dir():
        with suppress(RedraftError):  # what the folder lacks is said when the model is loaded
            model = str(read_config(Path(model)).get("model"))
    return model if model in TASKS else None
