"""A digest of every bit of a tensor, at the speed of memory and equal on every device."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor

WORDS = 2**16  # of 8 bytes in a block, which fits a processor's cache
ROWS = 64  # blocks at a time on a GPU


@torch.no_grad()
def bits(tensor: Tensor) -> Any:
    """SHA-256 of the tensor's bytes after its last whole block, and of an exact sum modulo 2^64 of each block before.

    A sum is of a block's words of 8 bytes, each mixed with its place by the finaliser of SplitMix64 (Steele, Lea and
    Flood, "Fast splittable pseudorandom number generators", 2014, with Stafford's numbers; shifts keep the sign here).
    The mixing is one to one, so a change of one word is always seen, and one of several unless 64 bits agree by chance.
    Whole numbers add up alike in any order: the digest is that of the same numbers on any device.
    """
    data = _bytes(tensor)
    whole = len(data) // (8 * WORDS) * 8 * WORDS
    found = hashlib.sha256(data[whole:].cpu().numpy().tobytes())
    if whole:
        at_once = ROWS if data.is_cuda else torch.get_num_threads()
        for rows in torch.split(data[:whole].view(torch.int64).view(-1, WORDS), at_once):
            found.update(_mixed(rows).cpu().numpy().tobytes())
    return found


def _bytes(tensor: Tensor) -> Tensor:
    """All bytes (N,) of a tensor in order, without copying where it can be."""
    plain = tensor.detach()
    plain = plain.as_subclass(Tensor) if plain.layout == torch.strided else plain.to_dense()
    plain = plain.dequantize() if plain.is_quantized else plain
    plain = torch.view_as_real(plain.resolve_conj()) if plain.is_complex() else plain
    flat = plain.resolve_neg().contiguous().flatten()
    flat = flat.as_strided(flat.shape, (1,)).view(torch.uint8)  # of a single number the stride may be any
    return flat.clone() if flat.storage_offset() % 8 else flat


def _mixed(words: Tensor) -> Tensor:
    """Sums (N,) of the mixed words (N, W)."""
    mixed = words + torch.arange(words.shape[1], device=words.device) * _signed(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed ^= mixed >> shift
        mixed *= _signed(factor)
    mixed ^= mixed >> 31
    return mixed.sum(1)


def _signed(word: int) -> int:
    """The number of 64 bits as torch has it."""
    return word - 2**64 if word >= 2**63 else word
