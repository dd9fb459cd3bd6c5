"""Workers on this machine: the process itself, or a pool of processes that outlives any of them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from multiprocessing import connection
from typing import Protocol

from tqdm import tqdm

from redraft.bench.cell import Measure, Outcome
from redraft.bench.experiment import Cell

LOST = "the worker that ran it died, as when memory runs out"


class Executor(Protocol):
    """Runs cells somewhere."""

    def map(self, measure: Measure, cells: Iterable[Cell]) -> Iterator[Outcome]:
        """What comes of each cell, in any order; cells are taken as workers get free, never all at once."""


@dataclass(frozen=True)
class Serial:
    """This process."""

    def map(self, measure: Measure, cells: Iterable[Cell]) -> Iterator[Outcome]:
        """One cell after another."""
        return map(measure, cells)


@dataclass(frozen=True)
class Pool:
    """Processes that load each model once; they end with this process, however it ends.

    Attributes:
        workers: how many.
        retries: how often a cell is begun again that was under way when a worker died.
    """

    workers: int
    retries: int = 2

    def map(self, measure: Measure, cells: Iterable[Cell]) -> Iterator[Outcome]:
        """As many cells at once as there are workers, and one more each that waits.

        When a worker dies, those that were under way are begun again one at a time: so it shows which one is fatal.
        """
        todo = ((cell, 0) for cell in cells)
        suspects: deque[tuple[Cell, int]] = deque()
        running: dict[Future[Outcome], tuple[Cell, int]] = {}
        pool = self._pool()
        try:
            while True:
                room = (not running) if suspects else 2 * self.workers - len(running)
                for work in islice(_taken(suspects) if suspects else todo, room):
                    running[_submitted(pool, measure, work[0])] = work
                if not running:
                    pool.shutdown()
                    return
                ended = {future: running.pop(future) for future in wait(running, return_when=FIRST_COMPLETED).done}
                yield from (_outcome(future, cell) for future, (cell, _) in ended.items() if not _lost(future))
                lost = [work for future, work in ended.items() if _lost(future)]
                if lost:
                    lost += running.values()  # the pool is broken: none of these will end
                    running.clear()
                    _end(pool)
                    pool = self._pool()
                    suspects += [(cell, times + 1) for cell, times in lost if times < self.retries]
                    yield from (Outcome(cell, error=LOST) for cell, times in lost if times >= self.retries)
        finally:
            _end(pool)

    def _pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self.workers, multiprocessing.get_context("spawn"), _begin)


def _taken(suspects: deque[tuple[Cell, int]]) -> Iterator[tuple[Cell, int]]:
    yield suspects.popleft()


def _outcome(future: Future[Outcome], cell: Cell) -> Outcome:
    error = future.exception()
    return Outcome(cell, error=f"{type(error).__name__}: {error}") if error else future.result()


def _submitted(pool: ProcessPoolExecutor, measure: Measure, cell: Cell) -> Future[Outcome]:
    try:
        return pool.submit(measure, cell)
    except BrokenProcessPool as error:
        future: Future[Outcome] = Future()
        future.set_exception(error)
        return future


def _lost(future: Future[Outcome]) -> bool:
    return isinstance(future.exception(), BrokenProcessPool)


def _begin() -> None:
    """Leave Ctrl-C to the parent, and end when it ends, even by a kill."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tqdm.set_lock(threading.RLock())  # its own is a semaphore, which a worker that is ended would leave behind
    threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _end(pool: ProcessPoolExecutor) -> None:
    """End a pool at once; what its workers are at is lost."""
    workers = list((getattr(pool, "_processes", None) or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for worker in workers:
        worker.terminate()
