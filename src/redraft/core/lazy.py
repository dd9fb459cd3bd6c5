"""Attributes of a package that are imported when first asked for, so that importing the package stays quick."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any


def attributes(package: str, homes: Mapping[str, Sequence[str]] | None = None) -> Callable[[str], Any]:
    """The `__getattr__` of `package`, which finds its modules, and names by the module of redraft that is their home.

    Args:
        package: its `__name__`.
        homes: names by module, such as `{"core.run": ("run",)}`.
    """
    home = {name: module for module, names in (homes or {}).items() for name in names}

    def found(name: str) -> Any:
        if name in home:
            return getattr(import_module(f"redraft.{home[name]}"), name)
        if not name.startswith("_") and find_spec(f"{package}.{name}"):
            return import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return found
