"""The best few of each row, and the rows of the best of each group of rows that lie side by side."""

from __future__ import annotations

import torch
from torch import Tensor


def choose(priority: Tensor, where: Tensor, number: Tensor) -> Tensor:
    """The `number` (B,) positions in `where` (B, R) of highest `priority` (B, R), as bool (B, R).

    Fewer where a row has fewer; of equals, the first.
    """
    inside = priority.double().clamp_min(torch.finfo(torch.float64).min)  # -inf is for those outside, which come last
    rank = torch.where(where, inside, -torch.inf).argsort(dim=1, descending=True, stable=True).argsort(1)
    return where & (rank < number[:, None])


def flat(places: Tensor, size: int | None = None) -> Tensor:
    """Rows of the given places within groups of `size` rows that lie side by side, group by group.

    Args:
        places: one of each group (P,), or several (P, K).
        size: rows of a group; K if not given.
    """
    places = places.reshape(len(places), -1)
    first = torch.arange(len(places), device=places.device) * (size or places.shape[1])
    return (places + first[:, None]).flatten()


def best_rows(scores: Tensor, size: int, number: int = 1) -> Tensor:
    """Rows (P * number,) of the best of each `size` rows that lie side by side, best first."""
    return flat(scores.view(-1, size).topk(number, 1).indices, size)
