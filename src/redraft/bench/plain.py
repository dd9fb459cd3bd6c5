"""YAML and JSON as plain values; those of YAML remember their lines, so that an error can say where it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from redraft.core.build import Map, plain
from redraft.core.errors import RedraftError, require, said
from redraft.core.files import text_of

LARGEST = 1_000_000  # characters of an experiment, with all aliases written out
LONG = 80  # characters of a change that errors repeat
DEEPEST = 50  # mappings and lists inside of each other


def read(path: Path) -> Map:
    """The mapping that a YAML file holds.

    Scalars are read as in YAML 1.2's core schema: `on` and `no` are words, `1e-3` is a number.

    Raises:
        RedraftError: the file cannot be read, is no YAML, holds no mapping, or is larger than an experiment can be.
    """
    try:
        text = text_of(path, LARGEST)
    except (OSError, ValueError) as error:
        raise RedraftError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    yaml = require("yaml", "bench")
    try:
        found = _parsed(text, path.name)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path.name}:{mark.line + 1}" if mark else path.name
        raise RedraftError(f"{place}: this is no YAML: {getattr(error, 'problem', None) or said(error)}") from error
    if not isinstance(found, Map):
        raise RedraftError(f"{path.name}: an experiment is a mapping of keys to values")
    return found


def _parsed(text: str, name: str) -> Any:
    """The value that a YAML text of this name holds, if it is no larger and no deeper than an experiment can be."""
    yaml = require("yaml", "bench")
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except RecursionError as error:
        raise _too_deep(name) from error
    length, depth = _extent(node, name, {}) if node else (0, 0)
    if depth > DEEPEST:
        raise _too_deep(name)
    if length > LARGEST:
        raise RedraftError(f"{name}: with its aliases written out it has more than {LARGEST:,d} characters")
    return _plain(node, name)


def _extent(node: Any, name: str, known: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """Characters and levels of what a node stands for; a node that has several aliases is looked at once."""
    if isinstance(node.value, str):
        return 1 + len(node.value), 1
    if id(node) not in known:
        known[id(node)] = None  # under way
        pairs = [part if isinstance(part, tuple) else (part,) for part in node.value]
        parts = [_extent(part, name, known) for pair in pairs for part in pair]
        known[id(node)] = 1 + sum(length for length, _ in parts), 1 + max((depth for _, depth in parts), default=0)
    if (found := known[id(node)]) is None:
        raise RedraftError(f"{name}:{node.start_mark.line + 1}: an alias stands inside of what it stands for")
    return found


def _too_deep(name: str) -> RedraftError:
    return RedraftError(f"{name}: it has more than {DEEPEST} mappings and lists inside of each other")


def merged(base: Any, over: Any) -> Any:
    """`base` with what `over` says in its place: mappings key by key, all else as a whole."""
    if not isinstance(base, dict) or not isinstance(over, dict):
        return over
    values = {
        key: merged(base[key], over[key]) if key in base and key in over else (over if key in over else base)[key]
        for key in base | over
    }
    return Map(values, getattr(base, "places", {}) | getattr(over, "places", {}))


def changed(base: Map, change: str) -> Map:
    """`base` with what `change` says, such as `problems.n=4`: keys by dots, and a value as YAML has it.

    Raises:
        RedraftError: it is not of that form.
    """
    path, equals, text = change.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise RedraftError(f"{change[:LONG]!r} changes nothing: write a key and a value, such as problems.n=4")
    if len(keys) > DEEPEST:
        raise _too_deep("--set")
    place = change if len(change) <= LONG else f"{change[:LONG]}..."
    try:
        over = _parsed(text, place)
    except require("yaml", "bench").YAMLError as error:
        raise RedraftError(f"{place!r} has a value that is no YAML") from error
    for key in reversed(keys):
        over = Map({key: over}, {key: place})
    found: Map = merged(base, over)
    return found


def canonical(value: Any) -> str:
    """JSON in one spelling."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _plain(node: Any, name: str) -> Any:
    kind = type(node).__name__
    if kind == "MappingNode":
        return _mapping(node, name)
    if kind == "SequenceNode":
        return [_plain(item, name) for item in node.value]
    return None if node is None else _scalar(node)


def _mapping(node: Any, name: str) -> Map:
    values: dict[str, Any] = {}
    places: dict[str, str] = {}
    for key, value in node.value:
        if not isinstance(key.value, str):
            raise RedraftError(f"{name}:{key.start_mark.line + 1}: a key must be a word, no list or mapping")
        word, place = key.value, f"{name}:{key.start_mark.line + 1}"
        if word in values:
            raise RedraftError(f"{place}: {word!r} stands here a second time, first at {places[word]}")
        values[word], places[word] = _plain(value, name), place
    return Map(values, places)


def _scalar(node: Any) -> Any:
    return node.value if node.style is not None else plain(node.value)  # quoted, or a block of text
