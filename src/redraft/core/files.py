"""Folders that results go to, and files that are read and written whole."""

from __future__ import annotations

import errno
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from redraft.core.errors import RedraftError


def plain(path: Path) -> bool:
    """Whether there is a file.

    Raises:
        RedraftError: there is something else, such as a pipe, which would keep its reader waiting.
    """
    there = os.path.isfile(path)
    if not there and os.path.lexists(path):
        raise RedraftError(f"{path} is no plain file: move it away")
    return there


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


def text_of(path: Path, largest: int | None = None) -> str:
    """The text of a file.

    Raises:
        OSError: there is none that can be read.
        ValueError: it is larger than `largest` bytes, or no text.
    """
    if largest is not None and regular(path).stat().st_size > largest:
        raise ValueError(f"it has more than {largest:,d} bytes")
    return regular(path).read_text(encoding="utf-8")


def read_json(path: Path, largest: int | None = None) -> Any:
    """The value of a JSON file.

    Raises:
        OSError: there is none that can be read.
        ValueError: it is no such file, larger than `largest` bytes, or no JSON.
    """
    try:
        return json.loads(text_of(path, largest))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def prepare(folder: Path) -> Path:
    """Make `folder` and see that it takes files, before any compute is spent.

    Raises:
        RedraftError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise RedraftError(f"the folder {folder} cannot be written: {error.strerror}") from error
    return folder


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write that takes the place of `path` in the end: a kill leaves the whole of it or what was there.

    Raises:
        OSError: it cannot be written.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


def write(path: Path, content: bytes) -> None:
    """Write a file, and its folder if need be, in one piece.

    Raises:
        RedraftError: it cannot be written.
    """
    try:
        with replacing(path) as part:
            part.write_bytes(content)
    except OSError as error:
        raise RedraftError(f"{path} cannot be written: {error.strerror}") from error
