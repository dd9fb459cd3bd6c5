"""Marks of values by their content alone: equal in every process, at every start and on every device.

Nothing of a mark comes from addresses, from the order of sets, from where a file was found, or from what a value has
kept of its use. Numbers in tensors count bit by bit, so the same weights in another dtype have another mark.
"""

from __future__ import annotations

import inspect
import io
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property, partial, singledispatch
from hashlib import sha256
from pathlib import PurePath
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from redraft.core.bits import bits
from redraft.core.errors import RedraftError

REMEDY = "give it an attribute `mark`, a text that tells it from others"
UNTOLD = (torch.Generator, random.Random, np.random.Generator, np.random.RandomState, io.IOBase)
SOURCES = {"name_or_path", "_name_or_path", "transformers_version", "hf_device_map", "warnings_issued"}
"""Attributes that say where a value comes from, or was put."""
ADAPTED = {"_active_adapter", "_disable_adapters"}
"""Private attributes of layers that change what they compute, as PEFT has them."""


def content(*values: Any) -> str:
    """Twelve hexadecimal digits that tell values apart by all that they hold.

    - Tensors, arrays and pictures of Pillow: type, shape and every number.
    - Networks: every parameter and buffer, the configuration, and of every layer its class and its public numbers and
      texts, which is where adapters, their scales, FreeU and the like lie; what is packed or scaled by quantisation.
    - Functions: code, defaults, captured values, and the numbers, tensors, networks and functions of the same module
      that the code names; `functools.partial` and methods also what they are bound to.
    - Schedulers and processors of diffusers: class and configuration. Tokenizers: vocabulary and settings.
    - Other objects: class and attributes, but for those that are derived (`cached_property`) or that a dataclass does
      not compare. An object or function with a text `mark` is told by that alone.

    Raises:
        RedraftError: something in them has no content, such as a random generator, a lock or an open file.
    """
    return _Teller().told(values).hex()[:12]


def marked(what: str, value: Any, remedy: str = REMEDY) -> str:
    """The `content` of a value that errors call `what`, and say how to mend by `remedy`.

    Raises:
        RedraftError: it has none.
    """
    try:
        return content(value)
    except _Untold as error:
        raise RedraftError(f"{what} holds {error.thing}, and nothing tells that from another one: {remedy}") from error


class _Untold(RedraftError):
    """Something without content."""

    def __init__(self, thing: str) -> None:
        super().__init__(f"nothing tells {thing} from another one: {REMEDY}")
        self.thing = thing


@dataclass(frozen=True)
class _Parts:
    """What a value is: in words, and what it holds, in order or in any order."""

    words: str
    held: Iterable[Any] = ()
    ordered: bool = True


class _Teller:
    """Digests, where a value that holds itself is told by how far up it is met again."""

    def __init__(self) -> None:
        self._above: list[int] = []
        self._known: dict[int, bytes] = {}  # of what lives as long as the values

    def told(self, value: Any) -> bytes:
        """The digest (32 bytes) of a value."""
        if id(value) in self._known:
            return self._known[id(value)]
        if id(value) in self._above:
            return b"%32d" % (len(self._above) - self._above.index(id(value)))
        self._above.append(id(value))
        parts = _parts(value)
        held = [self.told(part) for part in parts.held]
        self._above.pop()
        found = sha256(b"".join([sha256(parts.words.encode()).digest(), *(held if parts.ordered else sorted(held))]))
        if isinstance(value, FunctionType | nn.Module):
            self._known[id(value)] = found.digest()
        return found.digest()


def _name(kind: Any) -> str:
    return f"{getattr(kind, '__module__', '')}.{getattr(kind, '__qualname__', '')}"


# ---- plain values and containers


@singledispatch
def _parts(value: Any) -> _Parts:
    """Of a value of any other kind."""
    if isinstance(value, UNTOLD):
        raise _Untold(f"a {_name(type(value)).removeprefix('.')}")
    if isinstance(mark := getattr(value, "mark", None), str):  # asked for once: that of a model may take a second
        return _Parts(f"{_name(type(value))} {mark}")
    for is_one, parts in KINDS:
        if is_one(value):
            return parts(value)
    if " at 0x" in repr(value):
        raise _Untold(f"a {_name(type(value))}")
    return _Parts(f"{_name(type(value))} {value!r}")


@_parts.register
def _(value: int | float | complex | str | bytes | PurePath | None) -> _Parts:
    return _Parts(f"{type(value).__name__} {value!r}")


@_parts.register
def _(value: list | tuple | deque) -> _Parts:  # type: ignore[type-arg]
    return _Parts("sequence", value)


@_parts.register
def _(value: Mapping) -> _Parts:  # type: ignore[type-arg]
    return _Parts("mapping", [*value.items()], ordered=False)


@_parts.register
def _(value: Set) -> _Parts:  # type: ignore[type-arg]
    return _Parts("set", value, ordered=False)


@_parts.register
def _(value: np.generic | np.ndarray) -> _Parts:
    if value.dtype == object:
        return _Parts("sequence", value.tolist())
    return _Parts(f"array {value.dtype.str} {value.shape} {sha256(value.tobytes()).hexdigest()}")


@_parts.register
def _(value: Tensor) -> _Parts:
    if value.is_meta:
        raise _Untold("a tensor without numbers, on the device 'meta'")
    if hasattr(value, "__tensor_flatten__"):  # packed by a library of quantisation
        names, settings = value.__tensor_flatten__()
        return _Parts(type(value).__name__, [*((name, getattr(value, name)) for name in names), settings])
    return _Parts(f"tensor {value.dtype} {tuple(value.shape)} {bits(value).hexdigest()}")


# ---- code


@_parts.register
def _(value: FunctionType) -> _Parts:
    if isinstance(mark := getattr(value, "mark", None), str):
        return _Parts(f"function {mark}")
    code = value.__code__
    cells = [cell.cell_contents for cell in value.__closure__ or () if not _empty(cell)]
    given = [code, value.__defaults__, value.__kwdefaults__, cells, dict(_globals(value))]
    return _Parts(f"function {value.__qualname__}", given)


@_parts.register
def _(value: CodeType) -> _Parts:
    return _Parts("code", [value.co_code, value.co_names, value.co_consts])


@_parts.register
def _(value: partial) -> _Parts:  # type: ignore[type-arg]
    return _Parts("partial", [value.func, value.args, value.keywords])


@_parts.register
def _(value: MethodType) -> _Parts:
    return _Parts("method", [value.__self__, value.__func__])


@_parts.register
def _(value: BuiltinFunctionType) -> _Parts:
    return _Parts(f"function {_name(value)}", [value.__self__])


@_parts.register
def _(value: type | ModuleType) -> _Parts:
    return _Parts(f"named {value.__name__ if isinstance(value, ModuleType) else _name(value)}")


def _empty(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - raises
    except ValueError:
        return True
    return False


def _named(code: CodeType) -> set[str]:
    """The names in the code, and in that of the functions inside it."""
    inside = [_named(const) for const in code.co_consts if isinstance(const, CodeType)]
    return set(code.co_names).union(*inside)


def _globals(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """What the code names and lies in its module; what counts there changes with use, so lists and the like do not.

    Functions of other modules are told by their names: they come with a library's version.
    """
    there = function.__globals__
    for name in sorted(_named(function.__code__) & there.keys()):
        value = inspect.unwrap(there[name]) if callable(there[name]) else there[name]
        if isinstance(value, FunctionType):
            yield name, value if value.__module__ == function.__module__ else _name(value)
        elif isinstance(value, int | float | str | tuple | Tensor | np.ndarray | nn.Module) or _scores(value):
            yield name, value


def _scores(value: Any) -> bool:
    """Whether it is an object that is called, such as a verifier, and of a class in Python."""
    return isinstance(inspect.getattr_static(type(value), "__call__", None), FunctionType)


# ---- networks


@_parts.register
def _(value: nn.Module) -> _Parts:
    if hasattr(value, "_orig_mod"):  # compiled
        return _parts(value._orig_mod)
    layers = {
        _plain_name(name): (type(layer).__qualname__, _settings(layer))
        for name, layer in value.named_modules()
        if not hasattr(layer, "_orig_mod")
    }
    return _Parts(f"network {sorted(layers.items())} {_configuration(value)}", [_state(value)])


def _plain_name(name: str) -> str:
    """Of a layer or weight, without what compiling puts into it."""
    return name.replace("_orig_mod.", "").removesuffix("._orig_mod")


def _settings(layer: nn.Module) -> Any:
    """Public numbers and texts of a layer, and of the processor that its attention may have."""
    parts = [vars(layer).get(name) for name in ("processor", "_cache_config")]
    return _plain(vars(layer)), [(type(p).__qualname__, _plain(vars(p))) for p in parts if hasattr(p, "__dict__")]


def _plain(value: Any) -> Any:
    """What of it is numbers and texts; None, and what is empty, may be filled by use and does not count."""
    if isinstance(value, bool | int | float | str | torch.dtype):
        return value
    if isinstance(value, list | tuple):
        return [each for each in map(_plain, value) if each is not None] or None
    if not isinstance(value, Mapping):
        return None
    kept = ((repr(key), _plain(held)) for key, held in value.items() if _counts(key))
    return sorted(((key, held) for key, held in kept if held is not None), key=lambda pair: pair[0]) or None


def _counts(name: Any) -> bool:
    hidden = isinstance(name, str) and (name in SOURCES or name.startswith("_") or "cache" in name)
    return not hidden or name in ADAPTED


def _configuration(value: Any) -> Any:
    """A configuration by name, without its private entries."""
    found: Any = getattr(value, "config", None)
    found = found.to_dict() if hasattr(found, "to_dict") else found
    return _plain(found) if isinstance(found, Mapping) else None


def _state(net: nn.Module) -> dict[str, Any]:
    """Parameters and buffers by name, those that are in no checkpoint and those that are offloaded included."""
    found = dict(net.state_dict())
    found |= {name: value for name, value in net.named_buffers() if name not in found and "cache" not in name}
    for place, layer in net.named_modules():
        elsewhere = getattr(getattr(layer, "_hf_hook", None), "weights_map", None) or {}
        names = [name for name, value in layer.named_parameters(recurse=False) if value.is_meta]
        found |= {f"{place}.{name}".removeprefix("."): elsewhere[name] for name in names if name in elsewhere}
    return {_plain_name(name): value for name, value in found.items()}


# ---- objects


def _object(value: Any) -> _Parts:
    return _Parts(_name(type(value)), [_attributes(value)])


def _attributes(value: Any) -> dict[str, Any]:
    """What an object was given."""
    kind = type(value)
    own = {name: getattr(value, name) for name in _slots(kind) if hasattr(value, name)} | getattr(value, "__dict__", {})
    unequal = {field.name for field in fields(value) if not field.compare} if is_dataclass(value) else set()
    derived = {name for name in own if isinstance(getattr(kind, name, None), cached_property)}
    return {name: held for name, held in own.items() if name not in SOURCES | unequal | derived}


def _slots(kind: type) -> list[str]:
    """Names of the slots of classes in Python."""
    each = [vars(base).get("__slots__", ()) for base in kind.__mro__]
    names = [name for slots in each for name in ([slots] if isinstance(slots, str) else slots)]
    return [name for name in names if name not in ("__dict__", "__weakref__")]


def _tokenizer(value: Any) -> _Parts:
    """The vocabulary and how texts are split; not how the last texts were cut and filled up."""
    names = ("model_max_length", "padding_side", "truncation_side", "chat_template", "special_tokens_map")
    about = [getattr(value, name, None) for name in names]
    rules = getattr(value, "backend_tokenizer", None)
    return _Parts(f"{type(value).__qualname__} {sorted(value.get_vocab().items())}", [*about, *_rules(rules)])


def _rules(backend: Any) -> Iterator[Any]:
    for name in ("normalizer", "pre_tokenizer", "post_processor", "decoder", "model"):
        part = getattr(backend, name, None)
        yield None if part is None else part.__getstate__()


def _configured(value: Any) -> _Parts:
    return _Parts(f"{_name(type(value))} {_configuration(value)}")


def _picture(value: Any) -> _Parts:
    colours = value.getpalette() if value.mode == "P" else None
    return _Parts(f"picture {value.mode} {value.size} {sha256(value.tobytes()).hexdigest()}", [colours])


KINDS: list[tuple[Callable[[Any], bool], Callable[[Any], _Parts]]] = [
    (lambda v: callable(getattr(v, "get_vocab", None)), _tokenizer),
    (lambda v: isinstance(getattr(v, "config", None), Mapping), _configured),
    (lambda v: type(v).__module__.startswith("PIL.") and hasattr(v, "tobytes"), _picture),
    (lambda v: hasattr(v, "__wrapped__"), lambda v: _Parts("wrapped", [v.__wrapped__])),
    (lambda v: hasattr(v, "__dict__") or any(_slots(type(v))), _object),
]
