"""Measure where IterRef refines, how far and how often: `python bench/iterref.py GROUP ...`, rows in bench/results.

    python bench/iterref.py list
    python bench/iterref.py ablation tune --n 48

A cell is one setting on one task at a multiple of the base sampler's cost; a cell that is stored is not run again. The
problems are not those of the experiments that compare IterRef with its peers (`redraft bench run iterref-sudoku`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from cells import Row, load, rows_of, run
from torch import Tensor

import redraft
from redraft import IterRef, Reward, preset
from redraft.samplers.presets import NUCLEUS
from redraft.verifiers import likelihood, violations

ROWS = 64  # problems that run together
STEPS = 32  # of the base sampler
SEED = 5
BASE = {"python": preset("ancestral", steps=STEPS, draw=NUCLEUS), "sudoku-tokens": preset("ancestral", steps=STEPS)}
ALPHA = {"python": 0.1, "sudoku-tokens": 0.5}
VERIFIER = {"python": likelihood, "sudoku-tokens": violations}
Make = Callable[[str, int], IterRef]


def within(levels: tuple[float, ...], distance: float = 0.25) -> Make:
    """As many moves at each level as the multiple allows."""

    def make(task: str, multiple: int) -> IterRef:
        moves = int((multiple - 1) * STEPS // (len(levels) * (distance * STEPS + 1)))
        return IterRef(levels, distance, moves, reward=Reward(ALPHA[task]), sampler=BASE[task])

    return make


def tries(candidates: int, a: float) -> Make:
    """Moves of finished samples with k N = 32."""
    return lambda task, multiple: IterRef(
        (0.0,), 0.125, 32 // candidates, candidates, a, reward=Reward(ALPHA[task]), sampler=BASE[task]
    )


ABLATION = {f"iterref at {level}": within((level,)) for level in (0.9, 0.7, 0.5, 0.3, 0.1, 0.0)}
ABLATION["iterref evenly"] = within((0.75, 0.5, 0.25, 0.0))
ABLATION |= {f"iterref at 0.0, distance={d}": within((0.0,), d) for d in (0.1, 0.5, 1.0)}
TRIES = {f"iterref k={32 // n} N={n} a=0": tries(n, 0.0) for n in (1, 2, 4, 8, 16, 32)}
TRIES |= {f"iterref k={32 // n} N={n} a=1": tries(n, 1.0) for n in (2, 8, 32)}
TUNED = {
    f"iterref at {' + '.join(map(str, levels))}, distance={distance}": within(levels, distance)
    for levels in ((0.125,), (0.3125,), (0.5,), (0.375, 0.1875), (0.5, 0.125), (0.5, 0.3125, 0.125))
    for distance in (0.0625, 0.125, 0.25)
}
SETTINGS = ABLATION | TRIES | TUNED


@dataclass(frozen=True)
class Cell:
    """One setting at a multiple of the base sampler's cost on one task."""

    task: str
    method: str
    multiple: int
    n: int


def groups(n: int) -> dict[str, list[Cell]]:
    """Cells by the name of their group."""
    return {
        "ablation": [Cell(task, name, 6 if name in TRIES else 4, n) for task in BASE for name in ABLATION | TRIES],
        "tune": [Cell(task, name, 4, n) for task in BASE for name in TUNED],
    }


def measure(cell: Cell) -> list[Row]:
    """The rows of a cell."""
    task, model = load(cell.task)
    method, verifier = SETTINGS[cell.method](cell.task, cell.multiple), VERIFIER[cell.task](task)
    given = task.problems(cell.n, seed=SEED)
    parts = [given[i : i + ROWS] for i in range(0, cell.n, ROWS)]
    results = [redraft.run(method, model, part, verifier=verifier, seed=SEED, progress=False) for part in parts]
    samples = torch.cat([result.samples for result in results])
    metrics: dict[str, Tensor] = {"reward": verifier(samples, given)} | task.evaluate(samples, given)
    metrics["nfe"] = torch.cat([result.ledger.nfe for result in results])
    metrics["verifier calls"] = torch.cat([result.ledger.verifier_calls for result in results])
    metrics["acceptance"] = torch.cat([result.trace["acceptance"] for result in results])
    return rows_of(cell, metrics, {})


def main() -> None:
    """Run the cells of the named groups that are not stored."""
    shown = ("reward", "parses", "valid", "acceptance", "nfe", "verifier calls")
    run("iterref", __doc__, groups, measure, lambda cell: cell.multiple * STEPS, shown, 48)


if __name__ == "__main__":
    main()
