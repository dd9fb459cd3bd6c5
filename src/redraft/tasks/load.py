"""From a name to a task."""

from __future__ import annotations

import inspect
from typing import Any

from redraft.core.errors import unknown
from redraft.core.registry import TASKS


def load_task(name: str, **settings: Any) -> Any:
    """A task by name (see `redraft list`), with its own settings.

    Raises:
        RedraftError: unknown name or setting.
    """
    make = TASKS[name]
    asked = inspect.signature(make).parameters
    strange = [key for key in settings if key not in asked]
    if strange and not any(p.kind is p.VAR_KEYWORD for p in asked.values()):
        raise unknown(f"setting of task {name!r}", strange[0], asked)
    return make(**settings)
