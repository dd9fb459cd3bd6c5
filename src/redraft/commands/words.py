"""Between Python and the command line: errors in the words of options, and the line that runs a command again."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cache
from types import NoneType
from typing import Any, get_args, get_type_hints

from redraft.core.registry import METHODS
from redraft.samplers import Parallel, Preset, Scheduled, Sequential

SAMPLERS = {kind.__name__: kind for kind in (Parallel, Preset, Scheduled, Sequential)}
PHRASES = {
    r"give run\(\.\.\., verifier=\.\.\.\)": "give --verifier, a name from `redraft list`",
    r"leave verifier=None": "leave --verifier out",
    r"give the method sampler=": "choose ",
    r"the budget of (\d+) NFE is too small for one draft of problem \d+, which takes (\d+) NFE": (
        r"--budget \1 is too small for one draft, which takes \2 NFE: give --budget \2 or more, or fewer steps"
    ),
    r"(needs a model that offers '[^']+'; [^:]*)$": r"\1: choose another --model, or another method",
    r"(the problems have values of shape .*, but '.*' works on .*)$": r"\1: choose a --task that suits --model",
}
"""What Python users are told, as a pattern, and what is said on the command line instead."""
SPOKEN = ("budget", "method", "model", "task", "verifier")
"""What these words speak of: a command that has no such option is not told of it."""
VALUE = r"'[^']*'|-?\d+(?:\.\d+)?(?:e-?\d+)?|True|False|None|\([^()]*\)"


@dataclass(frozen=True)
class Options:
    """The options of a command, by the names that Python has for them.

    Attributes:
        argv: as they were given.
        own: names of the command's own settings.
        parts: settings of methods are options too, and samplers and other parts are subcommands.
    """

    argv: Sequence[str]
    own: frozenset[str]
    parts: bool = False

    def said(self, sentence: str) -> str:
        """An error's sentence with options and subcommands in place of Python's calls.

        So `Parallel(50, path="vp")` is 'sampler:parallel --sampler.steps 50 --sampler.path vp', or '--steps 50 --path
        vp' of a command that has these options itself.
        """
        for pattern, words in PHRASES.items():
            if self.own.issuperset(name for name in SPOKEN if name in words):
                sentence = re.sub(pattern, words, sentence)
        sentence = re.sub(r"(?:(\w+)=)?(?:redraft\.)?\b([A-Z]\w+)\(([^()]*)\)", self._part, sentence)
        sentence = re.sub(rf"(?<![\w.'-])(\w+)=({VALUE})", self._setting, sentence)
        sentence = re.sub(r"^(\w+)(?= (?:is|are) )", lambda m: self._option(m[1]) or m[1], sentence)
        if not self.parts:
            return sentence
        sentence = re.sub(rf"(?<![\w.:'])({'|'.join(SAMPLERS)})\b", lambda m: f"sampler:{_kebab(m[1])}", sentence)
        return re.sub(r"\b[A-Z]\w*[a-z]\w*\b", lambda m: _classes().get(m[0], m[0]), sentence)

    def _part(self, found: re.Match[str]) -> str:
        """A part, as in `select=Blame(0.1)`, in words; what is none, or has no plain values, stays."""
        holder, name, kind = found[1] or "sampler", found[2], SAMPLERS.get(found[2])
        if kind is None and not (found[1] and self.parts):
            return found[0]
        try:
            given = _arguments(f"{name}({found[3]})", kind)
        except (SyntaxError, ValueError):
            return found[0]
        prefix = f"{holder}." if self.parts else ""
        said = [f"--{_kebab(prefix + key)} {_spelled(value)}" for key, value in given]
        return " ".join([f"{_kebab(holder)}:{_kebab(name)}"] * self.parts + said)

    def _setting(self, found: re.Match[str]) -> str:
        option = self._option(found[1])
        return found[0] if option is None else f"{option} {_spelled(ast.literal_eval(found[2]))}"

    def _option(self, name: str) -> str | None:
        """The option that sets what Python calls `name`: as it was given, or where it is; None if there is none."""
        word = _kebab(name)
        given = (option.partition("=")[0] for option in self.argv if option.startswith("--"))
        found = next((option for option in given if option == f"--{word}" or option.endswith(f".{word}")), None)
        if found is None and (name in self.own or (self.parts and name in _settings())):
            found = f"--{word}"
        if found is None and self.parts and any(name in _names(kind) for kind in SAMPLERS.values()):
            found = f"--sampler.{word}"
        return found


def _arguments(call: str, kind: Any) -> list[tuple[str, Any]]:
    """Names and values of the arguments of a call, those by place named as the dataclass `kind` has them.

    Raises:
        ValueError: an argument is no plain value.
        SyntaxError: nor anything else of Python.
    """
    node = ast.parse(call, mode="eval").body
    assert isinstance(node, ast.Call)
    given = list(zip(_names(kind) if kind else [], node.args, strict=False))
    given += [(str(each.arg), each.value) for each in node.keywords]
    return [(name, ast.literal_eval(value)) for name, value in given]


def _names(kind: Any) -> list[str]:
    return [each.name for each in fields(kind)]


@cache
def _settings() -> frozenset[str]:
    """Names of the settings of all methods that ship."""
    return frozenset(name for method in _classes().values() for name in _names(METHODS[method]))


@cache
def _classes() -> dict[str, str]:
    """Names of the methods that ship, by their classes'."""
    own = {name: target for name, target in METHODS.targets().items() if target.startswith("redraft.")}
    return {target.partition(":")[2]: name for name, target in own.items()}


def _kebab(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).replace("_", "-").lower()


def _spelled(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


# --- The line that runs a command again ---------------------------------------------------------


def line(words: Sequence[str], *parts: Any, without: Sequence[str] = ()) -> str:
    """The command line of `words` and of all settings of `parts`, each a dataclass or the name of a subcommand."""
    told = list(words)
    for part in parts:
        told += [part] if isinstance(part, str) else _told(part, "", without)
    return shlex.join(told)


def _told(part: Any, prefix: str, without: Sequence[str] = ()) -> Iterator[str]:
    """Options, then subcommands with theirs."""
    hints = get_type_hints(type(part))
    held = [(each, getattr(part, each.name)) for each in fields(part) if each.init and each.name not in without]
    chosen = [(each, value) for each, value in held if _is_choice(hints[each.name])]
    for each, value in held:
        name = _kebab(prefix + each.name)
        if is_dataclass(value) and not _is_choice(hints[each.name]):
            yield from _told(value, f"{prefix}{each.name}.")
        elif not _is_choice(hints[each.name]) and not _is_left_out(each, value):
            yield from _words(name, value)
    for each, value in chosen:
        name = f"{prefix}{each.name}"
        yield f"{_kebab(name)}:{'none' if value is None else _kebab(type(value).__name__)}"
        yield from () if value is None else _told(value, f"{name}.")


def _is_choice(hint: Any) -> bool:
    """Whether a setting is one of several dataclasses, or one that may be None."""
    kinds = [kind for kind in get_args(hint) if isinstance(kind, type)]
    return any(map(is_dataclass, kinds)) and all(is_dataclass(kind) or kind is NoneType for kind in kinds)


def _is_left_out(setting: Field[Any], value: Any) -> bool:
    """Whether it is nothing, and nothing is what it is by default."""
    return value in (None, ()) and setting.default is not MISSING and setting.default == value


def _words(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [f"--{'' if value else 'no-'}{name}"]
    return [f"--{name}", *(map(str, value) if isinstance(value, tuple) else [str(value)])]
