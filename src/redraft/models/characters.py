"""Lines of printable ASCII characters as tokens: the alphabet of the models and of the task `python`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from redraft.core.errors import RedraftError

LENGTH = 64
PAD, MASK, VOCABULARY = 0, 96, 97  # 1..95 are the printable ASCII characters, in order


def encode(texts: list[str]) -> Tensor:
    """Ids (N, 64) of printable ASCII strings of at most 64 characters; PADs follow the text.

    Raises:
        RedraftError: a string is longer, or has other characters.
    """
    for text in texts:
        if len(text) > LENGTH or any(not " " <= char <= "~" for char in text):
            raise RedraftError(f"{text!r} is not at most {LENGTH} printable ASCII characters")
    padded = "".join(text.ljust(LENGTH, "\x1f") for text in texts)  # one below the space: PAD
    codes = np.frombuffer(padded.encode("ascii"), np.uint8).reshape(-1, LENGTH)
    return torch.from_numpy(codes.astype(np.int64)) - 31


def decode(samples: Tensor) -> list[str]:
    """The text up to the first PAD of each row (N, 64); masks are shown as a block."""
    return ["".join(map(_char, row)).partition("\x1f")[0] for row in samples.tolist()]


def _char(token: int) -> str:
    return "\u2588" if token == MASK else chr(token + 31)
