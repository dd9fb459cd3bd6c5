"""Processes, found by what is in their environment."""

from contextlib import suppress
from pathlib import Path


def marked(name, value):
    """Ids of the processes that began with this variable in their environment."""
    found = set()
    for process in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            if f"{name}={value}".encode() in (process / "environ").read_bytes().split(b"\0"):
                found.add(int(process.name))
    return found
