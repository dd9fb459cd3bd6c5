"""Measure reward-guided methods at equal compute: `python bench/reward.py GROUP ...`, rows in bench/results.

    python bench/reward.py list
    python bench/reward.py sudoku-tokens --n 200

A cell is one method at a multiple of the base sampler's cost; a cell that is stored is not run again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from cells import Row, load, rows_of, run
from torch import Tensor

import redraft
from redraft import (
    FK,
    IPR,
    SVDD,
    Beam,
    BestOfN,
    Blame,
    Budget,
    Generate,
    IterRef,
    Metropolis,
    ParticleGibbs,
    Reward,
    preset,
)
from redraft.samplers.presets import NUCLEUS
from redraft.tasks.python import decode, kind_of
from redraft.verifiers import LineKind, likelihood, parses, violations

ROWS = 64  # problems that run together
STEPS = 32  # of the base sampler
MULTIPLES = (1, 2, 4, 8, 16, 32)
LINES = preset("ancestral", steps=STEPS, draw=NUCLEUS)
BASE = {
    "python": LINES,
    "python, raise": LINES,
    "python, parses": LINES,
    "sudoku-tokens": preset("ancestral", steps=STEPS),
}
ALPHA = {"python": 0.1, "python, raise": 1.0, "python, parses": 0.1, "sudoku-tokens": 0.5}
VERIFIER: dict[str, Callable[[Any], Any]] = {
    "python": likelihood,
    "python, raise": lambda task: LineKind("raise"),
    "python, parses": parses,
    "sudoku-tokens": violations,
}
Make = Callable[[str, int], Any]


def reward(task: str) -> Reward:
    """The target's temperature."""
    return Reward(ALPHA[task])


def best_of_n(task: str, multiple: int) -> BestOfN:
    """As many samples as the multiple."""
    return BestOfN(multiple, at_once=multiple, sampler=BASE[task])


def svdd(task: str, multiple: int) -> SVDD:
    """As many children."""
    return SVDD(multiple, reward(task), sampler=BASE[task])


def beam(task: str, multiple: int) -> Beam:
    """Beams and children of about the same number."""
    beams = 2 ** ((multiple.bit_length() - 1) // 2)
    return Beam(beams, multiple // beams, reward(task), sampler=BASE[task])


def fk(task: str, multiple: int) -> FK:
    """As many particles."""
    return FK(multiple, reward(task), every=4, sampler=BASE[task])


def particle_gibbs(task: str, multiple: int) -> ParticleGibbs:
    """Rounds of four particles."""
    return ParticleGibbs(max(1, multiple // 4), min(4, max(2, multiple)), reward(task), every=4, sampler=BASE[task])


def iterref(levels: tuple[float, ...], distance: float = 0.25, candidates: int = 1, a: float = 0.0) -> Make:
    """IterRef with as many moves at each level as the multiple allows."""

    def make(task: str, multiple: int) -> IterRef | Generate:
        each = len(levels) * candidates * (distance * STEPS + 1) * (2 if a else 1)
        moves = int((multiple - 1) * STEPS // each)
        if moves < 1:
            return Generate(BASE[task])
        return IterRef(levels, distance, moves, candidates, a, reward=reward(task), sampler=BASE[task])

    return make


def tries(candidates: int, a: float) -> Make:
    """IterRef of finished samples with k N = 32."""
    return lambda task, multiple: IterRef(
        (0.0,), 0.125, 32 // candidates, candidates, a, reward=reward(task), sampler=BASE[task]
    )


def ipr(task: str, multiple: int) -> IPR:
    """Redraws of a quarter of the tokens in 8 steps, kept by Metropolis; as many as the budget holds."""
    again = preset("ancestral", steps=8, draw=BASE[task].draw)
    return IPR(multiple * 4, 0.25, initial=BASE[task], refine=again, keep=Metropolis(ALPHA[task]))


def ipr_blame(task: str, multiple: int) -> IPR:
    """As `ipr`, where the verifier finds fault."""
    again = preset("ancestral", steps=8, draw=BASE[task].draw)
    return IPR(multiple * 4, 0.25, initial=BASE[task], refine=again, keep=Metropolis(ALPHA[task]), select=Blame())


EVENLY = (0.75, 0.5, 0.25, 0.0)
METHODS: dict[str, Make] = {
    "best of n": best_of_n,
    "svdd": svdd,
    "beam": beam,
    "fk": fk,
    "particle gibbs": particle_gibbs,
    "iterref": iterref((0.5, 0.125), 0.125),
    "ipr": ipr,
}
WHERE = {f"iterref at {level}": iterref((level,)) for level in (0.9, 0.7, 0.5, 0.3, 0.1, 0.0)}
WHERE["iterref evenly"] = iterref(EVENLY)
DISTANCES = {f"iterref at 0.0, distance={d}": iterref((0.0,), d) for d in (0.1, 0.5, 1.0)}
TRIES = {f"iterref k={32 // n} N={n} a=0": tries(n, 0.0) for n in (1, 2, 4, 8, 16, 32)}
TRIES |= {f"iterref k={32 // n} N={n} a=1": tries(n, 1.0) for n in (2, 8, 32)}
TUNED = {
    f"iterref at {' + '.join(map(str, levels))}, distance={distance}": iterref(levels, distance)
    for levels in ((0.125,), (0.3125,), (0.5,), (0.375, 0.1875), (0.5, 0.125), (0.5, 0.3125, 0.125))
    for distance in (0.0625, 0.125, 0.25)
}
SETTINGS = WHERE | DISTANCES | TRIES | TUNED


@dataclass(frozen=True)
class Cell:
    """One method at a multiple of the base sampler's cost on one task."""

    task: str
    method: str
    multiple: int
    n: int


def groups(n: int) -> dict[str, list[Cell]]:
    """Cells by the name of their group."""
    found = {task: [Cell(task, name, m, n) for m in MULTIPLES for name in METHODS] for task in BASE}
    found["sudoku-tokens"] += [Cell("sudoku-tokens", "ipr with blame", m, n) for m in MULTIPLES]
    tasks = ("python", "sudoku-tokens")
    found["ablation"] = [
        Cell(task, name, 6 if name in TRIES else 4, n) for task in tasks for name in WHERE | DISTANCES | TRIES
    ]
    found["tune"] = [Cell(task, name, 4, n) for task in tasks for name in TUNED]
    return found


def measure(cell: Cell) -> list[Row]:
    """The rows of a cell."""
    task, model = load(cell.task.partition(",")[0])
    made = (METHODS | SETTINGS | {"ipr with blame": ipr_blame})[cell.method](cell.task, cell.multiple)
    verifier = VERIFIER[cell.task](task)
    seed = 5 if cell.method in SETTINGS else 3  # settings are chosen on other problems than those reported
    given = task.problems(cell.n, seed=seed)
    budget = Budget(nfe=cell.multiple * STEPS) if isinstance(made, IPR) else None
    results = [
        redraft.run(
            made,
            model,
            given[i : i + ROWS],
            verifier=None if isinstance(made, Generate) else verifier,
            budget=budget,
            seed=seed,
            progress=False,
        )
        for i in range(0, cell.n, ROWS)
    ]
    samples = torch.cat([result.samples for result in results])
    metrics: dict[str, Tensor] = {"reward": verifier(samples, given)} | task.evaluate(samples, given)
    if cell.task == "python, raise":
        metrics["is raise"] = torch.tensor([kind_of(text) == "raise" for text in decode(samples)]).double()
    metrics["nfe"] = torch.cat([result.ledger.nfe for result in results])
    metrics["verifier calls"] = torch.cat([result.ledger.verifier_calls for result in results])
    for name in ("acceptance", "effective_size", "distinct_ancestors"):
        if all(name in result.trace for result in results):
            metrics[name] = torch.cat([result.trace[name] for result in results])
    return rows_of(cell, metrics, of_the_set(cell, samples))


def of_the_set(cell: Cell, samples: Tensor) -> dict[str, float]:
    """Diversity."""
    if cell.task == "sudoku-tokens":
        return {}
    from redraft.tasks.python import diversity

    return diversity(samples)


def main() -> None:
    """Run the cells of the named groups that are not stored."""
    shown = ("reward", "parses", "valid", "acceptance", "nfe", "verifier calls")
    run("reward", __doc__, groups, measure, lambda cell: cell.multiple * STEPS, shown, 200)


if __name__ == "__main__":
    main()
