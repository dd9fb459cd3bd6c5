"""Folders that results go to."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from redraft.core.errors import RedraftError


def regular(path: str | Path) -> Path:
    """The path, if a regular file is there: a named pipe would keep its reader waiting, and a device may have no end.

    Raises:
        OSError: there is none.
    """
    try:
        mode = os.stat(path).st_mode
    except ValueError as error:  # such as a zero byte in the name
        raise OSError(errno.EINVAL, str(error), str(path)) from error
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
    return Path(path)


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
    """Write a file, and its folder if need be, in one piece: a kill leaves the whole of it or what was there before.

    Raises:
        RedraftError: it cannot be written.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise RedraftError(f"{path} cannot be written: {error.strerror}") from error
