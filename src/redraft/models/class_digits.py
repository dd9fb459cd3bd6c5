"""The reference model of the `digits` task: one handwritten digit of a wanted class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from redraft.core.content import content
from redraft.core.errors import RedraftError
from redraft.core.fields import checked, taken
from redraft.core.model import outlined
from redraft.core.state import Prediction, State, expand
from redraft.models.nets.digit import DigitNet
from redraft.models.sudoku import preconditioning
from redraft.models.weights import digest, load_network, pick_device
from redraft.processes.flow import RectifiedFlow

CPU_ROWS = 1024  # rows at a time that fit a processor's cache


@dataclass(frozen=True, repr=False)
class DigitsModel:
    """Handwritten digits by class; a `DigitNet` under rectified flow, the whole picture at one level of noise.

    Samples are pictures (B, 1, side, side) in [0, 1]. `State.cond["label"]` (B,) holds the wanted digits 0..9.

    Attributes:
        net: the network; its device is the model's.
        name: how users call it.
        digest: tells its weights apart.
        scale: of classifier-free guidance, u + scale (c - u) with c and u the clean predictions with and without the
            label; None is without guidance, and other scales cost two evaluations a row.
    """

    net: DigitNet
    name: str = "digits"
    digest: str | None = None
    scale: float | None = None
    process: RectifiedFlow = field(default_factory=RectifiedFlow)
    offers = frozenset({"gradient", "guidance"})
    graph = None
    shows = "pictures"
    dtype = torch.float32

    def __repr__(self) -> str:
        """Class, name and offers."""
        return outlined(self)

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)

    @classmethod
    def load(cls, folder: Path, device: str | None = None, compile: bool = False) -> DigitsModel:
        """The model in a folder that `redraft train digits` wrote; it is too small for `compile` to help."""
        return cls(load_network(DigitNet, folder).to(pick_device(device)), folder.name, digest(folder))

    @property
    def mark(self) -> str:
        """Tells weights and guidance apart."""
        return content(self.net, self.scale)

    @property
    def shape(self) -> tuple[int, ...]:
        """(1, side, side)."""
        side = round(self.net.config["pixels"] ** 0.5)
        return (1, side, side)

    @property
    def nfe_per_row(self) -> int:
        """Evaluations of a row."""
        return 1 if self.scale is None else 2

    def guided(self, scale: float) -> DigitsModel:
        """The model under classifier-free guidance (Ho and Salimans 2022) of the clean prediction.

        Raises:
            RedraftError: the scale is not finite.
        """
        scale = taken("scale", scale, float)
        return replace(self, name=f"{self.name} guided by {scale:g}", scale=scale)

    @property
    def example(self) -> dict[str, Tensor]:
        """What the network is conditioned on, for one row."""
        return {"label": torch.zeros(1, dtype=torch.int64)}

    def condition(self, prompts: Sequence[Any]) -> dict[str, Tensor]:
        """`label` (P,) of prompts that are digits.

        Raises:
            RedraftError: one is none.
        """
        classes = self.net.config["classes"]
        for prompt in prompts:
            if isinstance(prompt, bool) or not isinstance(prompt, int) or not 0 <= prompt < classes:
                raise RedraftError(f"{self.name!r} draws the digits 0 to {classes - 1}, and {prompt!r} is none of them")
        return {"label": torch.tensor(prompts)}

    def predict(self, state: State) -> Prediction:
        """The clean picture that the network expects, of each row.

        Raises:
            RedraftError: the rows have no labels, or one that is no digit.
        """
        label = self._labels(state)
        clean = self._clean(state, label)
        if self.scale is not None:
            without = self._clean(state, torch.full_like(label, self.net.config["classes"]))
            clean = without + self.scale * (clean - without)
        return Prediction(clean)

    def decode(self, x: Tensor) -> Tensor:
        """Pictures in [0, 1] of clean values, which lie in [-1, 1]."""
        return (x.clamp(-1, 1) + 1) / 2

    def encode(self, samples: Tensor) -> Tensor:
        """Clean values of pictures in [0, 1]."""
        return 2 * samples - 1

    def _clean(self, state: State, label: Tensor) -> Tensor:
        z, t = state.x.flatten(1), state.t[:, 0]
        size = CPU_ROWS if z.device.type == "cpu" else max(1, len(z))
        rows = zip(torch.split(z, size), torch.split(t, size), torch.split(label, size), strict=True)
        raw = torch.cat([self.net(*part) for part in rows]).view_as(state.x)
        skip, out = preconditioning(state.t)
        return expand(skip, state.x) * state.x + expand(out, state.x) * raw

    def _labels(self, state: State) -> Tensor:
        label, classes = state.cond.get("label"), self.net.config["classes"]
        if label is None:
            raise RedraftError(f"{self.name!r} draws digits of a class: give the problems cond['label'] (P,)")
        if not bool(((label >= 0) & (label < classes)).all()):
            raise RedraftError(f"{self.name!r} draws the digits 0 to {classes - 1}: a label is none of them")
        found: Tensor = label
        return found
