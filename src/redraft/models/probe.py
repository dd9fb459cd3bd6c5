"""One network evaluation, a schedule, embeddings or pictures of a diffusers pipeline, by its own code.

The pipeline's `__call__` runs with a stand-in for its scheduler: the stand-in names the one timestep that is wanted,
and at the first `step` keeps what the network gave (guidance included) and leaves by an exception of ours. Thus
whatever a pipeline does around its network is done, and none of it is copied here.
"""

from __future__ import annotations

import ast
import functools
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from redraft.core.errors import RedraftError, said
from redraft.core.memory import out_of_memory

DENOISERS = ("transformer", "transformer_2", "unet", "prior")


class Enough(Exception):
    """What was wanted of the pipeline is known."""


class Draws(TorchFunctionMode):
    """Inside, normal numbers come from `draw(shape)` instead of torch's generators; other random numbers are refused.

    Args:
        draw: the shape to numbers.
        who: how the error calls what asked.
    """

    def __init__(self, draw: Callable[[tuple[int, ...]], Tensor], who: str) -> None:
        """See the class."""
        super().__init__()
        self._draw, self._who = draw, who

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Torch's function, or our numbers."""
        kwargs = kwargs or {}
        if func is torch.randn:
            shape = kwargs.get("size", args[0] if args and not isinstance(args[0], int) else args)
            return self._draw(tuple(shape)).to(device=kwargs.get("device"), dtype=kwargs.get("dtype"))
        if func is torch.randn_like:
            return self._draw(tuple(args[0].shape)).to(args[0])
        if func in (torch.rand, torch.rand_like, torch.randint, torch.normal, torch.Tensor.normal_):
            raise RedraftError(f"{self._who} draws other than normal numbers, which cannot follow a run's seed")
        return func(*args, **kwargs)


class StandIn:
    """The stand-in for a scheduler.

    Attributes:
        timesteps: those that the pipeline is to walk.
        asked: arguments of its last `set_timesteps`.
        scaled: whether the pipeline read `init_noise_sigma`, and so multiplies its noise by it.
        drawn: shape of the noise that it began with, if it drew it.
        output: what the network gave, guidance included.
        sample: the latents that it was for.
        options: the pipeline's own arguments of `step`.
    """

    order = 1

    def __init__(self, scheduler: Any, timesteps: Tensor | None) -> None:
        """For `scheduler`; without timesteps the pipeline is left when it asks for its schedule."""
        self._scheduler, self.timesteps = scheduler, timesteps
        self.asked: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})
        self.scaled, self.options = False, dict[str, Any]()
        self.drawn = torch.Size()
        self.output = self.sample = torch.empty(0)
        # pipelines look at the signatures to know what they may pass
        self.set_timesteps = _signed(self._set_timesteps, scheduler.set_timesteps)
        self.step = _signed(self._step, scheduler.step)

    def __getattr__(self, name: str) -> Any:
        """Whatever the scheduler has."""
        return getattr(self._scheduler, name)

    @property
    def init_noise_sigma(self) -> float:
        """1: states are kept at unit variance."""
        self.scaled = True
        return 1.0

    def scale_model_input(self, sample: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The sample, which has unit variance already."""
        return sample

    def set_begin_index(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: there is no index."""

    def blank(self, shape: tuple[int, ...]) -> Tensor:
        """Zeros in place of the noise that the pipeline draws."""
        self.drawn = self.drawn or torch.Size(shape)
        return torch.zeros(shape)

    def _set_timesteps(self, *args: Any, **kwargs: Any) -> None:
        self.asked = (args, kwargs)
        if self.timesteps is None:
            raise Enough

    def _step(self, model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, **options: Any) -> Any:
        self.output, self.sample = model_output, sample
        self.options = {k: v for k, v in options.items() if k not in ("generator", "return_dict")}
        raise Enough


def _signed(function: Callable[..., Any], like: Any) -> Callable[..., Any]:
    """The function with the signature of the method `like`."""

    def called(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    called.__signature__ = _signature(like.__func__)  # type: ignore[attr-defined]
    return called


@functools.cache
def _signature(method: Callable[..., Any]) -> inspect.Signature:
    signature = inspect.signature(method)
    return signature.replace(parameters=list(signature.parameters.values())[1:])  # without self


def denoisers(pipeline: Any) -> list[nn.Module]:
    """The networks whose rows are counted."""
    parts = (getattr(pipeline, name, None) for name in DENOISERS)
    return [part for part in parts if isinstance(part, nn.Module)]


def encoders(pipeline: Any) -> dict[str, nn.Module]:
    """The networks that read prompts, by the names of the pipeline's attributes."""
    parts = vars(pipeline).items()
    return {name: part for name, part in parts if name.startswith("text_encoder") and isinstance(part, nn.Module)}


def held(pipeline: Any) -> list[Any]:
    """All that a call's outcome follows from besides its arguments: its parts, its settings and its scheduler's state.

    Private attributes are what the last call left.
    """
    parts = {name: part for name, part in vars(pipeline).items() if not name.startswith("_")}
    settings = {name: value for name, value in pipeline.config.items() if not name.startswith("_")}
    changed = [vars(pipeline.scheduler).get(name) for name in ("_shift", "alphas_cumprod")]  # whatever was configured
    return [type(pipeline).__name__, parts, settings, changed]


def device_of(net: nn.Module) -> torch.device:
    """Where a network's weights are."""
    return next(net.parameters()).device


def move(nets: dict[str, nn.Module], device: str | torch.device) -> None:
    """Move networks, but not those that accelerate moves by itself."""
    for net in nets.values():
        if not hasattr(net, "_hf_hook"):
            net.to(device)


@contextmanager
def encoders_at(pipeline: Any, device: torch.device | None) -> Iterator[None]:
    """The text encoders at `device` inside, and back on the CPU afterwards; where they are if None."""
    if device is None:
        yield
        return
    move(encoders(pipeline), device)
    try:
        yield
    finally:
        move(encoders(pipeline), "cpu")


def parameters(pipeline: Any) -> list[str]:
    """Names of what the pipeline can be called with."""
    return _parameters(type(pipeline).__call__)


@functools.cache
def _parameters(function: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(function).parameters)


@dataclass(frozen=True)
class Cut:
    """A prompt that is longer than a tokenizer of a pipeline takes.

    Attributes:
        tokenizer: name of its class.
        tokens: of the prompt.
        most: that it takes.
    """

    tokenizer: str
    tokens: int
    most: int


def cuts(pipeline: Any, text: str) -> list[Cut]:
    """Where a pipeline cuts a prompt off; of tokenizers without a length of their own the call's default is taken."""
    found = []
    most = inspect.signature(type(pipeline).__call__).parameters.get("max_sequence_length")
    for name, tokenizer in vars(pipeline).items():
        if not name.startswith("tokenizer") or not callable(tokenizer):
            continue
        takes = int(tokenizer.model_max_length)
        if most is not None and isinstance(most.default, int) and "CLIP" not in type(tokenizer).__name__:
            takes = min(takes, most.default)
        tokens = len(tokenizer(text, truncation=False, verbose=False).input_ids)
        found += [Cut(type(tokenizer).__name__, tokens, takes)] if tokens > takes else []
    return found


@contextmanager
def attributes(thing: Any, **values: Any) -> Iterator[None]:
    """Attributes of `thing` for a while, behind the back of its own `__setattr__`."""
    own = vars(thing)
    before = {name: own[name] for name in values if name in own}
    own.update(values)
    try:
        yield
    finally:
        for name in values:
            own.pop(name)
        own.update(before)


@contextmanager
def counted_rows(pipeline: Any) -> Iterator[list[int]]:
    """Rows of every network evaluation inside, in a list that grows."""
    rows: list[int] = []

    def count(net: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tensors = [v for v in (*args, kwargs.get("hidden_states"), kwargs.get("sample")) if isinstance(v, Tensor)]
        rows.append(len(tensors[0]) if tensors else 1)

    handles = [net.register_forward_pre_hook(count, with_kwargs=True) for net in denoisers(pipeline)]
    try:
        yield rows
    finally:
        for handle in handles:
            handle.remove()


def call(
    pipeline: Any, stand_in: Any, cond: dict[str, Tensor], options: dict[str, Any], latents: Tensor | None, name: str
) -> Any:
    """What the pipeline gives with `stand_in` for its scheduler, or None if that left it early.

    Args:
        pipeline: of diffusers.
        stand_in: see there.
        cond: of the rows, by the names of the pipeline's arguments.
        options: further arguments.
        latents: of the rows (B, *latent), or None for zeros.
        name: how errors call the pipeline.

    Raises:
        RedraftError: the pipeline refuses its arguments.
    """
    known = parameters(pipeline)
    given = _arguments(known, cond, options)
    with ExitStack() as stack:
        stack.enter_context(attributes(pipeline, scheduler=stand_in))
        stack.enter_context(_quick(pipeline, encodes=not cond))
        if latents is None:
            stack.enter_context(Draws(stand_in.blank, name))
        elif "latents" in known:
            given["latents"] = latents
        else:
            stack.enter_context(Draws(lambda shape: latents, name))
        stack.enter_context(torch.no_grad())
        try:
            return pipeline(**given, return_dict=False)
        except Enough:
            return None
        except RedraftError:
            raise
        except (TypeError, ValueError, AttributeError, AssertionError, IndexError, RuntimeError) as error:
            if out_of_memory(error):
                raise
            raise RedraftError(f"the pipeline {name!r} cannot be called so: {said(error)}") from error


@contextmanager
def _quick(pipeline: Any, encodes: bool) -> Iterator[None]:
    """The pipeline without a progress bar, and on its denoiser's device unless it `encodes`.

    Pipelines search all modules of all their parts for the device, at every call, and take the first part's for their
    own, which may be a text encoder elsewhere. Where weights may come to a GPU by hooks they are left to find it.
    """
    net, device = denoisers(pipeline)[0], device_of(denoisers(pipeline)[0])
    kind: Any = type(pipeline)
    moves = hasattr(net, "_hf_hook") or (device.type == "cpu" and torch.accelerator.is_available())
    pipeline.__class__ = _silent(kind) if encodes or moves else _placed(kind)
    try:
        with attributes(pipeline, _redraft_device=device):
            yield
    finally:
        pipeline.__class__ = kind


class _NoBar:
    """In place of a progress bar."""

    def __enter__(self) -> _NoBar:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def update(self, steps: int = 1) -> None:
        pass


@functools.cache
def _silent(kind: type) -> type:
    def progress_bar(self: Any, iterable: Any = None, total: int | None = None) -> Any:
        return _NoBar() if iterable is None else iterable

    return type(kind.__name__, (kind,), {"progress_bar": progress_bar})


@functools.cache
def _placed(kind: type) -> type:
    return type(kind.__name__, (_silent(kind),), {"_execution_device": property(lambda self: self._redraft_device)})


def _arguments(known: list[str], cond: dict[str, Tensor], options: dict[str, Any]) -> dict[str, Any]:
    """The arguments: class numbers as a list, and no text beside the embeddings that were made of it."""
    given = options
    if cond:
        given = {key: value for key, value in options.items() if not _is_text(key)}
        given |= {"negative_prompt": None} if "negative_prompt_embeds" in cond and "negative_prompt" in known else {}
    numbers = {key: value.tolist() for key, value in cond.items() if key == "class_labels"}
    return given | cond | numbers


def _is_text(argument: str) -> bool:
    return argument.rstrip("_0123456789") in ("prompt", "negative_prompt")


def encoded(pipeline: Any, prompts: list[str], options: dict[str, Any], name: str) -> dict[str, Tensor]:
    """What the pipeline's own `encode_prompt` gives for `prompts`, by the names of the pipeline's arguments.

    Raises:
        RedraftError: the pipeline encodes no prompts, or in a way that cannot be followed.
    """
    known, encode, found = parameters(pipeline), getattr(pipeline, "encode_prompt", None), dict[str, Any]()
    lines = _lines_of_embeddings(pipeline)
    if encode is None or not lines:
        raise RedraftError(f"the pipeline {name!r} has no encode_prompt that can be followed: give its embeddings")

    def record(*args: Any, **kwargs: Any) -> Any:
        made = encode(*args, **kwargs)
        names = lines.get(sys._getframe(1).f_lineno, [])
        found.update(zip(names, made if isinstance(made, tuple) else (made,), strict=False))
        return made

    options = {key: [v] * len(prompts) if _is_text(key) and isinstance(v, str) else v for key, v in options.items()}
    with attributes(pipeline, encode_prompt=record):
        call(pipeline, StandIn(pipeline.scheduler, None), {}, options | {"prompt": prompts}, None, name)
    if any(isinstance(value, list) for value in found.values()):
        raise RedraftError(f"the pipeline {name!r} keeps embeddings of different lengths in lists: it is not supported")
    for key in [key for key, value in found.items() if value is None and key.endswith("_mask")]:
        found[key] = torch.ones(found[key.removesuffix("_mask")].shape[:2], dtype=torch.long)  # all tokens count
    return {key: v for key, v in found.items() if key in known and isinstance(v, Tensor) and len(v) == len(prompts)}


def _lines_of_embeddings(pipeline: Any) -> dict[int, list[str]]:
    """Lines of the pipeline's file where its `__call__` encodes prompts, each with the variables for what it gets."""
    function = inspect.unwrap(type(pipeline).__call__)
    before = function.__code__.co_firstlineno - 1
    lines: dict[int, list[str]] = {}
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function)))):
        if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Call):
            continue
        if getattr(node.value.func, "attr", "") == "encode_prompt":
            parts = getattr(node.targets[0], "elts", [node.targets[0]])
            names = [part.id if isinstance(part, ast.Name) else "" for part in parts]
            lines |= {before + line: names for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)}
    return lines
