"""What ends with a cluster's folder, and what does not."""

import subprocess
import sys
from pathlib import Path

import pytest

from redraft.bench.guard import guarded

HOLDS = "import sys, time; file = open(sys.argv[1], 'w'); print('up', flush=True); time.sleep(60)"


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="there is no /proc")
def test_what_uses_the_folder_ends_with_it_but_not_the_driver():
    with guarded() as folder:
        mine = (Path(folder) / "mine").open("w")  # as Ray leaves logs open
        other = subprocess.Popen([sys.executable, "-c", HOLDS, f"{folder}/other"], stdout=subprocess.PIPE)
        assert other.stdout.readline() == b"up\n"
    mine.close()
    other.stdout.close()
    assert other.wait(5) == -9
    assert not Path(folder).exists()
