"""The networks that judge single digits; see `redraft.training.judges` for what each was trained on."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from redraft.core.errors import RedraftError, unknown
from redraft.models.nets.judge import Judge
from redraft.models.weights import SHIPPED, load_network

JUDGES = ("guide", "held-out", "label-free")
ROWS = 1024  # pictures at a time


@lru_cache(maxsize=8)
def load_judge(name: str, folder: str | Path | None = None, mnist: str | None = None) -> Judge:
    """One of `JUDGES`, from the folder that `redraft train digits-judges` wrote, or as it ships.

    Raises:
        RedraftError: an unknown judge; or MNIST digits without a folder, as none ships for them.
    """
    if name not in JUDGES:
        raise unknown("judge", name, JUDGES)
    if mnist and folder is None:
        raise RedraftError(
            f"MNIST digits need judges of their own: run 'redraft train digits-judges --mnist {mnist} --out FOLDER' "
            "and give that folder as judges"
        )
    return load_network(Judge, Path(folder or SHIPPED / "digits-judges") / name)


def logits(judge: Judge, pictures: Tensor) -> Tensor:
    """Logits (N, 10) of pictures (N, 1 or 3, side, side) in [0, 1]."""
    return torch.cat([judge(part) for part in torch.split(_seen(judge, pictures), ROWS)])


def features(judge: Judge, pictures: Tensor) -> Tensor:
    """Features (N, D) of pictures (N, 1 or 3, side, side) in [0, 1]."""
    return torch.cat([judge.features(part) for part in torch.split(_seen(judge, pictures), ROWS)])


def _seen(judge: Judge, pictures: Tensor) -> Tensor:
    """Pictures (N, side, side) in [-1, 1] on the judge's device; the first channel stands for all."""
    side = judge.config["side"]
    if pictures.ndim != 4 or tuple(pictures.shape[2:]) != (side, side):
        raise RedraftError(f"the judge reads pictures of {side} x {side} pixels, not {tuple(pictures.shape)}")
    return 2 * pictures[:, 0].to(next(judge.parameters()).device) - 1
