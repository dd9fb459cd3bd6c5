"""Options that take several values: given more than once, all of their values count."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import is_dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

OPTION = re.compile(r"--|-[A-Za-z]")
SUBCOMMAND = re.compile(r"[\w.-]+:[\w-]+")  # such as refine:parallel


def gathered(command: type, argv: Sequence[str]) -> list[str]:
    """`argv` of a command with all values of a list option where it stands first: the parser keeps those of the last.

    `--set a=1 --n 2 --set b=2` becomes `--set a=1 b=2 --n 2`.
    """
    names = [_name(word) for word in argv if word.startswith("--")]
    if len(names) == len(set(names)):
        return [*argv]
    return _merged(argv, list_options(command))


def list_options(command: type) -> set[str]:
    """The last words of those options of a dataclass, and of what its fields may be, that take several values."""
    found: set[str] = set()
    todo: list[Any] = [command]
    seen: set[Any] = set()
    while todo:
        if (kind := todo.pop()) not in seen:
            seen.add(kind)
            hints = get_type_hints(kind)
            found |= {name.replace("_", "-") for name, hint in hints.items() if any(map(_is_list, _kinds(hint)))}
            todo += [part for hint in hints.values() for part in _kinds(hint) if is_dataclass(part)]
    return found


def _kinds(hint: Any) -> Iterator[Any]:
    """What a value of this type may be."""
    if get_origin(hint) is Annotated:
        yield from _kinds(get_args(hint)[0])
    elif get_origin(hint) in (Union, UnionType):
        for part in get_args(hint):
            yield from _kinds(part)
    else:
        yield hint


def _is_list(hint: Any) -> bool:
    return get_origin(hint) is list or (get_origin(hint) is tuple and get_args(hint)[-1] is Ellipsis)


def _merged(argv: Sequence[str], lists: Collection[str]) -> list[str]:
    parts: list[list[str]] = []  # an option with its values, or a word
    first: dict[str, list[str]] = {}
    mine: list[str] | None = None
    for place, word in enumerate(argv):
        if word == "--":
            return [word for part in parts for word in part] + [*argv[place:]]
        name, equals, value = word.partition("=")
        if OPTION.match(word) and _name(word).rpartition(".")[2] in lists:
            if _name(word) not in first:
                parts.append(first.setdefault(_name(word), [name]))
            mine = first[_name(word)]
            mine += [value] if equals else []
        elif mine is None or OPTION.match(word) or SUBCOMMAND.fullmatch(word):
            mine = None
            parts.append([word])
        else:
            mine.append(word)
    return [word for part in parts for word in part]


def _name(word: str) -> str:
    return word.partition("=")[0].removeprefix("--").replace("_", "-")
