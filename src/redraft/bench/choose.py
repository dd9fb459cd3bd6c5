"""Which setting of a grid is reported: the best on seeds that are for choosing only."""

from __future__ import annotations

import numpy as np

from redraft.bench.curves import curves
from redraft.bench.experiment import Cell, Experiment, cells
from redraft.bench.kept import Rows


def choices(experiment: Experiment, store: Rows, ended: set[str]) -> dict[tuple[str, str], str]:
    """The chosen variant by (model, label), for entries all of whose cells for choosing have `ended`.

    The best mean of the metric at the budget; of equal ones the first. Settings with cells that raised are left out.
    """
    if experiment.select is None:
        return {}
    entries: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells(experiment):
        if cell.role == "tune":
            entries.setdefault(cell.entry, []).append(cell)
    done, _ = store.held()
    complete = {key: some for key, some in entries.items() if all(cell.id in ended for cell in some)}
    return {key: best for key, some in complete.items() if (best := _best(experiment, store, some, done)) is not None}


def scores(experiment: Experiment, store: Rows, some: list[Cell], done: set[str]) -> dict[str, float]:
    """The mean of the metric, by variant, of those among `some` cells all of which are `done`.

    NaN where a unit has no draft within the budget: the others, which are cheaper, would stand for all.
    """
    select = experiment.select
    assert select is not None
    budget = np.array([np.inf if select.budget is None else select.budget])
    found = {}
    for variant in dict.fromkeys(cell.variant for cell in some):
        mine = [cell for cell in some if cell.variant == variant]
        if all(cell.id in done for cell in mine):
            curve = curves(store.read(mine), "tune")[0]
            units, values = np.unique(curve.unit), curve.at("nfe", budget, select.metric)
            short = (curve.rows_within("nfe", budget)[units] < 0).any()
            found[variant] = np.nan if short or np.isnan(values).all() else float(np.nanmean(values))
    return found


def _best(experiment: Experiment, store: Rows, some: list[Cell], done: set[str]) -> str | None:
    assert experiment.select is not None
    sign = 1 if experiment.metrics[experiment.select.metric] == "max" else -1
    found = {v: sign * score for v, score in scores(experiment, store, some, done).items() if score == score}
    return max(found, key=lambda variant: found[variant]) if found else None
