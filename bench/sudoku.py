"""Measure IPR on handwritten Sudoku: `python bench/sudoku.py EXPERIMENT ...` writes bench/results/EXPERIMENT.parquet.

`python bench/sudoku.py list` names the experiments and what they cost; `bench/tables.py` makes the README's tables.
"""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import redraft
from redraft.core.trace import Trace
from redraft.tasks.base import Problems

RESULTS = Path(__file__).parent / "results"
SHARD = 16  # problems that one worker runs together; results do not depend on it
KEPT = ("problem", "draft", "nfe", "seconds", "valid", "solved", "violations", "givens_kept", "confidence")


@dataclass(frozen=True)
class Experiment:
    """One curve: `n` problems of a kind through one method.

    `start`: 'none', 'problem' (the problem's own pictures, as for corrupted boards) or 'solution'.
    """

    method: redraft.IPR
    difficulty: str = "hard"
    n: int = 500
    seed: int = 0
    start: str = "none"
    problems: dict[str, Any] = field(default_factory=dict)

    def nfe(self) -> int:
        """Network evaluations of the whole experiment, roughly."""
        free = torch.tensor({"hard": 68, "medium": 41, "easy": 14, "extreme": 57, "corrupted": 81}[self.difficulty])
        k = (free * self.method.ratio).long()
        first = self.method.initial.nfe(free[None]) * (self.start == "none")
        return int(self.n * (first + self.method.iterations * self.method.refine.nfe(k[None])))


PAPER = redraft.IPR()
FAST = redraft.Sequential(steps_per_region=10, overlap=1.0)
EXPERIMENTS: dict[str, Experiment] = {
    "hard": Experiment(PAPER),
    "medium": Experiment(PAPER, "medium", 200),
    "easy": Experiment(PAPER, "easy", 200),
    "extreme": Experiment(PAPER, "extreme", 200),
}
for swaps in (1, 3, 5, 10):
    EXPERIMENTS[f"corrupted-{swaps}"] = Experiment(
        replace(PAPER, iterations=15), "corrupted", 100, start="problem", problems={"swaps": swaps}
    )


def run(name: str, workers: int) -> None:
    """Run one experiment, shard by shard, and write its Parquet file."""
    experiment, began = EXPERIMENTS[name], time.perf_counter()
    shards = [range(i, min(i + SHARD, experiment.n)) for i in range(0, experiment.n, SHARD)]
    with ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        parts = list(pool.map(_shard, [name] * len(shards), shards))
    columns = {c: torch.cat([part[c] for part in parts]) for c in KEPT}
    RESULTS.mkdir(exist_ok=True)
    Trace(columns).save(RESULTS / f"{name}.parquet")
    last = columns["draft"] == columns["draft"].max()
    rates = [f"{columns['valid'][columns['draft'] == d].double().mean():.1%}" for d in (0, int(columns["draft"].max()))]
    nfe = columns["nfe"][last].double().mean()
    print(f"{name}: {rates[0]} -> {rates[1]} valid, {nfe:.0f} NFE, {time.perf_counter() - began:.0f} s", flush=True)


def _shard(name: str, rows: range) -> dict[str, Tensor]:
    experiment = EXPERIMENTS[name]
    model, task = redraft.load_model(os.environ.get("REDRAFT_MODEL", "sudoku")), redraft.load_task("sudoku")
    every: Problems = task.problems(rows.stop, experiment.seed, difficulty=experiment.difficulty, **experiment.problems)
    problems = every[rows.start : rows.stop]
    start = {"none": None, "problem": problems.x, "solution": problems.x}[experiment.start]
    result = redraft.run(
        experiment.method, model, problems, seed=experiment.seed, start=start, evaluate=task.evaluate, progress=False
    )
    return {column: result.trace[column].double() for column in KEPT}


def main() -> None:
    """Run the named experiments."""
    names = sys.argv[1:]
    if names == ["list"] or not names:
        for name, experiment in EXPERIMENTS.items():
            print(f"{name:28s} {experiment.difficulty:9s} n={experiment.n:<4d} {experiment.nfe():>9,d} evaluations")
        return
    for name in names:
        run(name, os.cpu_count() or 1)


if __name__ == "__main__":
    main()
