"""Samples as pictures, with no library of pictures: what a notebook and `redraft sample` show."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Pixels = NDArray[np.uint8]

SIDE = 256  # pixels that small pictures are enlarged to, at most
LINE = 200  # grey of the lines between cells and pictures


def drawn(samples: Tensor, shows: str) -> list[Pixels]:
    """Pictures (H, W, 3) of samples (P, ...) of a model that `shows` boards or pictures.

    Args:
        samples: pictures (P, C, H, W) in [0, 1] of 1 or 3 channels, videos (P, F, C, H, W), of which the first frame is
            taken, or boards (P, 81, side, side) in [-1, 1].
        shows: 'pictures' or 'boards'.
    """
    values = samples.detach().cpu().float()
    values = _boards(values) if shows == "boards" else values[:, 0] if values.ndim == 5 else values
    values = values.clamp(0, 1)[:, :3] if values.shape[1] >= 3 else values.clamp(0, 1)[:, :1].expand(-1, 3, -1, -1)
    return [_enlarged((each.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()) for each in values]


def shrunk(picture: Pixels) -> Pixels:
    """Every so many of the pixels, so that the longer side has `SIDE` at most."""
    step = -(-max(picture.shape[:2]) // SIDE)
    return picture[::step, ::step]


def tiled(pictures: Sequence[Pixels], columns: int = 8) -> Pixels:
    """Pictures of one size side by side in rows."""
    columns = min(columns, len(pictures))
    height, width, _ = pictures[0].shape
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * (height + 2) - 2, columns * (width + 2) - 2, 3), 255, np.uint8)
    for place, picture in enumerate(pictures):
        top, left = place // columns * (height + 2), place % columns * (width + 2)
        sheet[top : top + height, left : left + width] = picture
    return sheet


def png(picture: Pixels) -> bytes:
    """A PNG file of a picture (H, W, 3)."""
    height, width, _ = picture.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    lines = b"".join(b"\0" + line.tobytes() for line in picture)  # each begins with its filter, which is none
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(lines)) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _boards(boards: Tensor) -> Tensor:
    """Boards (P, 1, H, W) in [0, 1], dark on white, of cells (P, 81, side, side) in [-1, 1] between lines."""
    side = boards.shape[-1]
    cells = ((1 - boards) / 2).view(-1, 9, 9, side, side)
    whole = torch.full((len(boards), 1, 9 * (side + 1) + 3, 9 * (side + 1) + 3), LINE / 255)
    starts = [number * (side + 1) + number // 3 + 1 for number in range(9)]
    for row, top in enumerate(starts):
        for column, left in enumerate(starts):
            whole[:, 0, top : top + side, left : left + side] = cells[:, row, column]
    return whole


def _enlarged(picture: Pixels) -> Pixels:
    """The picture with each pixel as a square, as large as `SIDE` lets it be."""
    times = max(1, SIDE // max(picture.shape[:2]))
    return picture.repeat(times, 0).repeat(times, 1)
