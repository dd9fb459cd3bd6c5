"""From stored rows to what is compared: each method's metrics at any budget, unit by unit.

A unit is a problem under a seed. At a budget it has the metrics of its last row within it: the drafts of a run and, for
methods with a `scale`, those of all its runs are such rows, and of best-of-N one for each number of candidates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from redraft.core.errors import unknown
from redraft.report.statistics import best_of_k

Floats = NDArray[np.float64]
NAMES = ("cell", "role", "model", "label", "variant", "point", "seed", "problem", "draft")
COSTS = ("nfe", "critic", "verifier_calls", "calls", "seconds")
MOST_POINTS = 48  # of a curve


@dataclass(frozen=True)
class Units:
    """Problems (P,) by id and seeds (S,); the unit of problem i and seed j is number i * S + j."""

    problems: NDArray[np.int64]
    seeds: NDArray[np.int64]

    def __len__(self) -> int:
        """How many units."""
        return len(self.problems) * len(self.seeds)

    def number(self, problem: NDArray[np.int64], seed: NDArray[np.int64]) -> NDArray[np.int64]:
        """Units (N,) of rows; -1 for those that are no units."""
        place, column = np.searchsorted(self.problems, problem), np.searchsorted(self.seeds, seed)
        place, column = place.clip(max=len(self.problems) - 1), column.clip(max=len(self.seeds) - 1)
        known = (self.problems[place] == problem) & (self.seeds[column] == seed)
        found: NDArray[np.int64] = np.where(known, place * len(self.seeds) + column, -1)
        return found


@dataclass(frozen=True)
class Curve:
    """The rows of one method.

    Attributes:
        name: of the method.
        units: among which its rows are.
        unit: of each row (N,).
        step: numbers (N,) that are equal for rows of one draft of one run.
        columns: nfe, calls (nfe and verifier calls together), seconds and metrics (N,) by name.
        entry: the model and the label that it is of.
    """

    name: str
    units: Units
    unit: NDArray[np.int64]
    step: NDArray[np.int64]
    columns: dict[str, Floats]
    entry: tuple[str, str] = ("", "")

    def at(self, axis: str, budgets: Floats, metric: str) -> Floats:
        """The metric (units, K) within each of the budgets (K,); NaN where there is no draft yet.

        Raises:
            RedraftError: there is no such metric.
        """
        return taken(self.metric(metric), self.rows_within(axis, budgets))

    def last(self, metric: str) -> Floats:
        """The metric (units, 1) at the end."""
        return self.at("nfe", np.array([np.inf]), metric)

    def metric(self, name: str) -> Floats:
        """A metric (N,) of all rows.

        Raises:
            RedraftError: there is none of that name.
        """
        if name not in self.columns:
            raise unknown("metric", name, self.columns)
        return self.columns[name]

    def rows_within(self, axis: str, budgets: Floats) -> NDArray[np.int64]:
        """The last row (units, K) of each unit within each budget (K,); -1 where there is none."""
        order, x = self._sorted(axis)
        starts = np.flatnonzero(np.diff(self.unit[order], prepend=-2))
        count = np.add.reduceat(x[:, None] <= budgets, starts, dtype=np.int64)
        found = np.full((len(self.units), len(budgets)), -1)
        found[self.unit[order[starts]]] = np.where(count > 0, order[(starts[:, None] + count - 1).clip(min=0)], -1)
        return found

    def points(self, axis: str) -> Floats:
        """Budgets at which one more draft of every unit is within; `MOST_POINTS` of them at most."""
        x = self.columns[axis]
        steps = np.unique(self.step)
        most = np.unique([x[self.step == step].max() for step in steps])
        chosen = np.unique(np.linspace(0, len(most) - 1, min(MOST_POINTS, len(most))).round().astype(int))
        found: Floats = most[chosen]
        return found

    def _sorted(self, axis: str) -> tuple[NDArray[np.int64], Floats]:
        x = self.columns[axis]
        order = np.lexsort((self.step, x, self.unit))
        return order, x[order]

    @cached_property
    def metrics(self) -> list[str]:
        """What is known of drafts besides their cost."""
        return [name for name in self.columns if name not in COSTS]


def taken(values: Floats, rows: NDArray[np.int64]) -> Floats:
    """The values (N,) of rows (units, K); NaN for rows -1."""
    return np.where(rows >= 0, values[rows.clip(min=0)], np.nan)


def curves(tables: dict[str, pa.Table], role: str = "report", merge_variants: bool = False) -> list[Curve]:
    """The curves of all methods, in the order of the rows.

    Args:
        tables: of `Store.compact`.
        role: 'report' or 'tune'.
        merge_variants: name methods by their labels alone, where a variant has been chosen.
    """
    rows = _of_role(tables["rows"], role)
    if not len(rows):
        return []
    plain = {name: rows[name].to_numpy() for name in ("problem", "seed")}
    units = Units(np.unique(plain["problem"]), np.unique(plain["seed"]))
    timed = rows.append_column("seconds", _of_role(tables["seconds"], role)["seconds"])
    names = _method_names(timed, merge_variants)
    several = len(set(timed["model"].to_pylist())) > 1
    made = []
    for name in dict.fromkeys(names):
        mine = timed.filter(pa.array([other == name for other in names]))
        shown = ", ".join(name if several else name[1:])
        made.append(replace(_curve(shown, mine, units, tables["candidates"]), entry=(name[0], name[1])))
    return made


def _of_role(table: pa.Table, role: str) -> pa.Table:
    return table.filter(pc.equal(table["role"].cast(pa.string()), role)) if len(table) else table


def _method_names(rows: pa.Table, merge_variants: bool) -> list[tuple[str, ...]]:
    parts = [rows[name].to_pylist() for name in ("model", "label", "variant")]
    return [(m, label) if merge_variants or not variant else (m, label, variant)
            for m, label, variant in zip(*parts, strict=True)]  # fmt: skip


def _curve(name: str, rows: pa.Table, units: Units, candidates: pa.Table) -> Curve:
    cells = rows["cell"].to_pylist()
    of_these = _candidates(candidates, set(cells))
    if of_these:
        return _order_statistics(name, rows, units, of_these)
    columns = {n: _floats(rows[n]) for n in rows.column_names if n not in NAMES}
    columns = _known(columns)
    unit = units.number(rows["problem"].to_numpy(), rows["seed"].to_numpy())
    point = {p: i for i, p in enumerate(dict.fromkeys(rows["point"].to_pylist()))}
    run = np.array([point[p] for p in rows["point"].to_pylist()])
    step = run * (int(rows["draft"].to_numpy().max()) + 1) + rows["draft"].to_numpy()
    whole = _whole(unit, run)
    return Curve(name, units, unit[whole], step[whole], {n: c[whole] for n, c in columns.items()})


def _whole(unit: NDArray[np.int64], run: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Rows (N,) of units that have every run, if any do: others, not finished or failed, stand for smaller budgets."""
    units, runs = np.unique(np.stack([unit, run]), axis=1)
    count = np.bincount(units)
    found: NDArray[np.bool_] = count[unit] == len(np.unique(runs))
    return found if found.any() else np.ones_like(found)


def _known(columns: dict[str, Floats]) -> dict[str, Floats]:
    """The columns that hold a number, and calls."""
    known = {n: c for n, c in columns.items() if not np.isnan(c).all()}
    return known | {"calls": columns["nfe"] + columns["verifier_calls"]}


def _floats(column: Any) -> Floats:
    values: Floats = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return values


def _candidates(table: pa.Table, cells: set[str]) -> dict[tuple[str, int], pa.Table]:
    """The candidates of each problem of each of the `cells`."""
    if not len(table):
        return {}
    mine = table.filter(pa.array([cell in cells for cell in table["cell"].to_pylist()]))
    rows: dict[tuple[str, int], list[int]] = {}
    for row, key in enumerate(zip(mine["cell"].to_pylist(), mine["problem"].to_pylist(), strict=True)):
        rows.setdefault(key, []).append(row)
    return {key: mine.take(numbers) for key, numbers in rows.items()}


def _order_statistics(name: str, rows: pa.Table, units: Units, candidates: dict[tuple[str, int], pa.Table]) -> Curve:
    """Best-of-k for every k, from each unit's largest run."""
    ends = _ends(rows)
    largest: dict[int, tuple[str, int]] = {}
    for key, found in candidates.items():
        unit = int(units.number(np.array([key[1]]), found["seed"].to_numpy()[:1])[0])
        if unit not in largest or len(found) > len(candidates[largest[unit]]):
            largest[unit] = key
    metrics = [n for n in next(iter(candidates.values())).column_names if n not in NAMES]
    parts = [_best(candidates[key], metrics, ends[key]) for key in largest.values()]
    sizes = [len(part["nfe"]) for part in parts]
    columns = {n: np.concatenate([part[n] for part in parts]) for n in parts[0]}
    columns = _known(columns)
    numbers = np.repeat([*largest], sizes)
    return Curve(name, units, numbers, np.concatenate([np.arange(size) for size in sizes]), columns)


def _ends(rows: pa.Table) -> dict[tuple[str, int], dict[str, float]]:
    """What each problem of each cell cost in all."""
    costs = {n: _floats(rows[n]) for n in ("nfe", "critic", "verifier_calls", "seconds")}
    keys = zip(rows["cell"].to_pylist(), rows["problem"].to_pylist(), strict=True)
    found: dict[tuple[str, int], dict[str, float]] = {}
    for row, key in enumerate(keys):
        here = {n: float(column[row]) for n, column in costs.items()}
        if key not in found or here["nfe"] >= found[key]["nfe"]:
            found[key] = here
    return found


def _best(candidates: pa.Table, metrics: list[str], cost: dict[str, float]) -> dict[str, Floats]:
    values = np.stack([_floats(candidates[n]) for n in metrics], 1)
    expected = best_of_k(_floats(candidates["reward"]), values)
    share = np.arange(1, len(values) + 1) / len(values)
    return {n: share * c for n, c in cost.items()} | {n: expected[:, i] for i, n in enumerate(metrics)}


def by_metric(found: list[Curve]) -> Iterator[str]:
    """Metrics that some curve has, in order."""
    return iter(dict.fromkeys(name for curve in found for name in curve.metrics))
