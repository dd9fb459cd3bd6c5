"""Networks in folders: config.json, model.safetensors and a card, README.md. Nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from redraft.core.errors import RedraftError, said
from redraft.core.files import read_json, regular

Net = TypeVar("Net", bound=nn.Module)
SHIPPED = Path(__file__).parent.parent / "weights"


def save_network(net: nn.Module, folder: Path, card: str, extra: dict[str, Any] | None = None) -> None:
    """Write `net`, whose `config` rebuilds it, into `folder`, with the text of its card."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, folder / "model.safetensors")
    config = {"network": type(net).__name__, "config": net.config, **(extra or {})}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "README.md").write_text(card)


def read_config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """The folder's config.json, or another file of that kind.

    Raises:
        RedraftError: there is none, or it is broken.
    """
    path = folder / name
    try:
        return dict(read_json(path))
    except (OSError, ValueError, TypeError) as error:
        raise RedraftError(f"{path} cannot be read as a model's configuration: {error}") from error


def load_network(kind: type[Net], folder: Path) -> Net:
    """The network of class `kind` in `folder`, ready to evaluate, without gradients.

    Raises:
        RedraftError: the folder holds another network, or the file is damaged, pickled or of other shapes.
    """
    config = read_config(folder)
    path = folder / "model.safetensors"
    if config.get("network") != kind.__name__:
        raise RedraftError(f"{folder} holds a {config.get('network')!r}, not a {kind.__name__!r}")
    try:
        with torch.random.fork_rng(devices=[]):  # initial weights move the global generator
            net = kind(**config["config"])
        net.load_state_dict(load_file(regular(path)))
    except Exception as error:
        raise RedraftError(f"{path} cannot be loaded as the safetensors of {kind.__name__}: {said(error)}") from error
    return net.eval().requires_grad_(False)


def digest(folder: Path) -> str:
    """Twelve hexadecimal digits that tell the folder's weights apart."""
    return hashlib.sha256(regular(folder / "model.safetensors").read_bytes()).hexdigest()[:12]


def digest_of_all(path: Path) -> str:
    """Twelve hexadecimal digits that tell a file apart, or all files of a folder that are not hidden."""
    mark = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file()):
        name = file.relative_to(path)
        if not any(part.startswith(".") for part in name.parts):
            with file.open("rb") as stream:
                mark.update(f"{name.as_posix()} {hashlib.file_digest(stream, 'sha256').hexdigest()} ".encode())
    return mark.hexdigest()[:12]


def digest_at(place: str | None) -> str | None:
    """What `digest_of_all` says of the place, if there is something; else its name."""
    return digest_of_all(Path(place)) if place and Path(place).exists() else place


def pick_device(device: str | None) -> torch.device:
    """The named device, or a GPU if there is one, else the CPU.

    Raises:
        RedraftError: there is no such device.
    """
    try:
        found = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise RedraftError(f"unknown device {device!r}: use 'cpu' or 'cuda'") from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise RedraftError(f"there is no CUDA here for device {device!r}: use 'cpu'")
    if found.type not in ("cpu", "cuda"):
        try:
            torch.zeros(1, device=found).item()
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise RedraftError(f"there is no device {device!r} here that computes: use 'cpu'") from error
    return found


def pick_dtype(dtype: str | torch.dtype | None) -> torch.dtype:
    """The floating-point type of that name, or float32.

    Raises:
        RedraftError: there is none of that name.
    """
    if dtype is None or isinstance(dtype, torch.dtype):
        return dtype or torch.float32
    found = getattr(torch, dtype, None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise RedraftError(f"unknown dtype {dtype!r}: use 'float32', 'bfloat16' or 'float16'")
    return found
