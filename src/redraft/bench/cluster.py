"""Workers on a Ray cluster: actors that load each model once and run cells, verifiers included."""

from __future__ import annotations

import signal
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from redraft.bench.cell import Measure, Outcome
from redraft.bench.experiment import Cell
from redraft.bench.guard import guarded
from redraft.bench.local import LOST
from redraft.core.errors import RedraftError, require, said
from redraft.core.signals import kept

FALLS = 5  # without a finished call between them, after which an actor is given up


@dataclass(frozen=True)
class Cluster:
    """A pool of actors.

    Attributes:
        address: of a cluster, such as 'auto' for the one of this node, or 'local' to start one here.
        workers: actors; as many as the cluster has CPUs, or GPU shares, if not given.
        gpus_per_worker: share of a GPU that an actor holds; its verifiers run there too.
        retries: how often a cell is begun again whose worker or node died.
    """

    address: str = "auto"
    workers: int | None = None
    gpus_per_worker: float = 0.0
    retries: int = 2

    def map(self, measure: Measure, cells: Iterable[Cell]) -> Iterator[Outcome]:
        """One cell at a time for each actor that is up; actors that die are started again, on any node."""
        ray = require("ray", "ray")
        actors: list[Any] = []
        with self._connected(ray):
            try:
                actors += self._actors(ray, measure)
                yield from _Flow(ray, actors, self.retries).outcomes(cells)
            finally:
                for actor in actors:
                    ray.kill(actor)

    @contextmanager
    def _connected(self, ray: Any) -> Iterator[str | None]:
        """A connection, unless there is one; a cluster that is started for it ends with it, even by a kill."""
        if ray.is_initialized():
            yield None
            return
        with guarded() if self.address == "local" else nullcontext() as folder:
            try:
                self._connect(ray, {"_temp_dir": folder} if folder else {})
                yield folder
            finally:
                ray.shutdown()

    def _connect(self, ray: Any, more: dict[str, str]) -> None:
        ended = False
        try:
            if self.address not in ("local", "auto"):
                _reach(self.address)
            with kept():
                quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "error"}
                ray.init(address=self.address, **quiet, **more)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise RedraftError(f"no Ray cluster answers at {self.address!r}: {said(error)}") from error
        except SystemExit:  # Ray's own handler of SIGTERM
            ended = True
        if ended:
            signal.raise_signal(signal.SIGTERM)

    def _actors(self, ray: Any, measure: Measure) -> list[Any]:
        held = ray.cluster_resources()
        share, kind = (self.gpus_per_worker, "GPU") if self.gpus_per_worker else (1, "CPU")
        count = self.workers or int(held.get(kind, 0) / share)
        if not count:
            raise RedraftError(f"the cluster has too few {kind}s for one worker: say how many by --workers to wait")
        options = {"num_cpus": 1, "num_gpus": self.gpus_per_worker, "max_restarts": -1, "max_task_retries": 0}
        make = ray.remote(**options)(_Actor)
        return [make.remote(measure) for _ in range(count)]


def _reach(address: str) -> None:
    """Raise unless something listens there: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise ValueError("an address is HOST:PORT, ray://HOST:PORT, 'auto' or 'local'")
    socket.create_connection((host, int(port)), timeout=10).close()


class _Actor:
    """A worker: what is loaded for one cell serves the next."""

    def __init__(self, measure: Callable[[Cell], Outcome]) -> None:
        self.measure = measure

    def up(self) -> bool:
        return True

    def run(self, cell: Cell) -> Outcome:
        return self.measure(cell)


class _Flow:
    """Cells on their way through actors: never more of them than actors."""

    def __init__(self, ray: Any, actors: list[Any], retries: int) -> None:
        self.ray, self.retries = ray, retries
        self.busy: dict[Any, tuple[Any, tuple[Cell, int] | None]] = {}
        self.idle: list[Any] = []
        self.again: deque[tuple[Cell, int]] = deque()
        self.falls = {id(actor): 0 for actor in actors}
        for actor in actors:
            self._raise(actor)

    def outcomes(self, cells: Iterable[Cell]) -> Iterator[Outcome]:
        todo = ((cell, 0) for cell in cells)
        while True:
            while self.idle and (work := self.again.popleft() if self.again else next(todo, None)):
                actor = self.idle.pop()
                self.busy[actor.run.remote(work[0])] = actor, work
            if self.idle and not any(work for _, work in self.busy.values()):
                return
            ready, _ = self.ray.wait([*self.busy], num_returns=1)
            actor, work = self.busy.pop(ready[0])
            outcome = self._taken(ready[0], actor, work)
            if outcome:
                yield outcome

    def _raise(self, actor: Any) -> None:
        """Ask an actor to say when it is up; Ray starts one that died again, maybe on another node."""
        self.busy[actor.up.options(max_task_retries=-1).remote()] = actor, None

    def _taken(self, reference: Any, actor: Any, work: tuple[Cell, int] | None) -> Outcome | None:
        """What came of a call, if it was a cell's and is not to be tried again."""
        try:
            value = self.ray.get(reference)
        except self.ray.exceptions.RayActorError as error:
            self._fell(actor, error)
            if work and work[1] < self.retries:
                self.again.append((work[0], work[1] + 1))
                return None
            return Outcome(work[0], error=LOST) if work else None
        except self.ray.exceptions.RayError as error:  # such as a result that cannot be sent
            value = Outcome(work[0], error=f"{type(error).__name__}: {error}".splitlines()[0]) if work else None
        self.falls[id(actor)] = 0
        self.idle.append(actor)
        return value if work else None

    def _fell(self, actor: Any, error: Exception) -> None:
        self.falls[id(actor)] += 1
        if self.falls[id(actor)] <= FALLS:
            self._raise(actor)
        elif not self.busy and not self.idle:
            why = str(error).strip().splitlines()[-1]
            raise RedraftError(f"no worker of the Ray cluster stays up; is redraft installed on its nodes? {why}")
