"""Safetensors that carry a checksum of all that they hold, so that one changed bit is seen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from redraft.core.content import content
from redraft.core.files import regular, replacing

SEAL = "content"  # the entry that holds the checksum


def seal(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> None:
    """Write tensors and texts in one piece, with the checksum of both.

    Raises:
        OSError, SafetensorError: they cannot be written.
    """
    held = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    with replacing(path) as part:
        save_file(held, part, {**about, SEAL: content(held, dict(about))})


def unseal(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and texts that `seal` wrote.

    Raises:
        OSError, SafetensorError, ValueError: it is no regular file, is no safetensors, or holds something else.
    """
    with safe_open(regular(path), "pt") as file:
        about = dict(file.metadata() or {})
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    sum_ = about.pop(SEAL, None)
    if sum_ is None:
        raise ValueError("it has no checksum, as those of an older version")
    if sum_ != content(tensors, about):
        raise ValueError("its checksum does not fit what it holds")
    return tensors, about
