"""From a name to a verifier."""

from __future__ import annotations

import inspect
from typing import Any

from redraft.core.errors import RedraftError, check_settings, missing_settings
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
    check_settings(f"verifier {name!r}", make, settings)
    if missing := missing_settings(make, given):
        raise RedraftError(f"verifier {name!r} needs {', '.join(missing)}: make it in Python, from redraft.verifiers")
    return make(**given)


def asks(name: str, key: str) -> bool:
    """Whether the verifier of that name takes `key`, such as the model as its `denoiser`.

    Raises:
        RedraftError: there is none of that name.
    """
    return key in inspect.signature(VERIFIERS[name]).parameters


def needed(name: str) -> list[str]:
    """What the verifier of that name cannot do without.

    Raises:
        RedraftError: there is none of that name.
    """
    return missing_settings(VERIFIERS[name], ())
