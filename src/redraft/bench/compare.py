"""Methods compared at equal compute: means with bootstrap intervals, paired differences, ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from redraft.bench.choose import scores
from redraft.bench.curves import Curve, Floats, taken
from redraft.bench.experiment import Experiment, cells
from redraft.bench.store import Store
from redraft.report.statistics import (
    bootstrap_weights,
    percentiles,
    ranks,
    weighted_means,
    wilson,
)

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
        return f"{mean:.4g} ({low:.4g} to {high:.4g})"


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
        """Of the mean over units of values (units, K); of a share of 0 or 1 resampling sees no spread: Wilson's."""
        means = weighted_means(self.weights, values)
        mean = weighted_means(np.ones((1, len(values))), values)[0]
        low, high = percentiles(means)
        for k in np.flatnonzero((low == high) & np.isin(mean, (0, 1)) & share):
            n = len(np.unique(np.flatnonzero(~np.isnan(values[:, k])) // len(self.curves[0].units.seeds)))
            low[k], high[k] = wilson(round(float(mean[k])) * n, n)
        unknown = np.isnan(mean)
        return Estimate(mean, np.where(unknown, np.nan, low), np.where(unknown, np.nan, high), means)

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
            words = self._ranked([found[i].draws[:, k] for i in known], metric) if known else []
            for i, row in enumerate(rows):
                row.append(words[known.index(i)] if i in known else "")
        note = "Mean rank with its 95 % interval, and the share of bootstrap samples in which the method is best."
        return Table(f"Ranks by {metric} at equal {AXES[axis]}", _head(axis, budgets), rows, note)

    def _ranked(self, draws: list[Floats], metric: str) -> list[str]:
        places = ranks(np.stack(draws, 1), self.experiment.metrics.get(metric, "max") == "max")
        low, high = percentiles(places)
        best = (places == places.min(1, keepdims=True)) / (places == places.min(1, keepdims=True)).sum(1, keepdims=True)
        return [
            f"{places[:, i].mean():.1f} ({low[i]:.3g} to {high[i]:.3g}), best {100 * best[:, i].mean():.0f} %"
            for i in range(len(draws))
        ]


def selection(experiment: Experiment, store: Store, chosen: dict[tuple[str, str], str]) -> Table | None:
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
