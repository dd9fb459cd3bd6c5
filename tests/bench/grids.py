"""A grid that takes moments: a network of random weights, puzzles that are almost full; and workers that die."""

import os
import signal
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from redraft.bench import engine
from redraft.bench.experiment import checked, load
from redraft.bench.local import Serial
from redraft.bench.plain import Map
from redraft.bench.store import Store
from redraft.models.nets.transformer import Transformer
from redraft.models.weights import save_network

TEXT = """\
name: tiny
claim: nothing in particular
task: sudoku-tokens
model: MODEL
verifier: violations
problems: {n: 4, seed: 3, difficulty: easy}
shard: 2
seeds: [0, 1]
metrics: {violations: min, valid: max}
budgets: [4, 16]
baseline: ancestral
methods:
  ancestral:
    method: generate
    sampler: {preset: ancestral}
    scale: {sampler.steps: [2, 4]}
  best-of-n: {n: 4, sampler: {preset: ancestral, steps: 2}}
  ipr:
    iterations: 2
    initial: {preset: ancestral, steps: 2}
    refine: {preset: ancestral, steps: 2}
    grid: {ratio: [0.1, 0.5]}
"""


def network(folder: Path) -> str:
    """The folder of a small network of random weights, named by what it is."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Transformer(vocabulary=10, width=8, depth=1, heads=2, layout="board")
    save_network(net, folder, "", {"model": "sudoku-tokens"})
    return str(folder)


def text(model: str, **changes: str) -> str:
    """The grid's file, with words exchanged."""
    found = TEXT.replace("MODEL", model)
    for old, new in changes.items():
        found = found.replace(old, new)
    return found


def experiment(folder: Path, content: str, size: str = "full"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "grid.yaml").write_text(content)
    return load(str(folder / "grid.yaml"), size)


def small(model: str, **changes):
    """An experiment of one method in four cells."""
    method = {"method": "generate", "sampler": {"preset": "ancestral", "steps": 2}}
    values = {
        "name": "small", "task": "sudoku-tokens", "model": [model], "metrics": {"violations": "min"},
        "problems": {"n": 4, "seed": 3, "difficulty": "easy"}, "shard": 1, "methods": {"one": method},
    }  # fmt: skip
    return checked(Map(values | changes, {}))


def ran(made, folder: Path, executor=None, **more) -> tuple[Store, engine.Status]:
    store = Store(folder)
    store.open(made, "full")
    return store, engine.run(made, store, executor, progress=False, **more)


def contents(store: Store) -> dict[str, bytes]:
    """All files of cells but those of wall-clock time."""
    paths = sorted((store.folder / "cells").glob("*/*"))
    return {path.name: path.read_bytes() for path in paths if ".seconds." not in path.name}


@dataclass(frozen=True)
class Deadly:
    """Runs cells; its process dies by a kill at the cell with this id: once, as the marker remembers it; or always."""

    measure: object
    cell: str
    marker: str | None

    def __call__(self, cell):
        if cell.id == self.cell and not (self.marker and os.path.exists(self.marker)):
            if self.marker:
                open(self.marker, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.measure(cell)


@dataclass(frozen=True)
class DeadlyExecutor:
    """An executor one of whose workers dies."""

    inner: object
    cell: str
    marker: str | None

    def map(self, measure, cells):
        return self.inner.map(Deadly(measure, self.cell, self.marker), cells)


class Failing(Serial):
    """An executor in which cells of a method raise."""

    def __init__(self, label):
        object.__setattr__(self, "label", label)

    def map(self, measure, cells):
        for cell in cells:
            broken = replace(cell, job=cell.job | {"problems": {"n": 4, "difficulty": "none"}})
            outcome = measure(broken if cell.label == self.label else cell)
            yield replace(outcome, cell=cell)
