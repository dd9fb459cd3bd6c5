"""Methods compared at equal compute: means with bootstrap intervals, paired differences, ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from redraft.bench.choose import scores
from redraft.bench.curves import Curve, Floats, taken
from redraft.bench.experiment import Experiment, cells
from redraft.bench.kept import Rows
from redraft.report.statistics import (
    FEWEST,
    bootstrap_weights,
    percentiles,
    ranks,
    weighted_means,
    wilson,
)

FEW = f"n < {FEWEST}"
WORDS = {"nfe": "NFE", "calls": "calls", "seconds": "s"}
AXES = {"nfe": "NFE", "calls": "NFE and verifier calls together", "seconds": "wall time"}


@dataclass(frozen=True)
class Table:
    """Words in rows; the first column names them."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def markdown(self) -> str:
        """The words in Markdown, without title and note."""
        lines = [self.head, ["---" for _ in self.head], *self.rows]
        return "\n".join("| " + " | ".join(word.replace("|", "\\|") for word in line) + " |" for line in lines)


@dataclass(frozen=True)
class Estimate:
    """Means (K,) with 95 % intervals, NaN where there is none, and the bootstrap's means (draws, K)."""

    mean: Floats
    low: Floats
    high: Floats
    draws: Floats = field(repr=False)

    def words(self, k: int = 0) -> str:
        """Mean and interval."""
        if np.isnan(self.mean[k]):
            return ""
        mean, low, high = (round(float(v[k]), 12) + 0.0 for v in (self.mean, self.low, self.high))  # no -0, no 1e-17
        return f"{mean:.4g} ({FEW if np.isnan(low) else f'{low:.4g} to {high:.4g}'})"


@dataclass(frozen=True)
class Comparison:
    """The curves of an experiment.

    Attributes:
        experiment: what was run.
        curves: of its methods.
        truths: metrics that are true or false of a sample.
        draws: of the bootstrap.
    """

    experiment: Experiment
    curves: list[Curve]
    truths: frozenset[str] = frozenset()
    draws: int = 1000

    @cached_property
    def weights(self) -> Floats:
        """Of units, the same for all methods: so differences are paired by problem and seed."""
        units = self.curves[0].units
        return bootstrap_weights(len(units.problems), len(units.seeds), self.draws)

    def estimate(self, values: Floats, share: bool = False) -> Estimate:
        """Of the mean over units of values (units, K): the bootstrap's interval, of fewer than `FEWEST` problems none.

        Of a `share` it is Wilson's where the bootstrap has none, or sees no spread as all are 0 or 1.
        """
        means = weighted_means(self.weights, values)
        mean = weighted_means(np.ones((1, len(values))), values)[0]
        low, high = percentiles(means)
        counts = self._counts(values)
        unsure = counts < FEWEST
        low[unsure] = high[unsure] = np.nan
        for k in np.flatnonzero(share & (unsure | ((low == high) & np.isin(mean, (0, 1)))) & ~np.isnan(mean)):
            low[k], high[k] = wilson(float(mean[k]) * counts[k], int(counts[k]))
        unknown = np.isnan(mean)
        return Estimate(mean, np.where(unknown, np.nan, low), np.where(unknown, np.nan, high), means)

    def _counts(self, values: Floats) -> NDArray[np.int64]:
        """Of how many problems something is known in values (units, K); of an only problem, of how many seeds."""
        units = self.curves[0].units
        known = ~np.isnan(values.reshape(len(units.problems), len(units.seeds), -1))
        counts: NDArray[np.int64] = (known.any(1) if len(units.problems) > 1 else known[0]).sum(0)
        return counts

    def of(self, curve: Curve, axis: str, budgets: Floats, metric: str) -> Estimate:
        """Of a metric of one method within budgets (K,)."""
        return self.estimate(self.values(curve, axis, budgets, metric), metric in self.truths)

    def values(self, curve: Curve, axis: str, budgets: Floats, metric: str) -> Floats:
        """The metric (units, K) within the budgets; NaN throughout where some unit has no draft within."""
        if metric not in curve.columns:
            return np.full((len(curve.units), len(budgets)), np.nan)
        rows = curve.rows_within(axis, budgets)
        values = taken(curve.metric(metric), rows)
        present = np.unique(curve.unit)
        values[:, (rows[present] < 0).any(0)] = np.nan
        return values

    def best(self, curve: Curve, axis: str, budgets: Floats, metric: str) -> Floats:
        """The metric (units, K) at that one of the budgets (K,), up to each, at which its mean is best.

        More compute need not be better, and whoever has a budget may spend less than it. As the choice is made on the
        very values, it flatters the method, if anything.
        """
        values = self.values(curve, axis, budgets, metric)
        means = weighted_means(np.ones((1, len(values))), values)[0]
        worth = means if self.experiment.metrics.get(metric, "max") == "max" else -means
        worth = np.where(np.isnan(worth), -np.inf, worth)
        within = np.where(budgets[None] <= budgets[:, None], worth, -np.inf)
        chosen: Floats = values[:, within.argmax(1)]
        return chosen

    def summary(self) -> Table:
        """Every method at its end."""
        metrics = [*self.experiment.metrics]
        head = ["method", "units", "NFE", "verifier calls", "seconds a problem", *metrics]
        rows = []
        for curve in self.curves:
            costs = [f"{np.nanmean(curve.last(n)):.4g}" for n in ("nfe", "verifier_calls", "seconds")]
            ends = [self.of(curve, "nfe", np.array([np.inf]), m).words() for m in metrics]
            rows.append([curve.name, str(len(np.unique(curve.unit))), *costs, *ends])
        note = "A unit is a problem under a seed. Means with 95 % intervals, bootstrapped over problems."
        return Table("Where each method ends", head, rows, note)

    def at_budgets(self, axis: str, budgets: Sequence[float], metric: str) -> Table:
        """A metric of all methods at budgets."""
        points = np.array(budgets, dtype=float)
        rows = [
            [curve.name, *map(self.of(curve, axis, points, metric).words, range(len(points)))] for curve in self.curves
        ]
        return Table(f"{metric} at equal {AXES[axis]}", _head(axis, budgets), rows)

    def differences(self, axis: str, budgets: Sequence[float], metric: str) -> Table | None:
        """A metric less the best that the baseline has within, with the same model, paired by problem and seed."""
        name, points = self.experiment.baseline, np.array(budgets, dtype=float)
        bases = {curve.entry[0]: curve for curve in self.curves if curve.entry[1] == name}
        if not bases:
            return None
        theirs = {model: self.best(base, axis, points, metric) for model, base in bases.items()}
        rows = []
        for curve in self.curves:
            if curve.entry[1] != name and curve.entry[0] in theirs:
                found = self.estimate(self.values(curve, axis, points, metric) - theirs[curve.entry[0]])
                rows.append([curve.name, *map(found.words, range(len(points)))])
        title = f"{metric}: difference from {name} at its best within equal {AXES[axis]}, paired by problem"
        return Table(title, _head(axis, budgets), rows)

    def ranking(self, axis: str, budgets: Sequence[float], metric: str) -> Table:
        """Ranks of the methods at budgets: mean and 95 % interval over the bootstrap, and how often each is best."""
        points = np.array(budgets, dtype=float)
        found = [self.of(curve, axis, points, metric) for curve in self.curves]
        rows = [[curve.name] for curve in self.curves]
        for k in range(len(points)):
            known = [i for i, e in enumerate(found) if not np.isnan(e.mean[k])]
            words = self._ranked([found[i] for i in known], k, metric) if known else []
            for i, row in enumerate(rows):
                row.append(words[known.index(i)] if i in known else "")
        note = "Mean rank with its 95 % interval, and the share of bootstrap samples in which the method is best."
        return Table(f"Ranks by {metric} at equal {AXES[axis]}", _head(axis, budgets), rows, note)

    def _ranked(self, found: list[Estimate], k: int, metric: str) -> list[str]:
        """Rank of each, at the budget number `k`, in words."""
        best_first = self.experiment.metrics.get(metric, "max") == "max"
        if self.curves[0].units.drawn < FEWEST:
            return [f"{rank:.3g} ({FEW})" for rank in ranks(np.array([[e.mean[k] for e in found]]), best_first)[0]]
        places = ranks(np.stack([e.draws[:, k] for e in found], 1), best_first)
        low, high = percentiles(places)
        best = (places == places.min(1, keepdims=True)) / (places == places.min(1, keepdims=True)).sum(1, keepdims=True)
        return [
            f"{places[:, i].mean():.1f} ({low[i]:.3g} to {high[i]:.3g}), best {100 * best[:, i].mean():.0f} %"
            for i in range(len(found))
        ]


def selection(experiment: Experiment, store: Rows, chosen: dict[tuple[str, str], str]) -> Table | None:
    """What the settings of each grid reached on the seeds that are for choosing."""
    select = experiment.select
    if select is None:
        return None
    done, _ = store.held()
    rows = []
    tuned = [cell for cell in cells(experiment) if cell.role == "tune"]
    for model, label in dict.fromkeys(cell.entry for cell in tuned):
        some = [cell for cell in tuned if cell.entry == (model, label)]
        for variant, score in scores(experiment, store, some, done).items():
            mark = "chosen" if chosen.get((model, label)) == variant else ""
            rows.append([f"{label}, {variant}", model, f"{score:.4g}", mark])
    at = f" at {select.budget} NFE" if select.budget else ""
    head = ["setting", "model", f"{select.metric}{at}", ""]
    others = f"Seeds {', '.join(map(str, select.seeds))}; none of these runs is in the other tables."
    return Table("How settings were chosen", head, rows, others)


def _head(axis: str, budgets: Sequence[float]) -> list[str]:
    return ["method", *(f"{budget:g} {WORDS[axis]}" for budget in budgets)]
