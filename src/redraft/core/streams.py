"""Random streams by (seed, problem, chain, step): vectorised, the same in every batch and on every device.

Numbers come from Philox4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011), a
function of a key and a counter with no state: a row has a key, `fold` derives another key from it and a number or name,
and every draw is a function of the key alone. A key is meant for one draw: fold first, then draw.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from math import prod, tau

import torch
from torch import Tensor

from redraft.core.rows import Rows

_WORD = 0xFFFFFFFF
_FOLD, _DRAW = 0, 1


def philox(counter: Tensor, key: Tensor) -> Tensor:
    """Philox4x32-10: `counter` (..., 4) and `key` (..., 2), 32-bit words in int64, to four random words (..., 4)."""
    c0, c1, c2, c3 = counter.unbind(-1)
    k0, k1 = key.unbind(-1)
    for _ in range(10):
        # int64 products wrap, which leaves their low 64 bits, so both 32-bit halves are exact
        low, high = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = (
            ((high >> 32) & _WORD) ^ c1 ^ k0,
            high & _WORD,
            ((low >> 32) & _WORD) ^ c3 ^ k1,
            low & _WORD,
        )
        k0, k1 = (k0 + 0x9E3779B9) & _WORD, (k1 + 0xBB67AE85) & _WORD
    return torch.stack([c0, c1, c2, c3], -1)


@dataclass(frozen=True, repr=False)
class Streams(Rows):
    """One random stream for each row.

    Attributes:
        key: Philox keys (B, 2), 32-bit words in int64.
        origin: the region (B,) that is counted as the first, so that padding before it changes no number; None is 0.
    """

    key: Tensor
    origin: Tensor | None = None

    @classmethod
    def root(cls, seed: int, ids: Tensor) -> Streams:
        """The streams of problems with the given `ids` (B,) under `seed`."""
        words = torch.tensor([seed & _WORD, (seed >> 32) & _WORD], device=ids.device)
        return cls(words.expand(len(ids), 2)).fold(ids)

    def fold(self, tag: int | str | Tensor) -> Streams:
        """Streams derived by a number, a name, or one number for each row (B,)."""
        if isinstance(tag, str):
            tag = zlib.crc32(tag.encode())
        tags = torch.as_tensor(tag, device=self.key.device).expand(len(self))
        zero = torch.zeros_like(tags)
        counter = torch.stack([tags & _WORD, (tags >> 32) & _WORD, zero, zero + _FOLD], -1)
        return replace(self, key=philox(counter, self.key)[:, :2])

    def at(self, origin: Tensor | None) -> Streams:
        """The same streams with regions counted from `origin` (B,)."""
        return replace(self, origin=origin)

    def split(self, chains: int) -> Streams:
        """`chains` streams in place of each, side by side."""
        chain = torch.arange(chains, device=self.key.device).repeat(len(self))
        return self.repeat(chains).fold("chain").fold(chain)

    def uniform(self, shape: tuple[int, ...], where: Tensor | None = None) -> Tensor:
        """Uniform numbers in (0, 1), float64 with 52 bits.

        Args:
            shape: (R, *region), the shape of a row.
            where: regions (B, R) to draw for; the others are skipped, and their absence changes no number.

        Returns:
            (B, R, *region), or (A, *region) for the A regions in `where`, row by row.
        """
        words = self._words(shape, 2, where)
        bits = (words[..., 0::2] << 20) | (words[..., 1::2] >> 12)
        return _shaped((bits.double() + 0.5) * 2.0**-52, shape, where, len(self))

    def normal(self, shape: tuple[int, ...], where: Tensor | None = None) -> Tensor:
        """Standard normal numbers by Box and Muller, float32; arguments and shapes as in `uniform`."""
        # float64 inside: transcendental functions that differ by a last bit between devices then round to one float32
        uniform = (self._words(shape, 1, where).double() + 0.5) * 2.0**-32
        radius = (-2 * uniform[..., 0::2].log()).sqrt()
        angle = tau * uniform[..., 1::2]
        pairs = torch.stack([radius * angle.cos(), radius * angle.sin()], -1).flatten(-2)
        return _shaped(pairs, shape, where, len(self)).float()

    def gumbel(self, shape: tuple[int, ...], where: Tensor | None = None) -> Tensor:
        """Standard Gumbel numbers, float64; arguments and shapes as in `uniform`."""
        return -(-self.uniform(shape, where).log()).log()

    def _words(self, shape: tuple[int, ...], each: int, where: Tensor | None) -> Tensor:
        """Random words (A, at least `each` a number): Philox blocks counted by region, then within the region."""
        blocks = -(-prod(shape[1:]) * each // 4)
        if where is None:
            where = torch.ones(len(self), shape[0], dtype=torch.bool, device=self.key.device)
        row, region = where.nonzero(as_tuple=True)
        block = torch.arange(blocks, device=row.device).expand(len(row), blocks)
        if self.origin is not None:
            region = (region - self.origin[row]) & _WORD
        regions = region[:, None].expand_as(block)
        counter = torch.stack([block, regions, torch.zeros_like(block), torch.full_like(block, _DRAW)], -1)
        return philox(counter, self.key[row][:, None]).flatten(1)


def _shaped(numbers: Tensor, shape: tuple[int, ...], where: Tensor | None, rows: int) -> Tensor:
    numbers = numbers[:, : prod(shape[1:])]
    return numbers.reshape((rows, *shape) if where is None else (len(numbers), *shape[1:]))
