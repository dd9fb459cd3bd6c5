"""Measure the engine of experiments: `python bench/engine_speed.py`, numbers in bench/results/engine_speed.json.

- overhead: seconds a cell beside the run itself, with a network of random weights, for 10 to 10,000 cells in this
  process; and seconds for the status, for a resume that finds all done, and for one table of all rows.
- workers: cells a second of two single-threaded workers over those of one, with the `sudoku-tokens` model.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from measured import record

import redraft
from redraft.bench import engine
from redraft.bench.cell import Measure, Outcome
from redraft.bench.experiment import Cell, Experiment, checked
from redraft.bench.local import Pool
from redraft.bench.plain import Map
from redraft.bench.store import Store
from redraft.models.nets.transformer import Transformer
from redraft.models.weights import save_network

SIZES = (10, 100, 1000, 10_000)


def grid(model: str, count: int, steps: int, problems: int, difficulty: str) -> Experiment:
    """One method under `count` seeds: as many cells."""
    sampler = {"preset": "ancestral", "steps": steps}
    values = {
        "name": "speed",
        "task": "sudoku-tokens",
        "model": [model],
        "metrics": {"valid": "max"},
        "problems": {"n": problems, "difficulty": difficulty},
        "shard": problems,
        "seeds": list(range(count)),
        "methods": {"generate": {"sampler": sampler}},
    }
    return checked(Map(values, {}))


def seconds(work: Callable[[], Any]) -> float:
    """How long it takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def overhead(model: str, count: int, folder: Path) -> dict[str, float]:
    """Seconds a cell, and seconds for what is done with all cells at once."""
    experiment, store, inside = grid(model, count, 2, 1, "easy"), Store(folder), [0.0]
    run = redraft.run

    def timed(*args: Any, **more: Any) -> Any:
        began = time.perf_counter()
        try:
            return run(*args, **more)
        finally:
            inside[0] += time.perf_counter() - began

    store.open(experiment, "full")
    redraft.run = timed
    try:
        whole = seconds(lambda: engine.run(experiment, store, progress=False))
    finally:
        redraft.run = run
    return {
        "run": inside[0] / count,
        "engine": (whole - inside[0]) / count,
        "status": seconds(lambda: engine.status(experiment, store)),
        "resume": seconds(lambda: engine.run(experiment, store, progress=False)),
        "compact": seconds(lambda: store.compact(engine.status(experiment, store).cells)),
    }


class Clocked:
    """A pool that notes when each outcome comes."""

    def __init__(self, workers: int) -> None:
        """Of so many workers."""
        self.pool, self.times = Pool(workers), list[float]()

    def map(self, measure: Measure, cells: Iterable[Cell]) -> Iterator[Outcome]:
        """The pool's outcomes."""
        for outcome in self.pool.map(measure, cells):
            self.times.append(time.perf_counter())
            yield outcome

    def rate(self) -> float:
        """Cells a second, without the first few, which pay for the start."""
        warm = self.times[2 * self.pool.workers :]
        return (len(warm) - 1) / (warm[-1] - warm[0])


def throughput(workers: int, count: int, folder: Path) -> float:
    """Cells a second."""
    experiment, store, executor = grid("sudoku-tokens", count, 32, 4, "hard"), Store(folder), Clocked(workers)
    store.open(experiment, "full")
    engine.run(experiment, store, executor, progress=False)
    return executor.rate()


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=SIZES[-1], help="cells of the largest grid")
    parser.add_argument("--cells", type=int, default=120, help="cells for the comparison of one worker with two")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {"cpus": os.cpu_count(), "cells": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.manual_seed(0)
        net = Transformer(vocabulary=10, width=8, depth=1, heads=2, layout="board")
        save_network(net, folder / "stub", "", {"model": "sudoku-tokens"})
        for count in (size for size in SIZES if size <= asked.most):
            found["cells"][str(count)] = overhead(str(folder / "stub"), count, folder / str(count))
            found["cells"][str(count)]["load"] = round(os.getloadavg()[0], 1)
            print(count, found["cells"][str(count)], flush=True)
        rates = {str(n): throughput(n, asked.cells, folder / f"workers-{n}") for n in (1, 2)}
    found["workers"] = {"cells_a_second": rates, "two_over_one": rates["2"] / rates["1"]}
    print(found["workers"])
    record("engine_speed", found)


if __name__ == "__main__":
    main()
