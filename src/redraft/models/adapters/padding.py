"""Rows of several lengths in one batch: what hides the padding, so that it changes no row's result.

`State.cond["visible"]` (B, R) is false at padding, which stands on the left; where it is absent, everything is visible.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from redraft.core.errors import RedraftError
from redraft.core.state import State
from redraft.models.tokens import Forward

Call = Callable[[Tensor], tuple[Tensor, Tensor | None]]


def hidden_by(state: State) -> Tensor | None:
    """Which tokens (B, R) are visible, or None if all are.

    Raises:
        RedraftError: there is padding after the first visible token, or a row of nothing else.
    """
    visible: Tensor | None = state.cond.get("visible")
    if visible is None or bool(visible.all()):
        return None
    if not bool(visible[:, -1].all()) or bool((visible[:, :-1] & ~visible[:, 1:]).any()):
        raise RedraftError("padding must stand on the left of every row, as `redraft.prompts` places it")
    return visible


def positions(visible: Tensor) -> Tensor:
    """Position (B, R) of each visible token among the visible ones of its row, from 0; 0 at padding."""
    return (visible.long().cumsum(1) - 1).clamp_min(0)


def pairs(visible: Tensor) -> Tensor:
    """Which keys each query may look at (B, 1, R, R).

    A padded query looks at itself, as a softmax over nothing is NaN.
    """
    both = visible[:, None, :, None] & visible[:, None, None, :]
    return both | torch.eye(visible.shape[1], dtype=torch.bool, device=visible.device)


def blocks(visible: Tensor, size: int) -> Tensor:
    """As `pairs`, for attention within blocks of `size` visible tokens and to the blocks before."""
    block = positions(visible) // size
    return pairs(visible) & (block[:, None, :, None] >= block[:, None, None, :])


def by_length(call: Call) -> Forward:
    """Rows with equally much padding go through `call` together and without it: exact for any network."""

    def forward(x: Tensor, state: State) -> tuple[Tensor, Tensor | None]:
        visible = hidden_by(state)
        if visible is None:
            return call(x)
        pad = (~visible).sum(1)
        parts = {n: call(x[pad == n, n:]) for n in pad.unique().tolist()}  # type: ignore[no-untyped-call]
        logits = _scattered({n: logits for n, (logits, _) in parts.items()}, pad, x)
        shown = {n: features for n, (_, features) in parts.items() if features is not None}
        return logits, _scattered(shown, pad, x) if shown else None

    return forward


def _scattered(parts: dict[int, Tensor], pad: Tensor, x: Tensor) -> Tensor:
    first = next(iter(parts.values()))
    whole = first.new_zeros(*x.shape, first.shape[-1])
    for n, part in parts.items():
        whole[pad == n, n:] = part
    return whole
