"""Measure IPR on handwritten Sudoku: `python bench/sudoku.py NAME ...` writes bench/results/NAME.parquet.

`python bench/sudoku.py list` names the experiments and what they cost; a name may end in `*`. `bench/tables.py` makes
the tables of what is stored.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from functools import lru_cache
from multiprocessing import get_context
from typing import Any

import torch
from measured import RESULTS
from torch import Tensor

import redraft
from redraft import IPR, Budget, Disagreement, Sequential, Sweep, Uncertainty
from redraft.core.model import Model
from redraft.core.streams import Streams
from redraft.core.task import Problems
from redraft.core.trace import Trace

SHARD = 16  # problems that a worker runs together; results do not depend on it
KEPT = ("problem", "draft", "nfe", "valid", "solved", "violations", "givens_kept", "confidence")
FREE = {"hard": 68, "medium": 41, "easy": 14, "extreme": 57, "corrupted": 81}


@dataclass(frozen=True)
class Experiment:
    """One curve: `n` problems of a kind through one method.

    `start` is 'nothing', 'board' (the drawn board itself: the solution, or a corrupted board) or 'noise' (the
    drawn board with its pictures in random order).
    """

    method: IPR = IPR()
    difficulty: str = "hard"
    n: int = 500
    seed: int = 0
    start: str = "nothing"
    budget: Budget = Budget()
    problems: dict[str, Any] = field(default_factory=dict)

    def nfe(self) -> int:
        """Network evaluations of the whole experiment, roughly."""
        free = torch.tensor([FREE[self.difficulty]])
        first = int(self.method.initial.nfe(free)) * (self.start == "nothing")
        again = int(self.method.refine.nfe((free * self.method.ratio).long().clamp_min(1)))
        total = first + self.method.iterations * (again + self.method.select.nfe)
        return self.n * min(total, self.budget.nfe or total)


def _experiments() -> dict[str, Experiment]:
    paper = IPR()
    found = {kind: Experiment(paper, kind, 500 if kind == "hard" else 200) for kind in ("hard", "medium", "easy")}
    found["extreme"] = Experiment(paper, "extreme", 200)
    for swaps in (1, 3, 5, 10):
        short = replace(paper, iterations=15)
        found[f"corrupted-{swaps}"] = Experiment(short, "corrupted", 200, start="board", problems={"swaps": swaps})
    for start in ("noise", "board"):
        found[f"chain-{start}"] = Experiment(replace(paper, iterations=200), n=16, seed=1, start=start)
    for name, initial in {
        "3": Sequential(),
        "10": Sequential(10),
        "30": Sequential(30),
        "10-overlap": Sequential(10, 0.8),
        "30-overlap": Sequential(30, 0.8),
        "30-by-3": Sequential(30, regions_per_block=3),
    }.items():
        found[f"initial-{name}"] = Experiment(IPR(iterations=0, initial=initial), n=48, seed=1)
    restarts = IPR(iterations=3, ratio=1.0, refine=Sequential())
    found["initial-restarts"] = Experiment(restarts, n=48, seed=1)
    found["initial-restarts-keep"] = Experiment(replace(restarts, keep=Disagreement()), n=48, seed=1)
    selections = {
        "uniform": paper.select,
        "sweep": Sweep(),
        "uncertainty": Uncertainty(),
        "disagreement": Disagreement(),
    }
    for name, select in selections.items():
        for ratio in (0.1, 0.25):
            for overlap in (0.8, 1.0):
                method = IPR(100, ratio, select=select, refine=Sequential(10, overlap))
                found[f"grid-{name}-{ratio}-{overlap}"] = Experiment(method, n=24, seed=1, budget=Budget(nfe=800))
    changes: dict[str, dict[str, Any]] = {
        "paper": {},
        "keep": {"keep": Disagreement()},
        "level-0.8": {"level": 0.8},
        "noise-fixed": {"noise": "fixed"},
        "stochasticity-0": {"refine": Sequential(10, 0.8, stochasticity=0.0)},
        "stochasticity-1": {"refine": Sequential(10, 0.8, stochasticity=1.0)},
        "temperature-0.5": {"refine": Sequential(10, 0.8, temperature=0.5)},
        "steps-5": {"refine": Sequential(5, 0.8)},
    }
    for name, change in changes.items():
        method = replace(paper, iterations=100, **change)
        found[f"vary-{name}"] = Experiment(method, n=24, seed=1, budget=Budget(nfe=800))
    return found


EXPERIMENTS = _experiments()


def run(name: str, pool: ProcessPoolExecutor) -> None:
    """Run one experiment, shard by shard, and write its Parquet file."""
    experiment, began = EXPERIMENTS[name], time.perf_counter()
    shards = [range(i, min(i + SHARD, experiment.n)) for i in range(0, experiment.n, SHARD)]
    parts = list(pool.map(_shard, [experiment] * len(shards), shards))
    columns = {column: torch.cat([part[column] for part in parts]) for column in KEPT}
    RESULTS.mkdir(exist_ok=True)
    trace = Trace(columns)
    trace.save(RESULTS / f"{name}.parquet")
    valid = trace.by_draft("valid")
    rates = " -> ".join(f"{valid[draft].double().mean():.1%}" for draft in (min(valid), max(valid)))
    nfe = trace.by_draft("nfe")[max(valid)].double().mean()
    print(f"{name}: {rates} valid, {nfe:.0f} NFE, {time.perf_counter() - began:.0f} s", flush=True)


@lru_cache(maxsize=1)
def _model() -> Model:
    torch.set_num_threads(1)
    fused = shutil.which("c++") is not None and not torch.cuda.is_available()
    return redraft.load_model(os.environ.get("REDRAFT_MODEL", "sudoku"), compile=fused)


def _shard(experiment: Experiment, rows: range) -> dict[str, Tensor]:
    """The trace of some of an experiment's problems."""
    model, task = _model(), redraft.load_task("sudoku")
    every = task.problems(rows.stop, experiment.seed, difficulty=experiment.difficulty, **experiment.problems)
    problems = every[rows.start : rows.stop]
    start = {"nothing": None, "board": problems.x, "noise": _shuffled(problems)}[experiment.start]
    result = redraft.run(
        experiment.method,
        model,
        problems,
        budget=experiment.budget,
        seed=experiment.seed,
        start=start,
        evaluate=task.evaluate,
        progress=False,
    )
    return {column: result.trace[column].float() if column != "problem" else result.trace[column] for column in KEPT}


def _shuffled(problems: Problems) -> Tensor:
    """Boards with their cells' pictures in random order, each board's own in any shard: a poor start."""
    order = Streams.root(0, problems.ids).uniform(problems.x.shape[1:2]).argsort(1)
    return problems.x[torch.arange(len(problems))[:, None], order]


def main() -> None:
    """Run the named experiments."""
    wanted = sys.argv[1:]
    if not wanted or wanted == ["list"]:
        for name, experiment in EXPERIMENTS.items():
            print(f"{name:28s} {experiment.difficulty:9s} n={experiment.n:<4d} {experiment.nfe():>9,d} evaluations")
        return
    with ProcessPoolExecutor(os.cpu_count() or 1, mp_context=get_context("spawn")) as pool:
        for name in EXPERIMENTS:
            if any(fnmatch(name, pattern) for pattern in wanted):
                run(name, pool)


if __name__ == "__main__":
    main()
