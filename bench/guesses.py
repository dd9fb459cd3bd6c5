"""Guesses drawn as the sampler draws beside those from the network's own distribution, in Markdown.

    redraft bench run iterref-python --size guesses
    python bench/guesses.py runs/bench/iterref-python-guesses

Both draw from the same numbers, so differences are paired by problem.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from redraft.bench.compare import Comparison, Table
from redraft.bench.curves import Curve, curves
from redraft.bench.experiment import checked
from redraft.bench.kept import truths
from redraft.bench.plain import Map

KINDS = ("guess=sampler", "guess=network")


def compared(folder: Path) -> Table:
    """The first metric of each method with either guess, and the difference, at the experiment's budgets."""
    experiment = checked(Map(json.loads((folder / "experiment.json").read_text())["source"], {}))
    rows = {path.stem: pq.read_table(path) for path in folder.glob("*.parquet")}
    found = curves(rows, merge_variants=False)
    comparison = Comparison(experiment, found, truths(rows["rows"], experiment.metrics))
    budgets, metric = np.array(experiment.budgets, dtype=float), next(iter(experiment.metrics))
    by_name = {curve.name: curve for curve in found}
    pairs = {name: [by_name[f"{name}, {kind}"] for kind in KINDS] for name in _methods(found)}
    lines = [line for name, pair in pairs.items() for line in _lines(comparison, name, pair, budgets, metric)]
    return Table(experiment.name, ["method", metric, *(f"{budget:g} NFE" for budget in budgets)], lines)


def _methods(found: list[Curve]) -> list[str]:
    end = f", {KINDS[0]}"
    return [curve.name.removesuffix(end) for curve in found if curve.name.endswith(end)]


def _lines(comparison: Comparison, name: str, pair: list[Curve], budgets: np.ndarray, metric: str) -> list[list[str]]:
    own, raw = (comparison.values(curve, "nfe", budgets, metric) for curve in pair)
    parts = {"sampler": own, "network": raw, "difference": own - raw}
    return [
        [name, what, *map(comparison.estimate(values).words, range(len(budgets)))] for what, values in parts.items()
    ]


if __name__ == "__main__":
    for given in sys.argv[1:]:
        print(f"\n{given}\n\n{compared(Path(given)).markdown()}")
