"""Boards drawn with handwritten digits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from redraft.core.errors import RedraftError
from redraft.models.nets.reader import Reader
from redraft.models.weights import SHIPPED, load_network
from redraft.tasks.digits import Digits, distort, load_digits

LEGIBLE = 0.9  # least probability that the reader must give to the true digit


@lru_cache(maxsize=4)
def load_reader(folder: str | Path | None = None, mnist: str | None = None) -> Reader:
    """The reader in `folder`, or the one that ships, which reads scikit-learn's digits.

    Raises:
        RedraftError: MNIST digits without a folder: none ships for them, so that nobody's test digits were trained on.
    """
    if mnist and folder is None:
        raise RedraftError(
            f"boards of MNIST digits need a reader: run 'redraft train reader --mnist {mnist} --out FOLDER' "
            "and give that folder as reader"
        )
    return load_network(Reader, Path(folder or SHIPPED / "reader"))


@dataclass(frozen=True)
class Glyphs:
    """Legible pictures of the digits 1 to 9.

    Attributes:
        images: (N, side, side) in [-1, 1], sorted by digit.
        starts: (10,) where digit d's pictures begin at d - 1 and end at d.
    """

    images: Tensor
    starts: Tensor

    @classmethod
    def legible(cls, digits: Digits, reader: Reader, copies: int = 0, seed: int = 0) -> Glyphs:
        """The digits that the reader reads right with `LEGIBLE` confidence, as the paper keeps the clearest only.

        With `copies` above 0, that many distorted copies of each stand in for the originals (for training).
        """
        sure = reader(digits.images).softmax(-1).gather(1, digits.labels[:, None])[:, 0] >= LEGIBLE
        digits = digits[sure & (digits.labels > 0)]
        if copies:
            generator = torch.Generator().manual_seed(seed)
            images = torch.cat([distort(digits.images, generator) for _ in range(copies)])
            digits = Digits(images, digits.labels.repeat(copies))
        order = digits.labels.argsort(stable=True)
        counts = torch.bincount(digits.labels, minlength=10)[1:]
        if not counts.all():
            raise RedraftError("some digit has no legible picture: train the reader on these digits first")
        return cls(digits.images[order], torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)]))

    def draw(self, boards: Tensor, uniform: Tensor) -> Tensor:
        """Pictures (..., side, side) for boards of digits 1..9 (...), chosen by uniform numbers (...) in (0, 1)."""
        first, last = self.starts[boards - 1], self.starts[boards]
        return self.images[first + (uniform * (last - first)).long()]


@lru_cache(maxsize=4)
def glyphs(split: str, mnist: str | None = None, reader: str | None = None) -> Glyphs:
    """The legible pictures of a split."""
    judge = load_reader(reader, mnist)
    return Glyphs.legible(load_digits(split, mnist), judge)
