"""Values for the parameters of dataclasses and functions, built of plain ones by their annotations."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterable
from dataclasses import is_dataclass
from importlib import import_module
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from redraft.core.errors import RedraftError, unknown
from redraft.core.registry import SAMPLERS

PARTS = {
    "samplers.parallel": ("Parallel",),
    "samplers.sequential": ("Sequential",),
    "samplers.scheduled": ("Scheduled",),
    "samplers.unmask": ("Unmask",),
    "samplers.revising": ("Corrector", "Edit"),
    "samplers.rules": ("Rule",),
    "samplers.budgets": (
        "Even",
        "EntropyBound",
        "Factor",
        "OnSchedule",
        "Proportional",
        "Refresh",
        "Remask",
        "Threshold",
    ),
    "samplers.scorers": ("Confidence", "EndsLast", "Entropy", "Halton", "Judge", "Margin", "Planner", "Quality"),
}
"""What may stand where an annotation is a protocol, by `type`."""
KINDS = {"int": "a whole number", "float": "a number", "str": "a word"}
WORDS = {"true": True, "false": False, "null": None, "~": None, "": None, ".inf": float("inf"), "inf": float("inf")}


class Map(dict[str, Any]):
    """A mapping that knows the place, such as 'file.yaml:12', of each of its keys."""

    def __init__(self, values: dict[str, Any], places: dict[str, str]) -> None:
        """Hold `values`."""
        super().__init__(values)
        self.places = places


def wrong(values: Any, key: str, message: str) -> RedraftError:
    """The error for what stands under `key`, with its place if that is known."""
    place = getattr(values, "places", {}).get(key)
    return RedraftError(f"{place}: {message}" if place else message)


def stray(values: Any, key: str, known: Iterable[str], kind: str = "key") -> RedraftError:
    """The error for a `key` that is not among the `known` ones, with the nearest that is."""
    return wrong(values, key, str(unknown(kind, key, known)))


def plain(text: str) -> Any:
    """The number, truth or null that `text` spells as in YAML 1.2's core schema, or the text itself."""
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def assigned(texts: Iterable[str]) -> Map:
    """What `name=value` texts say; `scorer.shaped=true` is a setting of `scorer`, whose kind `scorer=margin` says.

    Raises:
        RedraftError: a text is none of these, or says what another one has said.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise RedraftError(f"{text!r} is no setting: write name=value, such as block=32")
        _put(found, name.split("."), plain(value), text)
    return Map(found, {})


def _put(holder: dict[str, Any], path: list[str], value: Any, text: str) -> None:
    name, old = path[0], holder.get(path[0])
    if len(path) > 1:
        inner = old if isinstance(old, dict) else {} if name not in holder else {"type": old}
        holder[name] = inner
        _put(inner, path[1:], value, text)
    elif isinstance(old, dict) and "type" not in old:
        old["type"] = value
    elif name in holder:
        raise RedraftError(f"{text!r} is a second value of {name}")
    else:
        holder[name] = value


def call(make: Callable[..., Any], settings: Map | dict[str, Any]) -> Any:
    """`make`, a dataclass or an annotated function, called with `settings`.

    Raises:
        RedraftError: an unknown key, a value of another type, or what `make` itself refuses.
    """
    known, hints = inspect.signature(make).parameters, hints_of(make)
    for key in settings:
        if key not in known:
            raise stray(settings, key, known, f"setting of {make.__name__}")
    given = {key: value(hints.get(key, Any), settings, key) for key in settings}
    missing = [name for name, p in known.items() if p.default is p.empty and name not in given]
    if missing:
        raise RedraftError(f"{_first(settings)}{make.__name__} needs {', '.join(missing)}")
    try:
        return make(**given)
    except RedraftError as error:
        raise RedraftError(f"{_first(settings)}{error}") from error


def value(hint: Any, holder: dict[str, Any], key: str) -> Any:
    """What `holder[key]` says, as the type that `hint` states.

    Raises:
        RedraftError: it is of another type; the sentence has its place.
    """
    given = holder[key]
    if hint is Any or get_origin(hint) is Callable:
        return given
    if get_origin(hint) in (Union, types.UnionType):
        return _one_of(get_args(hint), holder, key)
    if get_origin(hint) is Literal:
        if given not in get_args(hint):
            raise wrong(holder, key, str(unknown(key, str(given), map(str, get_args(hint)))))
        return given
    if get_origin(hint) in (tuple, list):
        return _sequence(hint, holder, key)
    if get_origin(hint) is dict or hint is dict:
        return given if isinstance(given, dict) else _refused(holder, key, "a mapping")
    if hasattr(hint, "parsed"):
        return hint.parsed(holder, key)
    if isinstance(given, dict):
        return _part([hint] if is_dataclass(hint) else [], holder, key)
    if isinstance(given, str) and getattr(hint, "_is_protocol", False):
        return _part([], _typed(holder, key), key)
    return _scalar(hint, holder, key)


def _scalar(hint: Any, holder: dict[str, Any], key: str) -> Any:
    given = holder[key]
    if hint is float and isinstance(given, int | float) and not isinstance(given, bool):
        return float(given)
    if isinstance(hint, type) and isinstance(given, hint) and (hint is bool or not isinstance(given, bool)):
        return given
    return _refused(holder, key, KINDS.get(_name(hint)))


def _one_of(hints: tuple[Any, ...], holder: dict[str, Any], key: str) -> Any:
    given, parts = holder[key], [hint for hint in hints if is_dataclass(hint)]
    if given is None and type(None) in hints:
        return None
    named = next((hint for hint in hints if hasattr(hint, "parsed")), None)
    if named:
        return named.parsed(holder, key)
    if isinstance(given, dict):
        return _part(parts, holder, key)
    if isinstance(given, str) and str not in hints and parts:
        return _part(parts, _typed(holder, key), key)
    for hint in sorted(hints, key=lambda hint: type(given) is not hint):
        try:
            return value(hint, holder, key)
        except RedraftError:
            continue
    names = [_name(hint) for hint in hints if hint is not type(None)]
    return _refused(holder, key, " or ".join(KINDS.get(name, name) for name in names))


def _part(kinds: list[Any], holder: dict[str, Any], key: str) -> Any:
    """The dataclass of one of the `kinds` that a mapping describes; `type` says which, or `preset` a sampler."""
    given = holder[key]
    if "preset" in given:
        name = given["preset"]
        if not isinstance(name, str) or name not in SAMPLERS:
            raise wrong(given, "preset", str(unknown("sampler", str(name), SAMPLERS)))
        return call(SAMPLERS[name], _without(given, "preset"))
    if "type" not in given:
        if len(kinds) != 1:
            names = ", ".join(sorted(map(_name, kinds))) or "a part"
            raise wrong(holder, key, f"{key} needs a `type` ({names}), or a `preset`")
        return call(kinds[0], given)
    known = {_name(kind): kind for kind in kinds}
    if not kinds or "Preset" in known:  # a protocol, or the samplers that a command line can spell
        known |= {part: (module, part) for module, parts in PARTS.items() for part in parts if part not in known}
    name = next((n for n in known if n.lower() == str(given["type"]).lower().replace("-", "")), None)
    if name is None:
        raise wrong(given, "type", str(unknown("type", str(given["type"]), known)))
    kind = known[name]
    if isinstance(kind, tuple):
        kind = getattr(import_module(f"redraft.{kind[0]}"), kind[1])
    return call(kind, _without(given, "type"))


def _typed(holder: dict[str, Any], key: str) -> Map:
    """`holder` where `key` is the name of a type."""
    places = getattr(holder, "places", {})
    return Map({key: Map({"type": holder[key]}, {"type": places.get(key, "")})}, places)


def _sequence(hint: Any, holder: dict[str, Any], key: str) -> Any:
    given, kinds = holder[key], get_args(hint)
    if not isinstance(given, list | tuple):
        return _refused(holder, key, "a list")
    places = getattr(holder, "places", {})
    items = [value(kinds[0], Map({key: item}, places), key) for item in given]
    return tuple(items) if get_origin(hint) is tuple else items


def _without(given: dict[str, Any], key: str) -> Map:
    return Map({k: v for k, v in given.items() if k != key}, getattr(given, "places", {}))


def _refused(holder: dict[str, Any], key: str, wanted: str | None) -> Any:
    raise wrong(holder, key, f"{key} is {holder[key]!r}: it must be {wanted or 'something else'}")


def hints_of(make: Callable[..., Any]) -> dict[str, Any]:
    """The types that a dataclass or an annotated function states, by parameter; none that only a checker can see."""
    try:
        plain = isinstance(make, type) and not is_dataclass(make)
        return get_type_hints(make.__init__ if plain else make)
    except NameError:
        return {}


def _name(hint: Any) -> str:
    return getattr(hint, "__name__", str(hint))


def _first(settings: dict[str, Any]) -> str:
    place = next(iter(getattr(settings, "places", {}).values()), "")
    return f"{place}: " if place else ""
