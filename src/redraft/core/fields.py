"""Fields of dataclasses and arguments of functions, held to what their annotations say.

    steps: Annotated[int, Ge(1)] = 50                a whole number, within bounds of `annotated_types`
    ratio: Annotated[float, Interval(gt=0, le=1)]    a finite number; with `INFINITE` infinity too
    noise: Literal["fresh", "fixed"]                 one of these words
    order: Annotated[str, Among(ORDERS)]             one of the words that a table has
    reward: Reward                                   one of these; of a protocol, whatever has its methods

A dataclass calls `checked(self)` first in its `__post_init__`, a function has the decorator `checks`. Numbers of numpy
and torch are taken and kept as Python's, a whole number where any is asked for, a list for a tuple; a truth is no
number. What is refused is refused in a sentence that says which field it is and what it must be.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache, reduce, wraps
from math import isinf
from pathlib import Path
from typing import Annotated, Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Interval, Le, Lt, MinLen

from redraft.core.errors import RedraftError, shown, unknown

P = ParamSpec("P")
R = TypeVar("R")
Take = Callable[[Any], Any]
"""Gives the value as it is kept, or raises what says what it must be."""

MOST = 2**24 - 1
"""The largest whole number where no bound is stated: what is counted here is made one by one, or held in memory."""
FEW = 8
"""So many words are listed."""
UNSAID = {"random", "remembers"}
"""What parts of one's own need not say of themselves."""
INFINITE = "may be infinite"
"""Beside the bounds of a number that may also be infinite."""
Count = Annotated[int, Ge(1)]
Number = Annotated[int, Ge(0)]
Ceiling = Annotated[int, Interval(ge=1, le=2**63 - 1)]
Seed = Annotated[int, Interval(ge=0, le=2**31 - 1)]
Positive = Annotated[float, Gt(0)]
Temperature = Annotated[float, Gt(0), INFINITE]
AtLeast0 = Annotated[float, Ge(0)]
Share = Annotated[float, Interval(ge=0, le=1)]
BelowOne = Annotated[float, Interval(ge=0, lt=1)]
Part = Annotated[float, Interval(gt=0, le=1)]
Inside = Annotated[float, Interval(gt=0, lt=1)]


@dataclass(frozen=True, eq=False)
class Among:
    """Beside `str`: one of the words of a table, which errors call by the field's name, or as `kind` says."""

    words: Collection[str]
    kind: str = ""


@dataclass(frozen=True)
class Like:
    """Beside a union of classes: whatever has the methods of one of some protocols will do.

    Attributes:
        protocols: that have the methods; what has those of none is held against the last.
        such: an example, in words.
    """

    protocols: tuple[Any, ...]
    such: str = ""


class _No(Exception):
    """A value is refused: what it must be, in words; of an unknown word also the known ones, and what they are."""

    def __init__(self, words: str, known: Collection[str] = (), kind: str = "") -> None:
        super().__init__(words)
        self.words, self.known, self.kind = words, known, kind


def checked(settings: Any) -> None:
    """Keep each field of a dataclass in the form that its annotation states.

    Raises:
        RedraftError: a value has another type, or lies outside of the bounds.
    """
    for name, take in _of_class(settings.__class__).items():
        given = getattr(settings, name)
        kept = _taken(name, given, take)
        if kept is not given:
            object.__setattr__(settings, name, kept)


def checks(make: Callable[P, R]) -> Callable[P, R]:
    """The function, whose arguments are held to their annotations; those without one are anything."""
    signature = inspect.signature(make)

    @wraps(make)
    def held(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise RedraftError(f"{make.__name__}: {error}") from error
        bound.arguments |= arguments(make, bound.arguments)
        return make(*bound.args, **bound.kwargs)

    return held


def arguments(make: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The `given` arguments of a function as its annotations have them.

    Raises:
        RedraftError: one has another type, or lies outside of its bounds.
    """
    takes = _of_function(make)
    return {name: _taken(name, value, takes[name]) if name in takes else value for name, value in given.items()}


def taken(name: str, given: Any, hint: Any) -> Any:
    """What is `given` under a name, as the `hint` has it.

    Raises:
        RedraftError: it has another type, or lies outside of the bounds.
    """
    return _taken(name, given, _taker(hint))


def _taken(name: str, given: Any, take: Take) -> Any:
    try:
        return take(given)
    except _No as no:
        if no.known:
            raise unknown(no.kind or name, _plain(given), no.known) from None
        raise RedraftError(f"{name} is {shown(_plain(given))}: it must be {no.words}") from None


@cache
def _of_class(kind: Any) -> dict[str, Take]:
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: _taker(hints[field.name]) for field in fields(kind) if field.init}


@cache
def _of_function(make: Any) -> dict[str, Take]:
    hints = get_type_hints(getattr(make, "__init__") if isinstance(make, type) else make, include_extras=True)  # noqa: B009
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    single = [name for name, p in inspect.signature(make).parameters.items() if p.kind not in several]
    return {name: _taker(hints[name]) for name in single if name in hints}


def _taker(hint: Any, rules: tuple[Any, ...] = ()) -> Take:
    """What takes the values of a hint, with the rules that stand beside it."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _taker(args[0], (*args[1:], *rules))
    if like := next((rule for rule in rules if isinstance(rule, Like)), None):
        return reduce(_like, (_made(protocol, like.such) for protocol in like.protocols), _taker(hint))
    if origin in (Union, types.UnionType):
        return _one_of([_taker(each, rules) for each in args if each is not types.NoneType], types.NoneType in args)
    if origin is Literal:
        return _word(args)
    if origin is tuple and Ellipsis not in args:
        return _few([*map(_taker, args)])
    if origin in (tuple, list, Sequence):
        return _many(list if origin is list else tuple, _taker(args[0]), rules)
    if origin in (dict, Mapping) or hint is dict:
        return _instance(Mapping, "a mapping")
    if origin is Callable:
        return _function(len(args[0]) if isinstance(args[0], list) else None)
    return _simple(hint, rules)


def _simple(hint: Any, rules: tuple[Any, ...]) -> Take:
    among = next((rule for rule in rules if isinstance(rule, Among)), None)
    if among:
        return _known(among)
    if hint is Any or hint is object:
        return lambda value: value
    if hint in (int, float):
        return _number(hint, rules)
    if hint in (bool, str, Path):
        return {bool: _truth, str: _text, Path: _path}[hint]
    if getattr(hint, "_is_protocol", False):
        return _made(hint)
    return _instance(hint, _named(hint)) if isinstance(hint, type) else lambda value: value


def _number(kind: type, rules: tuple[Any, ...]) -> Take:
    """A number of a kind within bounds."""
    bounds = [bound for rule in rules for bound in (rule if isinstance(rule, Interval) else [rule])]
    low = next((b for b in bounds if isinstance(b, Ge | Gt)), None)
    high = next((b for b in bounds if isinstance(b, Le | Lt)), None)
    return _whole(low, high or Le(MOST)) if kind is int else _real(low, high, INFINITE in rules)


def _whole(low: Any, high: Any) -> Take:
    words = _words("a whole number", _near(low), _near(high))

    def take(value: Any) -> int:
        number = _plain(value)
        if not isinstance(number, int) or isinstance(number, bool):
            raise _No(words)
        if not _above(number, low):
            raise _No(words if _near(low) else f"{words}, {_edge(low)} at least")
        if not _below(number, high):
            raise _No(words if _near(high) else f"{words}, {_edge(high)} at most")
        return number

    return take


def _near(bound: Any) -> Any:
    """The bound, unless it is so far out that it need not be told beforehand."""
    return bound if bound is None or abs(_edge(bound)) < MOST else None


def _edge(bound: Any) -> Any:
    return next(getattr(bound, name) for name in ("ge", "gt", "le", "lt") if hasattr(bound, name))


def _real(low: Any, high: Any, infinite: bool) -> Take:
    words = _words("a number", low, high) + ", or infinity" * infinite

    def take(value: Any) -> float:
        number = _measured(_plain(value), words, infinite)
        if not (_above(number, low) and _below(number, high)):
            raise _No(words)
        return number

    return take


def _measured(number: Any, words: str, infinite: bool) -> float:
    if not isinstance(number, int | float) or isinstance(number, bool) or number != number:
        raise _No(words)
    try:
        value = float(number)
    except OverflowError:
        raise _No(words) from None
    if isinf(value) and not infinite:
        raise _No(words)
    return value


def _above(number: Any, low: Any) -> bool:
    return low is None or bool(number >= low.ge if isinstance(low, Ge) else number > low.gt)


def _below(number: Any, high: Any) -> bool:
    return high is None or bool(number <= high.le if isinstance(high, Le) else number < high.lt)


def _words(what: str, low: Any, high: Any) -> str:
    if low is None and high is None:
        return what if "whole" in what else "a finite number"
    if high is None:
        return f"{what} of {low.ge} or more" if isinstance(low, Ge) else f"{what} above {low.gt}"
    if low is None:
        return f"{what} of {high.le} or less" if isinstance(high, Le) else f"{what} below {high.lt}"
    if "whole" in what:
        return f"{what} from {low.ge} to {high.le}"
    begin = f"[{low.ge}" if isinstance(low, Ge) else f"({low.gt}"
    return f"{what} in {begin}, " + (f"{high.le}]" if isinstance(high, Le) else f"{high.lt})")


def _plain(value: Any) -> Any:
    """Python's own number or text where `value` is one of numpy, of torch or of an enumeration."""
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        try:
            return value.item()
        except (RuntimeError, NotImplementedError):  # a tensor without data
            return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return int.__int__(value) if isinstance(value, int) else float.__float__(value)
    return str.__str__(value) if isinstance(value, str) else value


def _truth(value: Any) -> bool:
    truth = _plain(value)
    if not isinstance(truth, bool):
        raise _No("True or False")
    return truth


def _text(value: Any) -> str:
    text = str(value) if isinstance(value, Path) else _plain(value)
    if not isinstance(text, str):
        raise _No("a text")
    return text


def _path(value: Any) -> Path:
    if not isinstance(value, str | Path) or not str(value):
        raise _No("a path")
    return Path(value)


def _function(number: int | None) -> Take:
    """What can be called with so many arguments, and is no class."""
    words = "a function" if number is None else f"a function of {number} argument{'s' * (number > 1)}"

    def take(value: Any) -> Any:
        if not callable(value) or isinstance(value, type) or not _callable_with(value, number):
            raise _No(words)
        return value

    return take


def _callable_with(function: Callable[..., Any], number: int | None) -> bool:
    try:
        inspect.signature(function).bind(*range(number or 0))
    except TypeError:
        return number is None
    except ValueError:  # of what is built in nothing is known
        return True
    return True


def _word(words: Sequence[Any]) -> Take:
    """One of the words of a literal, or of its numbers."""

    def take(value: Any) -> Any:
        word = _plain(value)
        if any(type(word) is type(each) and word == each for each in words):
            return word
        raise _strange(word, words)

    return take


def _known(among: Among) -> Take:
    def take(value: Any) -> Any:
        word = _plain(value)
        if isinstance(word, str) and word in among.words:
            return word
        raise _strange(word, [*among.words], among.kind)

    return take


def _strange(word: Any, words: Sequence[Any], kind: str = "") -> _No:
    near = words if isinstance(word, str) and all(isinstance(each, str) for each in words) else ()
    listed = map(repr, words if len(words) <= FEW else words[:FEW])
    return _No(_either([*listed, *["another of their kind"] * (len(words) > FEW)]), near, kind)


def _either(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


def _listed(value: Any) -> Iterable[Any] | None:
    """What a list, a tuple, or an array of one dimension holds."""
    if getattr(value, "ndim", None) == 1 and hasattr(value, "tolist"):
        return list(value.tolist())
    return value if isinstance(value, list | tuple | range) else None


def _many(kind: type, take: Take, rules: tuple[Any, ...]) -> Take:
    least = max((rule.min_length for rule in rules if isinstance(rule, MinLen)), default=0)

    def takes(value: Any) -> Any:
        items = _listed(value)
        if items is None:
            raise _No(_each(take))
        try:
            kept = kind(take(item) for item in items)
        except _No as no:
            raise _No(f"a list, each item {no.words}") from None
        if len(kept) < least:
            raise _No("a list that is not empty")
        same = type(value) is kind and all(a is b for a, b in zip(items, kept, strict=True))
        return value if same else kept

    return takes


def _each(take: Take) -> str:
    try:
        take(_No)
    except _No as no:
        return f"a list, each item {no.words}"
    return "a list"


def _few(takes: Sequence[Take]) -> Take:
    def take(value: Any) -> Any:
        items = _listed(value)
        given = None if items is None else [*items]
        if given is None or len(given) != len(takes):
            raise _No(f"a list of {len(takes)}")
        return tuple(each(item) for each, item in zip(takes, given, strict=True))

    return take


def _one_of(takes: Sequence[Take], empty: bool) -> Take:
    """What one of several takes; None too if it may be `empty`."""

    def take(value: Any) -> Any:
        if value is None and empty:
            return None
        refusals = []
        for each in takes:
            try:
                return each(value)
            except _No as no:
                refusals.append(no)
        words = _either(dict.fromkeys(no.words for no in refusals)) + ", or None" * empty
        only = refusals[0] if len(refusals) == 1 else _No("")
        raise _No(words, only.known, only.kind)

    return take


def _like(ours: Take, own: Take) -> Take:
    """What `ours` takes, or what one's `own` parts are taken by, which then says what is asked for."""

    def take(value: Any) -> Any:
        try:
            return ours(value)
        except _No:
            return own(value)

    return take


def _made(protocol: Any, such: str = "") -> Take:
    """A part of one's own or of ours: whatever has the methods and attributes of a protocol, and is no class."""
    bases = [base for base in protocol.__mro__ if getattr(base, "_is_protocol", False)]
    found = {
        name for base in bases for name, held in vars(base).items() if callable(held) or isinstance(held, property)
    }
    members = sorted(name for name in found - UNSAID if not name.startswith("_") or name == "__call__")
    words = _named(protocol) + (f", such as {such}" if such else "")
    number = len(inspect.signature(protocol.__call__).parameters) - 1 if "__call__" in members else 0

    def take(value: Any) -> Any:
        missing = [name for name in members if not hasattr(type(value), name) and not hasattr(value, name)]
        if isinstance(value, type):
            raise _No(f"{words}: write {value.__name__}(...)")
        if missing:
            raise _No(words if len(missing) == len(members) else f"{words}, and it has no `{missing[0]}`")
        if number and not _callable_with(value, number):
            raise _No(f"{words}, which takes {number} argument{'s' * (number > 1)}")
        return value

    return take


def _instance(kind: Any, words: str) -> Take:
    def take(value: Any) -> Any:
        if not isinstance(value, kind):
            raise _No(words)
        return value

    return take


def _named(kind: Any) -> str:
    name = kind.__name__
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"
