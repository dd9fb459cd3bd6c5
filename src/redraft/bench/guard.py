"""Ends what a local Ray cluster leaves behind when its driver is killed: a process beside the driver.

Ray ends its daemons with the driver, but not what these have started: agents stay for a minute or more. All of them
write their logs into the cluster's folder, and are found by that; where there is no /proc to find them in, nothing is
done.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

GRACE, LONGEST = 2.0, 15.0  # seconds for a cluster to end by itself, and to look for what is left of it
QUIET = 1.0  # seconds without any of it: one look may miss a process that is just being started


@contextmanager
def guarded() -> Iterator[str | None]:
    """A folder for a cluster: all processes with files in it end, and it is removed, at the end, even by a kill."""
    if not Path("/proc/self/fd").exists():
        yield None
        return
    folder = tempfile.mkdtemp(prefix="rd-")  # short: paths of sockets in it may have 107 bytes
    guard = subprocess.Popen(
        [sys.executable, "-I", __file__, folder, str(os.getpid())], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        yield folder
    finally:
        assert guard.stdin is not None
        guard.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            guard.wait(LONGEST + GRACE)


def users(folder: str) -> set[int]:
    """Ids of the processes that have open a file below `folder`."""
    found = set()
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with suppress(OSError):  # it has ended, or is another user's
                if any(os.readlink(file).startswith(f"{folder}/") for file in (process / "fd").iterdir()):
                    found.add(int(process.name))
    return found


def main(folder: str, driver: int) -> None:
    """Wait until the driver closes this process's input, as any end of it does; then end what else uses the folder."""
    sys.stdin.buffer.read()
    began = seen = time.monotonic()
    while (now := time.monotonic()) - began < LONGEST and now - seen < QUIET:
        for number in users(folder) - {driver}:
            seen = now
            if now - began > GRACE:
                with suppress(OSError):
                    os.kill(number, signal.SIGKILL)
        time.sleep(0.1)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
