"""Measure the samplers of masked models at equal forwards: `python bench/masked.py GROUP ...`, rows in bench/results.

    python bench/masked.py list            the groups, their cells and what they cost
    python bench/masked.py python --n 1000

A cell is one sampler at one number of network evaluations (critics' included) on one task; a cell that is stored is
not run again, so that a stopped run goes on. `bench/tables.py` makes docs/masked.md's tables of what is stored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from cells import Row, load, rows_of, run
from torch import Tensor

import redraft
from redraft import IPR, Generate, Unmask, preset
from redraft.core.registry import SAMPLERS as PRESETS
from redraft.core.state import State
from redraft.processes.categorical import Draw
from redraft.samplers.budgets import Remask
from redraft.samplers.presets import NUCLEUS
from redraft.samplers.rules import Rule
from redraft.samplers.scorers import Judge

ROWS = 128  # problems that run together
FORWARDS = (16, 32, 64, 128, 256)
DRAWS = {"python": NUCLEUS, "infilling": NUCLEUS, "sudoku-tokens": Draw()}  # one for all samplers of a task
Make = Callable[[int, Draw], Any]


def named(name: str, **settings: Any) -> Make:
    """A preset with as many steps as fit a number of forwards."""

    def make(forwards: int, draw: Draw) -> Generate:
        plans = (preset(name, steps=steps, draw=draw, **settings) for steps in range(forwards, 0, -1))
        return Generate(next(plan for plan in plans if int(plan.nfe(torch.tensor([64]))) <= forwards))

    return make


def refined(name: str) -> Make:
    """IPR: half of the forwards for a draft by a preset, the rest for four redraws of a quarter of the tokens by it."""

    def make(forwards: int, draw: Draw) -> IPR:
        first, again = (preset(name, steps=forwards // part, draw=draw) for part in (2, 8))
        return IPR(4, 0.25, initial=first, refine=again)

    return make


def critic_under_remdm(forwards: int, draw: Draw) -> Generate:
    """G-Star's critic chooses what ReMDM's budget masks again."""
    plans = (Unmask(steps, Rule(Remask("cap", 0.02), Judge()), on=0.55, draw=draw) for steps in range(forwards, 0, -1))
    return Generate(next(plan for plan in plans if int(plan.nfe(torch.tensor([64]))) <= forwards))


SAMPLERS: dict[str, Make] = {name: named(name) for name in PRESETS if name != "halton"}  # for pictures
SAMPLERS |= {"halton": named("halton", height=1)} | {f"ipr, {name}": refined(name) for name in ("ancestral", "entropy")}
SAMPLERS |= {"critic under remdm-cap": critic_under_remdm}
SAMPLERS.pop("llada2")  # there are no blocks in lines, nor in boards
SAMPLERS["llada"] = named("llada", block=None)  # lines are shorter than two of its blocks
MAIN = {
    "ancestral",
    "entropy",
    "remdm-cap",
    "remdm-loop",
    "star+",
    "star-loop",
    "g-star+",
    "g-star-loop",
    "p2",
    "prism",
}
MAIN |= {"ipr, ancestral", "ipr, entropy"}
ABLATION: dict[str, Make] = {
    **{f"g-star+ on={on}": named("g-star+", on=on) for on in (0.1, 0.2, 0.3, 0.5, 0.7)},
    **{f"star+ on={on}": named("star+", on=on) for on in (0.1, 0.2, 0.5, 0.7)},
    **{f"g-star+ noise={noise}": named("g-star+", noise=noise) for noise in (0.0, 0.3, 3.0)},
    **{f"g-star+ critic={critic}": named("g-star+", critic=critic) for critic in ("star-blocks",)},
}


@dataclass(frozen=True)
class Cell:
    """One sampler at one number of forwards on one task."""

    task: str
    sampler: str
    forwards: int
    n: int

    def method(self) -> Any:
        """What is run."""
        return (SAMPLERS | ABLATION)[self.sampler](self.forwards, DRAWS[self.task])


def groups(n: int) -> dict[str, list[Cell]]:
    """Cells by the name of their group, the cheap ones first."""
    found = {
        task: [Cell(task, name, forwards, n) for forwards in FORWARDS for name in SAMPLERS]
        for task in ("python", "sudoku-tokens", "infilling")
    }
    found |= {f"{task}-main": [cell for cell in found[task] if cell.sampler in MAIN] for task in list(found)}
    found["ablation"] = [Cell("python", name, 128, n) for name in ABLATION]
    return found


@dataclass
class Watched:
    """A sampler that remembers how many tokens it masked again in each row."""

    sampler: Any
    remasked: list[Tensor] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        """The sampler's own."""
        return getattr(self.sampler, name)

    def step(self, model: Any, walk: Any, streams: Any) -> Any:
        """One step of the sampler."""
        walk = self.sampler.step(model, walk, streams)
        self.remasked.append(walk.remasked[walk.done])
        return walk


def problems(task: Any, cell: Cell) -> Any:
    """The problems of a cell; of Sudoku each puzzle twice, to see how much two samples differ."""
    if cell.task == "sudoku-tokens":
        half = task.problems(cell.n // 2, seed=3)
        return type(half).cat([half, replace(half, ids=half.ids + 2**20)])
    kind = "infilling" if cell.task == "infilling" else "unconditional"
    return task.problems(cell.n, seed=3, kind=kind)


def measure(cell: Cell) -> list[Row]:
    """The rows of a cell."""
    task, model = load("python" if cell.task == "infilling" else cell.task)
    given, method = problems(task, cell), cell.method()
    watched = Watched(method.sampler) if isinstance(method, Generate) else None
    if watched:
        method = replace(method, sampler=watched)
    results = [redraft.run(method, model, given[i : i + ROWS], seed=0, progress=False) for i in range(0, cell.n, ROWS)]
    samples = torch.cat([result.samples for result in results])
    metrics = task.evaluate(samples, given)
    metrics |= {
        "nfe": torch.cat([result.ledger.nfe for result in results]),
        "critic": torch.cat([result.ledger.spent["critic"] for result in results]),
        "saved": torch.cat([result.ledger.saved["denoiser"] for result in results]),
    }
    if watched:
        free = (~given.frozen).sum(1).double().mean()
        metrics["redraws a token"] = torch.cat(watched.remasked).double() / free
    return rows_of(cell, metrics, of_the_set(task, cell, samples, given))


def of_the_set(task: Any, cell: Cell, samples: Tensor, given: Any) -> dict[str, float]:
    """What only a set of samples has: diversity, and distance from real data."""
    if cell.task == "sudoku-tokens":
        one, other = samples.chunk(2)
        free = State.free.fget(given)[: len(one)]  # type: ignore[attr-defined]
        return {"two samples differ": float(((one != other) & free).sum() / free.sum())}
    from redraft.tasks.python import diversity

    if cell.task == "infilling":
        return {}
    lines = task.problems(1000, seed=4, kind="infilling").facts["original"]
    return diversity(samples) | {"mauve-like": task.mauve(samples, lines)}


def main() -> None:
    """Run the cells of the named groups that are not stored."""
    run("masked", __doc__, groups, measure, lambda cell: cell.forwards, ("parses", "valid", "nfe"), 1000)


if __name__ == "__main__":
    main()
