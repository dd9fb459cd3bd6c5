"""Handwritten digits to draw boards with: scikit-learn's 8x8 set, or MNIST's 28x28.

Pictures of the training and of the test split never mix. scikit-learn's set is in order of the writer, so the split by
index also keeps most writers apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from redraft.core.errors import RedraftError, require
from redraft.tasks.idx import read_folder


@dataclass(frozen=True)
class Digits:
    """Pictures of handwritten digits: `images` (N, side, side) in [-1, 1], `labels` (N,) in 0..9."""

    images: Tensor
    labels: Tensor

    def __getitem__(self, rows: Tensor | slice) -> Digits:
        """The pictures at `rows`."""
        return Digits(self.images[rows], self.labels[rows])

    def __len__(self) -> int:
        """How many there are."""
        return len(self.labels)

    @property
    def side(self) -> int:
        """Height and width of a picture in pixels."""
        return self.images.shape[-1]


def load_digits(split: str, mnist: str | None = None) -> Digits:
    """Digits of one split, `"train"` or `"test"`.

    Args:
        split: four fifths of the pictures are for training, the last fifth for tests.
        mnist: None for scikit-learn's digits, a folder with MNIST's IDX files, or `"download"` to fetch MNIST through
            scikit-learn's `fetch_openml`.

    Raises:
        RedraftError: unknown split, or no sound MNIST files in the folder.
    """
    if split not in ("train", "test"):
        raise RedraftError(f"unknown split {split!r}: use 'train' or 'test'")
    digits = _scikit_learn() if mnist is None else _openml() if mnist == "download" else _idx_folder(Path(mnist))
    cut = len(digits) * 4 // 5
    return digits[:cut] if split == "train" else digits[cut:]


def _scikit_learn() -> Digits:
    data = require("sklearn.datasets", extra="sudoku").load_digits()
    return Digits(torch.tensor(data.images).float() / 8 - 1, torch.tensor(data.target).long())


def _openml() -> Digits:
    fetch: Callable[..., tuple[Any, Any]] = require("sklearn.datasets", extra="mnist").fetch_openml
    images, labels = fetch("mnist_784", return_X_y=True, as_frame=False, parser="liac-arff")
    pixels = torch.tensor(images).float().reshape(-1, 28, 28)
    return Digits(pixels / 127.5 - 1, torch.tensor(labels.astype("int64")))


def _idx_folder(folder: Path) -> Digits:
    """All MNIST pictures in `folder`, train files before test files."""
    pixels, labels = read_folder(folder)
    return Digits(pixels.float() / 127.5 - 1, labels.long())


def distort(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each picture (N, side, side) a little rotated, sheared, scaled and shifted, for training; background stays -1."""
    n, side = images.shape[0], images.shape[-1]
    draw = torch.rand(n, 5, generator=generator) * 2 - 1
    angle, shear, zoom = 0.15 * draw[:, 0], 0.15 * draw[:, 1], 1 + 0.1 * draw[:, 2]
    shift = draw[:, 3:] / side
    cos, sin = zoom * angle.cos(), zoom * angle.sin()
    affine = torch.stack(
        [torch.stack([cos, shear - sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)],
        1,
    )
    grid = F.affine_grid(affine, [n, 1, side, side], align_corners=False)
    return F.grid_sample(images[:, None] + 1, grid, align_corners=False)[:, 0] - 1
