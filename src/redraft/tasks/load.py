"""From a name to a task."""

from __future__ import annotations

from typing import Any

from redraft.core.errors import check_settings
from redraft.core.fields import taken
from redraft.core.registry import TASKS


def load_task(name: str, **settings: Any) -> Any:
    """A task by name (see `redraft list`), with its own settings.

    Raises:
        RedraftError: unknown name or setting.
    """
    name = taken("name", name, str)
    make = TASKS[name]
    check_settings(f"task {name!r}", make, settings)
    return make(**settings)
