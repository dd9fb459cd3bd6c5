"""Cells under way: a small file for each while a worker is at it, in the folder `running` of the experiment's."""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from redraft.bench.plain import LARGEST
from redraft.core.files import read_json
from redraft.core.lock import at_work

FOLDER = "running"


@dataclass(frozen=True)
class Note:
    """A cell under way.

    Attributes:
        cell: its id.
        host: where it runs.
        process: that runs it.
        since: when it was begun, seconds of the clock there.
    """

    cell: str
    host: str
    process: int
    since: float

    def __str__(self) -> str:
        """For how long, and by whom."""
        return f"for {_span(time.time() - self.since)}, by process {self.process} on {self.host}"


@contextmanager
def notes(folder: Path) -> Iterator[Path]:
    """The folder that workers write to while the run of an experiment's `folder` is at work; empty at first."""
    place = (folder / FOLDER).resolve()
    shutil.rmtree(place, ignore_errors=True)
    with suppress(OSError):
        place.mkdir()
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def noted(place: Path | None, cell: str) -> Iterator[None]:
    """Note that a cell is under way here, if this machine has the folder; what cannot be written is left out."""
    path = place / f"{cell}.json" if place else None
    about = {"host": platform.node(), "process": os.getpid(), "since": time.time()}
    if path:
        with suppress(OSError):
            path.write_text(json.dumps(about))
    try:
        yield
    finally:
        if path:
            with suppress(OSError):
                path.unlink()


def under_way(folder: Path) -> list[Note]:
    """The cells that the run of an experiment's folder is at, the longest first; none where no run is at work."""
    if not at_work(folder):
        return []
    found = filter(None, map(_read, (folder / FOLDER).glob("*.json")))
    return sorted((note for note in found if _alive(note)), key=lambda note: note.since)


def _read(path: Path) -> Note | None:
    """What a note says; none if it has just gone, or is none."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        about = read_json(path, LARGEST)
        return Note(path.stem, str(about["host"]), int(about["process"]), float(about["since"]))
    return None


def _alive(note: Note) -> bool:
    """Whether the process is there, as far as can be seen from here."""
    if note.host != platform.node():
        return True
    try:
        os.kill(note.process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # of another user
        return True
    return True


def _span(seconds: float) -> str:
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"
