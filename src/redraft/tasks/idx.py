"""MNIST's IDX files: unsigned bytes behind a header that says how many (LeCun, Cortes, Burges)."""

from __future__ import annotations

import gzip
import struct
import zlib
from io import BufferedReader
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from redraft.core.errors import RedraftError
from redraft.core.files import regular

MOST = 2**28  # bytes of a file once unpacked; MNIST's own have 47 million at most


def read(path: Path, axes: int) -> Tensor:
    """The bytes of an IDX file of so many axes: two zero bytes, type 8, the number of axes, their sizes, the data.

    Nothing is unpacked beyond what the header says.

    Raises:
        RedraftError: it cannot be read, is not of that form, or has more or less data than its header says.
    """
    try:
        with _opened(path) as file:
            head = file.read(4 + 4 * axes)
            if head[:4] != bytes([0, 0, 8, axes]) or len(head) < 4 + 4 * axes:
                raise RedraftError(f"{path} is not an IDX file of bytes with {axes} axes")
            shape = struct.unpack(f">{axes}I", head[4:])
            count = prod(shape)
            if not 0 < count <= MOST:
                raise RedraftError(f"{path} says that it holds {count:,d} bytes: MNIST's files hold 1 to {MOST:,d}")
            data = file.read(count + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise RedraftError(f"{path} is cut short or damaged: download it again") from error
    except OSError as error:
        raise RedraftError(f"{path} cannot be read: {error.strerror or error}") from error
    if len(data) != count:
        raise RedraftError(f"{path} is cut short, or has more data than its header says: download it again")
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).reshape(shape)


def read_folder(folder: Path) -> tuple[Tensor, Tensor]:
    """Pictures (N, side, side) and labels (N,) of all MNIST files in a folder, train files before test files.

    Of a file that is there both packed and unpacked the unpacked one is read.

    Raises:
        RedraftError: there are none, or they do not fit together.
    """
    images, labels = (_named(folder, kind) for kind in ("images*idx3", "labels*idx1"))
    if not images or len(images) != len(labels):
        raise RedraftError(f"{folder} holds no MNIST files (such as t10k-images-idx3-ubyte.gz with its labels)")
    pairs = [_pair(*paths) for paths in zip(images, labels, strict=True)]
    if len({pictures.shape[1:] for pictures, _ in pairs}) > 1:
        raise RedraftError(f"the pictures in {folder} are of different sizes: keep one set in a folder")
    return torch.cat([pictures for pictures, _ in pairs]), torch.cat([digits for _, digits in pairs])


def _opened(path: Path) -> gzip.GzipFile | BufferedReader[Any]:
    packed = regular(path).suffix == ".gz"
    return gzip.open(path) if packed else path.open("rb")


def _named(folder: Path, kind: str) -> list[Path]:
    """Paths of a kind, test files last, each file once."""
    found = [*folder.glob(f"*{kind}-ubyte.gz"), *folder.glob(f"*{kind}-ubyte")]
    once = {path.name.removesuffix(".gz"): path for path in found}
    return [once[name] for name in sorted(once, reverse=True)]


def _pair(images: Path, labels: Path) -> tuple[Tensor, Tensor]:
    pictures, digits = read(images, 3), read(labels, 1)
    if len(pictures) != len(digits):
        raise RedraftError(f"{images} has {len(pictures)} pictures, and {labels} {len(digits)} labels")
    if pictures.shape[1] != pictures.shape[2]:
        raise RedraftError(f"{images} has pictures of {pictures.shape[1]} x {pictures.shape[2]} pixels: not square")
    if digits.max() > 9:
        raise RedraftError(f"{labels} has the label {int(digits.max())}: digits are 0 to 9")
    return pictures, digits
