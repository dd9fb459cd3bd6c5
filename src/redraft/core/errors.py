"""One sentence that says what is wrong and what to do about it."""

from __future__ import annotations

import difflib
import importlib
import inspect
import reprlib
from collections.abc import Callable, Collection, Iterable
from typing import Any, TypeVar

Answer = TypeVar("Answer")
_SHORT = reprlib.Repr()
_SHORT.maxtuple = _SHORT.maxlist = 8
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 80


class RedraftError(Exception):
    """What a user can mend: the command line prints its sentence and no stack.

    Attributes:
        result: what a run had when it failed, if it had a draft.
    """

    result: Any = None


def unknown(kind: str, name: str, known: Iterable[str]) -> RedraftError:
    """The error for a `name` that is not among the `known` ones of its `kind`, with the nearest that is."""
    names = sorted(known)
    name = str(name)
    name = name if len(name) < 80 else f"{name[:76]}..."
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"
    return RedraftError(f"unknown {kind} {name!r}; {hint}")


def check_settings(kind: str, make: Callable[..., Any], settings: Iterable[str]) -> None:
    """Raise for the first of the `settings` that `make` does not take, unless it takes any."""
    asked = inspect.signature(make).parameters
    strange = [key for key in settings if key not in asked]
    if strange and not any(p.kind is p.VAR_KEYWORD for p in asked.values()):
        raise unknown(f"setting of {kind}", strange[0], asked)


def missing_settings(make: Callable[..., Any], given: Collection[str]) -> list[str]:
    """The settings that `make` cannot do without and that are not `given`, in order."""
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    asked = inspect.signature(make).parameters.items()
    return [name for name, p in asked if p.default is p.empty and p.kind not in several and name not in given]


def shown(value: Any) -> str:
    """What a person gave, in a few words."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if type(value) is int and value.bit_length() > 200:  # Python spells no number of thousands of digits
        return f"a number of {value.bit_length()} bits"
    plain = isinstance(value, int | float | str | bool | None)
    listed = isinstance(value, list | tuple) and all(isinstance(each, int | float | str | None) for each in value)
    return _SHORT.repr(value) if plain or listed else f"a value of type {type(value).__name__}"


def said(error: BaseException) -> str:
    """The first line of what an error says, or its type if it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def pickled(error: BaseException) -> str:
    """What to do where a library found no safetensors."""
    hint = "; weights are read from safetensors alone: where the hub has them as a proposal, name revision='refs/pr/N'"
    return hint if "safetensors" in str(error) else ""


def asked(who: str, ask: Callable[..., Answer], *about: Any) -> Answer:
    """What a part that may be a user's own answers, or the sentence that says how it failed.

    Raises:
        RedraftError: it raised.
    """
    try:
        return ask(*about)
    except RedraftError:
        raise
    except Exception as error:
        raise RedraftError(f"{who} raised {type(error).__name__}: {said(error)}") from error


def require(module: str, extra: str) -> Any:
    """Import an optional `module` now, or say which extra brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise RedraftError(f"{module.split('.')[0]} is not installed: pip install 'redraft[{extra}]'") from error
