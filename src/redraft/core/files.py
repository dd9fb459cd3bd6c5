"""Folders that results go to."""

from __future__ import annotations

from pathlib import Path

from redraft.core.errors import RedraftError


def prepare(folder: Path) -> Path:
    """Make `folder` and see that it takes files, before any compute is spent.

    Raises:
        RedraftError: it cannot be written.
    """
    probe = folder / ".redraft"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise RedraftError(f"the folder {folder} cannot be written: {error.strerror}") from error
    return folder


def write(path: Path, content: bytes) -> None:
    """Write a file.

    Raises:
        RedraftError: it cannot be written.
    """
    try:
        path.write_bytes(content)
    except OSError as error:
        raise RedraftError(f"{path} cannot be written: {error.strerror}") from error
