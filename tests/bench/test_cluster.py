"""A real Ray cluster of two nodes on this machine: the same bytes as here, though a worker is killed half-way."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from grids import DeadlyExecutor, contents, network, ran, small

from redraft.bench.cluster import Cluster
from redraft.bench.experiment import cells
from redraft.bench.guard import users
from redraft.core.errors import RedraftError

ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'redraft[ray]'")
pytestmark = pytest.mark.filterwarnings("ignore")  # of Ray's own


@pytest.fixture(scope="module")
def address():
    """The address of two nodes of one CPU each."""
    import grids
    from ray.cluster_utils import Cluster as Nodes

    ray.cloudpickle.register_pickle_by_value(grids)  # nodes have no tests
    memory = 100 * 2**20
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")  # workers give way to whatever else the machine does, by default
        nodes = Nodes(
            initialize_head=True,
            head_node_args={"num_cpus": 1, "include_dashboard": False, "object_store_memory": memory},
        )
        nodes.add_node(num_cpus=1, object_store_memory=memory)
        yield nodes.address
        ray.shutdown()
        nodes.shutdown()


def test_two_nodes_give_the_same_bytes_though_a_worker_dies(address, tmp_path):
    grid = small(network(tmp_path / "tiny"), seeds=[0, 1], shard=1)
    victim, marker = cells(grid)[3].id, tmp_path / "died"
    store, now = ran(grid, tmp_path / "ray", DeadlyExecutor(Cluster(address), victim, str(marker)))
    assert marker.exists()
    assert str(now) == "8 of 8 cells done, 0 failed, 0 to do"
    assert contents(store) == contents(ran(grid, tmp_path / "local")[0])
    assert not ray.is_initialized()


DRIVER = """\
import time, ray
from redraft.bench.cluster import Cluster
with Cluster("local")._connected(ray) as folder:
    print(folder, flush=True)
    time.sleep(60)
"""


def test_a_local_cluster_ends_with_its_driver_though_that_is_killed():
    command = [sys.executable, "-W", "ignore", "-c", DRIVER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        folder = driver.stdout.readline().strip()
        assert len(users(folder)) > 3
        driver.kill()
    until = time.monotonic() + 60
    while Path(folder).exists() and time.monotonic() < until:
        time.sleep(0.1)
    assert not users(folder)
    assert not Path(folder).exists()


def test_an_address_that_does_not_answer_is_said_at_once():
    for address in ("127.0.0.1:1", "ray://127.0.0.1:1", "nowhere"):
        with pytest.raises(RedraftError, match=f"no Ray cluster answers at '{address}'"):
            list(Cluster(address).map(None, []))
