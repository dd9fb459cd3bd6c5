"""From a name to a verifier."""

from __future__ import annotations

import inspect
from typing import Any

from redraft.core.errors import RedraftError, check_settings
from redraft.core.fields import taken
from redraft.core.model import Model
from redraft.core.registry import VERIFIERS
from redraft.core.task import Task


def load_verifier(name: str, /, task: Task | None = None, model: Model | None = None, **settings: Any) -> Any:
    """A verifier by name (see `redraft list`), given the task, and the model as `denoiser`, if it asks for them.

    Raises:
        RedraftError: unknown name or setting, or settings that the verifier needs are missing.
    """
    name = taken("name", name, str)
    make = VERIFIERS[name]
    known: dict[str, Any] = {"task": task, "denoiser": model}
    asked = inspect.signature(make).parameters
    given = {key: value for key, value in known.items() if key in asked and value is not None} | settings
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    check_settings(f"verifier {name!r}", make, settings)
    needed = (key for key, p in asked.items() if p.default is p.empty and p.kind not in several)
    missing = [key for key in needed if key not in given]
    if missing:
        raise RedraftError(f"verifier {name!r} needs {', '.join(missing)}: make it in Python, from redraft.verifiers")
    return make(**given)
