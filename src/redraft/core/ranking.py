"""The best few of each row, with as many as each row wants."""

from __future__ import annotations

import torch
from torch import Tensor


def choose(priority: Tensor, where: Tensor, number: Tensor) -> Tensor:
    """The `number` (B,) positions in `where` (B, R) of highest `priority` (B, R), as bool (B, R).

    Fewer where a row has fewer; of equals, the first.
    """
    rank = torch.where(where, priority, -torch.inf).argsort(dim=1, descending=True, stable=True).argsort(1)
    return where & (rank < number[:, None])
