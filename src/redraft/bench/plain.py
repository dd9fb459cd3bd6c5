"""YAML as plain values that remember their lines, so that an error can say where it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from redraft.core.build import Map, plain
from redraft.core.errors import RedraftError, require, said
from redraft.core.files import regular


def read(path: Path) -> Map:
    """The mapping that a YAML file holds.

    Scalars are read as in YAML 1.2's core schema: `on` and `no` are words, `1e-3` is a number.

    Raises:
        RedraftError: the file cannot be read, is no YAML, or holds no mapping.
    """
    yaml = require("yaml", "bench")
    try:
        node = yaml.compose(regular(path).read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        found = _plain(node, path.name)
    except (OSError, UnicodeDecodeError) as error:
        raise RedraftError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except RecursionError as error:
        raise RedraftError(f"{path.name}: an alias stands inside of what it stands for") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path.name}:{mark.line + 1}" if mark else path.name
        raise RedraftError(f"{place}: this is no YAML: {getattr(error, 'problem', None) or said(error)}") from error
    if not isinstance(found, Map):
        raise RedraftError(f"{path.name}: an experiment is a mapping of keys to values")
    return found


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
        raise RedraftError(f"{change!r} changes nothing: write a key and a value, such as problems.n=4")
    yaml = require("yaml", "bench")
    try:
        over = _plain(yaml.compose(text, Loader=yaml.SafeLoader), change)
    except yaml.YAMLError as error:
        raise RedraftError(f"{change!r} has a value that is no YAML") from error
    for key in reversed(keys):
        over = Map({key: over}, {key: change})
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
        word, place = str(key.value), f"{name}:{key.start_mark.line + 1}"
        if word in values:
            raise RedraftError(f"{place}: {word!r} stands here a second time, first at {places[word]}")
        values[word], places[word] = _plain(value, name), place
    return Map(values, places)


def _scalar(node: Any) -> Any:
    return node.value if node.style is not None else plain(node.value)  # quoted, or a block of text
