"""One run at a time in a folder."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from redraft.core.errors import RedraftError
from redraft.core.files import plain, prepare


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other runs out of the folder; a run that is killed leaves no lock.

    Raises:
        RedraftError: another run is at work in it.
    """
    try:
        import fcntl
    except ImportError:  # no such locks here
        yield
        return
    with _opened(prepare(folder) / ".lock") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RedraftError(f"{_holder(file)} is at work in {folder}: wait for it, or end it") from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def at_work(folder: Path) -> bool:
    """Whether a run holds the folder's lock."""
    try:
        import fcntl
    except ImportError:  # no such locks here
        return True
    lock = folder / ".lock"
    if not lock.is_file():
        return False
    with suppress(OSError), lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def _opened(path: Path) -> IO[str]:
    plain(path)
    try:
        return path.open("a+", encoding="utf-8")
    except OSError as error:
        raise RedraftError(f"{path} cannot be written: {error.strerror}") from error


def _holder(file: IO[str]) -> str:
    """Who holds the lock, as the file says."""
    file.seek(0)
    told = file.read(200)
    return f"another run, {told}," if told else "another run"
