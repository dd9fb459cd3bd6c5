"""What is being denoised, what a network says of it, and what a method hands out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from redraft.core.rows import Rows


@dataclass(frozen=True, repr=False)
class State(Rows):
    """Rows on their way from noise to clean data.

    Attributes:
        x: values (B, R, *region): the first axis after the rows counts the regions (patches, tokens, or one image).
        t: noise level (B, R) of each region: 1 is pure noise or a mask, 0 is clean.
        frozen: regions (B, R) that are given and never change.
        problem: number (B,) of the problem that each row is a sample for; compute is charged to it.
        cond: what the network is conditioned on, by name, one entry a row.
    """

    x: Tensor
    t: Tensor
    frozen: Tensor
    problem: Tensor
    cond: dict[str, Any] = field(default_factory=dict)

    def to(self, x: Tensor, t: Tensor) -> State:
        """The same rows with other values and levels."""
        return replace(self, x=x, t=t)

    @property
    def free(self) -> Tensor:
        """Regions (B, R) that may change."""
        return ~self.frozen

    @property
    def origin(self) -> Tensor | None:
        """The first region (B,) that is not padding, by `cond["visible"]` (B, R); None if nothing is padded."""
        visible = self.cond.get("visible")
        return None if visible is None else visible.int().argmax(1)


@dataclass(frozen=True, repr=False)
class Prediction(Rows):
    """The posterior over clean data that one network evaluation gives.

    Attributes:
        clean: mean of, or a draw from, the clean data (B, R, *region).
        uncertainty: predicted standard deviation or entropy per region (B, R).
        variance: position in [0, 1] of the reverse step's log standard deviation between the smallest and the largest
            that is sensible (B, R, *region), as learned (Nichol & Dhariwal 2021); None means the smallest.
        logits: of masked models, (B, R, V), at revealed positions too.
        features: what the network's last layer sees (B, R, D), for critics.
    """

    clean: Tensor
    uncertainty: Tensor | None = None
    variance: Tensor | None = None
    logits: Tensor | None = None
    features: Tensor | None = None


@dataclass(frozen=True, repr=False)
class Draft(Rows):
    """A complete sample for every problem, with all that its method needs to go on from it.

    Attributes:
        state: one clean row for each problem.
        number: how many drafts came before; -1 when nothing has been generated yet.
        scores: what the method reports of each draft, by name, (B,) each.
        carry: what the method remembers, by name, one entry a row.
        candidates: what the method tells of the K candidates that it has evaluated since the draft before, by name,
            (B, K) each; see `redraft.methods.candidates`.
    """

    state: State
    number: int = field(default=-1, metadata={"shared": True})
    scores: dict[str, Tensor] = field(default_factory=dict)
    carry: dict[str, Tensor] = field(default_factory=dict)
    candidates: dict[str, Tensor] = field(default_factory=dict)


def expand(per_region: Tensor, x: Tensor) -> Tensor:
    """Values (B, R) shaped to broadcast over `x` (B, R, *region)."""
    return per_region.reshape(per_region.shape + (1,) * (x.ndim - per_region.ndim))


def merge(where: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """`new` in the regions `where` (B, R) is true, `old` bit for bit elsewhere."""
    return torch.where(expand(where, old), new, old)
