"""Measure speed, side by side in one run: `python bench/speed.py` writes bench/results/speed.json.

- overhead: wall time of a run over the time of the same network calls, at the same batch sizes, bare.
- throughput: rows a second at batch 64 over batch 1.
- growth: wall time with puzzles and with iterations.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from measured import record

import redraft
from redraft.core.state import State

REPEATS = 3
QUICK_START = redraft.IPR(iterations=2, initial=redraft.Sequential(steps_per_region=1))


def seconds(work: Callable[[], Any]) -> float:
    """Wall time of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def overhead(model: Any, problems: Any) -> float:
    """A run's wall time over that of its network calls, each made once more, bare, right after the run's own.

    Call by call, so that a machine whose speed drifts treats both the same.
    """
    predict, bare = model.predict, 0.0

    def twice(state: State) -> Any:
        nonlocal bare
        prediction = predict(state)
        bare += seconds(lambda: predict(state))
        return prediction

    model.predict = twice
    total = seconds(lambda: redraft.run(QUICK_START, model, problems, progress=False))
    model.predict = predict
    return (total - bare) / bare


@torch.no_grad()
def throughput(model: Any, problems: Any) -> float:
    """Rows a second at batch 64 over those at batch 1."""
    one, many = problems.state()[:1], problems.state()

    def rate(state: State, calls: int) -> float:
        return calls * len(state) / seconds(lambda: [model.predict(state) for _ in range(calls)])

    return statistics.median(rate(many, 4) / rate(one, 64) for _ in range(REPEATS))


def growth(model: Any, problems: Any) -> dict[str, dict[int, float]]:
    """Seconds of a run by number of puzzles (with 2 iterations) and by iterations (of 8 puzzles)."""

    def run(n: int, iterations: int) -> float:
        method = replace(QUICK_START, iterations=iterations)
        return seconds(lambda: redraft.run(method, model, problems[:n], progress=False))

    return {
        "puzzles": {n: round(run(n, 2), 2) for n in (1, 4, 16, 64)},
        "iterations": {i: round(run(8, i), 2) for i in (0, 4, 8, 16)},
    }


def main() -> None:
    """Measure, print and store."""
    model = redraft.load_model("sudoku")
    problems = redraft.load_task("sudoku").problems(64, seed=2)
    results = {
        "threads": torch.get_num_threads(),
        "overhead": round(statistics.median(overhead(model, problems) for _ in range(REPEATS)), 3),
        "throughput_64_over_1": round(throughput(model, problems), 2),
        "seconds": growth(model, problems),
    }
    record("speed", results)
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
