"""One network evaluation, a schedule, embeddings or pictures of a diffusers pipeline, by its own code.

The pipeline's `__call__` runs with a stand-in for its scheduler: the stand-in names the one timestep that is wanted,
and at the first `step` keeps what the network gave (guidance included) and leaves by an exception of ours. Thus
whatever a pipeline does around its network is done, and none of it is copied here.
"""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from redraft.core.errors import RedraftError

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

    def _set_timesteps(self, *args: Any, **kwargs: Any) -> None:
        self.asked = (args, kwargs)
        if self.timesteps is None:
            raise Enough

    def _step(self, model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, **options: Any) -> Any:
        self.output, self.sample = model_output, sample
        self.options = {k: v for k, v in options.items() if k not in ("generator", "return_dict")}
        raise Enough


def _signed(function: Callable[..., Any], like: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(like)
    def called(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return called


def denoisers(pipeline: Any) -> list[nn.Module]:
    """The networks whose rows are counted."""
    parts = (getattr(pipeline, name, None) for name in DENOISERS)
    return [part for part in parts if isinstance(part, nn.Module)]


def parameters(pipeline: Any) -> list[str]:
    """Names of what the pipeline can be called with."""
    return list(inspect.signature(type(pipeline).__call__).parameters)


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
        stack.enter_context(attributes(pipeline, scheduler=stand_in, _progress_bar_config={"disable": True}))
        if latents is None:
            stack.enter_context(Draws(torch.zeros, name))
        elif "latents" in known:
            given["latents"] = latents
        else:
            stack.enter_context(Draws(lambda shape: latents, name))
        stack.enter_context(torch.no_grad())
        try:
            return pipeline(**given, return_dict=False)
        except Enough:
            return None
        except (RedraftError, torch.OutOfMemoryError):
            raise
        except (TypeError, ValueError, AttributeError, RuntimeError) as error:
            first = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise RedraftError(f"the pipeline {name!r} cannot be called so: {first}") from error


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
    names = _names_of_embeddings(pipeline)
    known = parameters(pipeline)
    if not names:
        raise RedraftError(f"the pipeline {name!r} has no encode_prompt that can be followed: give its embeddings")
    kept: list[Any] = []

    def record(*args: Any, **kwargs: Any) -> Any:
        kept.extend(made if isinstance(made := encode(*args, **kwargs), tuple) else (made,))
        raise Enough

    encode = pipeline.encode_prompt
    options = {key: [v] * len(prompts) if _is_text(key) and isinstance(v, str) else v for key, v in options.items()}
    with attributes(pipeline, encode_prompt=record):
        call(pipeline, StandIn(pipeline.scheduler, None), {}, options | {"prompt": prompts}, None, name)
    found = {key: value for key, value in zip(names, kept, strict=False) if key in known}
    return {key: value for key, value in found.items() if isinstance(value, Tensor) and len(value) == len(prompts)}


def _names_of_embeddings(pipeline: Any) -> list[str]:
    """Variables that the pipeline's `__call__` puts the results of its first `encode_prompt` into, in order."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(type(pipeline).__call__)))
    calls = [
        (node.lineno, node.targets[0])
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Attribute)
        and node.value.func.attr == "encode_prompt"
    ]
    if not calls:
        return []
    target = min(calls, key=lambda pair: pair[0])[1]
    parts = target.elts if isinstance(target, ast.Tuple) else [target]
    return [part.id if isinstance(part, ast.Name) else "" for part in parts]
