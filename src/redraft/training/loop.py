"""The loop that every recipe runs in: seeded steps, moving average, checkpoints, progress."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol

import torch
from annotated_types import Ge
from safetensors import SafetensorError
from torch import Tensor, nn
from tqdm.auto import tqdm

from redraft.core.errors import RedraftError, said
from redraft.core.fields import taken
from redraft.core.files import prepare
from redraft.core.progress import interval
from redraft.core.sealed import seal, unseal
from redraft.core.signals import held

Loss = Callable[[int], dict[str, Tensor]]


class Sized(Protocol):
    """What a recipe's size is read off: the name of a preset, and what is asked for instead of it."""

    @property
    def preset(self) -> str:
        """The preset's name."""

    @property
    def steps(self) -> int | None:
        """Optimiser steps, None for the preset's."""

    @property
    def batch(self) -> int | None:
        """Rows a step, None for the preset's."""


def sizes(presets: dict[str, tuple[int, int]], settings: Sized) -> tuple[int, int]:
    """Steps and batch of a recipe."""
    steps, batch = presets[settings.preset]
    return (
        steps if settings.steps is None else settings.steps,
        batch if settings.batch is None else settings.batch,
    )


def check(settings: Any, **least: int) -> None:
    """See, before anything is prepared, that a recipe can be run: its sizes and its folder.

    Args:
        settings: of the recipe, a dataclass; what is None is not looked at.
        least: what settings are at least, where the recipe asks for more than their annotations.

    Raises:
        RedraftError: a setting has no meaning, or the folder `out` cannot be written.
    """
    for name, bound in least.items():
        if (value := getattr(settings, name)) is not None:
            taken(name, value, Annotated[int, Ge(bound)])
    prepare(settings.out)


def compiles() -> bool:
    """Whether there is the compiler that `torch.compile` needs."""
    return shutil.which("c++") is not None


@dataclass(frozen=True)
class Schedule:
    """How a network is optimised.

    Attributes:
        steps: optimiser steps in all.
        rate: peak learning rate of AdamW, after `warmup` steps, held until it falls linearly to 0.
        warmup: steps of linear rise.
        decay: share of the steps, at the end, over which the rate falls.
        average: decay of the exponential moving average of the weights.
        every: seconds between checkpoints.
    """

    steps: int
    rate: float = 3e-3
    warmup: int = 200
    decay: float = 0.4
    average: float = 0.999
    every: float = 60.0

    def rate_at(self, step: int) -> float:
        """The learning rate of a step."""
        fall = (self.steps - step) / max(1, self.decay * self.steps)
        return self.rate * min(1.0, (step + 1) / self.warmup, fall)


def fit(
    net: nn.Module, loss: Loss, schedule: Schedule, checkpoint: Path | None, title: str, about: object = None
) -> nn.Module:
    """Train `net` and return it with the averaged weights.

    `loss(step)` gives the terms of the loss, by name; all it draws must follow from the step's number, so that a run
    that was stopped goes on as if it had not been. With a checkpoint, Ctrl-C (and what
    `redraft.core.signals.ending` takes as that) first ends the step and saves it, unless
    it is the first step, which may wait for a compiler; a second one interrupts at once.

    Args:
        net: trained in place.
        loss: the terms (scalars) to sum.
        schedule: steps and rates.
        checkpoint: a safetensors file to go on from and to write to, or None.
        title: of the progress bar.
        about: settings, whose `repr` tells a checkpoint of other training apart.

    Raises:
        RedraftError: the checkpoint cannot be written, is damaged or of other training, or the loss is not finite.
        KeyboardInterrupt: after Ctrl-C and the like.
    """
    if checkpoint:
        prepare(checkpoint.parent)
    told = f"{schedule} {about!r}"
    optimizer = torch.optim.AdamW(net.parameters(), schedule.rate, betas=(0.9, 0.98), weight_decay=0.01)
    average = {name: value.detach().clone() for name, value in net.state_dict().items()}
    first = _resume(net, optimizer, average, checkpoint, told, schedule.steps)
    bar = tqdm(total=schedule.steps, initial=first, desc=title, dynamic_ncols=True, mininterval=interval())
    shown: dict[str, float] = {}
    saved = time.monotonic()
    with bar, held(lambda: bool(checkpoint and shown)) as asked:
        for step in range(first, schedule.steps):
            for group in optimizer.param_groups:
                group["lr"] = schedule.rate_at(step)
            terms = loss(step)
            total = torch.stack(list(terms.values())).sum()
            if not total.isfinite():
                raise RedraftError(f"the loss is {total.item()} at step {step}: lower the learning rate")
            optimizer.zero_grad(set_to_none=True)
            total.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            _average(average, net, min(schedule.average, (step + 1) / (step + 10)))
            shown = {n: 0.98 * shown.get(n, v.item()) + 0.02 * v.item() for n, v in terms.items()}
            bar.update()
            if step % 20 == 0:
                bar.set_postfix({name: f"{value:.3f}" for name, value in shown.items()}, refresh=False)
            stop, now = bool(asked), time.monotonic()
            if checkpoint and (stop or now - saved > schedule.every or step + 1 == schedule.steps):
                _save(net, optimizer, average, {"step": json.dumps(step + 1), "about": told}, checkpoint)
                saved = now
            if stop:
                bar.write(f"{title}: interrupted at step {step + 1}; the same command goes on", file=sys.stderr)
                raise KeyboardInterrupt
    net.load_state_dict(average)
    return net.eval()


def settled(settings: Any) -> dict[str, Any]:
    """The settings of a recipe, a dataclass, that its weights follow from."""
    others = ("out", "device", "compile", "evaluate", "preset", "steps")  # a schedule has the steps
    return {name: value for name, value in vars(settings).items() if name not in others}


def _average(average: dict[str, Tensor], net: nn.Module, decay: float) -> None:
    for name, value in net.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - decay)
        else:
            average[name].copy_(value)


def _save(
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: dict[str, Tensor],
    about: dict[str, str],
    path: Path,
) -> None:
    state = optimizer.state_dict()["state"]
    tensors = {f"net.{k}": v for k, v in net.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in average.items()}
    tensors |= {f"optimizer.{i}.{k}": v for i, slots in state.items() for k, v in slots.items()}
    try:
        seal(path, tensors, about)
    except (OSError, SafetensorError) as error:
        raise RedraftError(f"the checkpoint {path} cannot be written: {said(error)}") from error


def _resume(
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: dict[str, Tensor],
    path: Path | None,
    told: str,
    most: int,
) -> int:
    """Load a checkpoint if there is one; the step to go on with, `most` after the last."""
    if path is None or not path.exists():
        return 0
    try:
        tensors, about = unseal(path)
        step = json.loads(about["step"])
        same = about["about"] == told
        if same:
            _check(tensors, net, step, most)
    except Exception as error:
        raise RedraftError(f"{path} is damaged; delete it to start over: {said(error)}") from error
    if not same:
        raise RedraftError(f"{path} is of training with other settings: delete it or choose another folder")
    net.load_state_dict({k.removeprefix("net."): v for k, v in tensors.items() if k.startswith("net.")})
    for name, value in average.items():
        value.copy_(tensors[f"average.{name}"])
    slots: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, slot = name.split(".")
            slots.setdefault(int(index), {})[slot] = value
    optimizer.load_state_dict(optimizer.state_dict() | {"state": slots})
    return int(step)


def _check(tensors: dict[str, Tensor], net: nn.Module, step: Any, most: int) -> None:
    """Raise unless these can be the weights, averages and moments of `net` after a step."""
    if type(step) is not int or not 0 < step <= most:
        raise ValueError(f"it is of step {step} of {most}")
    wanted = {f"{group}.{name}": v for group in ("net", "average") for name, v in net.state_dict().items()}
    for number, parameter in enumerate(net.parameters()):
        moments = {f"optimizer.{number}.{slot}": parameter for slot in ("exp_avg", "exp_avg_sq")}
        known = f"optimizer.{number}.step" in tensors  # none for what has no gradient
        wanted |= moments | {f"optimizer.{number}.step": torch.zeros(())} if known else {}
    if set(tensors) != set(wanted):
        raise ValueError(f"{min(set(tensors) ^ set(wanted))!r} is missing or unknown")
    for name, value in wanted.items():
        there, finite = tensors[name], tensors[name].isfinite().all() or not value.isfinite().all()
        if (there.shape, there.dtype) != (value.shape, value.dtype) or not finite:
            raise ValueError(f"{name!r} cannot be of this network")
