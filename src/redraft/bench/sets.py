"""What only a set of samples has, such as its diversity: of the samples that each method has within a budget."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from tqdm.auto import tqdm

from redraft.bench.cell import loaded
from redraft.bench.compare import Comparison, Table
from redraft.bench.curves import curves
from redraft.bench.experiment import Experiment
from redraft.bench.plain import canonical
from redraft.core.errors import RedraftError

Row = dict[str, Any]


def measured(
    experiment: Experiment, tables: dict[str, pa.Table], budgets: Sequence[float], before: Sequence[Row] = ()
) -> list[Row]:
    """The task's `evaluate_set` for every method and budget, NFE, at which each of its units has a sample.

    Units of which some cell kept no samples are left out for all methods: what is said of a set depends on its size.
    Methods that kept none at all have what was measured of as many samples before; so have all, if there are none.

    Args:
        experiment: what was run.
        tables: of `Store.compact`.
        budgets: NFE.
        before: rows that were measured when there were more samples.

    Returns:
        rows of method, budget, samples (how many), metric and value; none if the task has no such metrics.
    """
    asked = set(budgets)
    if not len(tables["samples"]):
        return [row for row in before if row["budget"] in asked]
    task = loaded("task", canonical(experiment.task.plain()))
    problems = task.problems(**experiment.problems)
    problems = problems[problems.ids.argsort()]
    kept = tables["samples"]["sample"].combine_chunks()
    samples = torch.tensor(kept.flatten().to_numpy()).reshape(len(kept), -1)
    owners = torch.tensor(tables["samples"]["problem"].to_numpy())
    _check(tables["samples"], torch.isin(owners, problems.ids))
    shown = curves(_numbered(tables), merge_variants=experiment.select is not None)
    found = []
    for curve in tqdm(shown, desc="sets of samples", unit="method", dynamic_ncols=True, disable=None, leave=False):
        chosen = curve.at("nfe", np.array(budgets, dtype=float), "sample")[np.unique(curve.unit)]
        for budget, some in zip(budgets, chosen.T, strict=True):
            if not np.isnan(some).any():
                which = torch.from_numpy(some.astype(np.int64))
                theirs = problems[torch.searchsorted(problems.ids, owners[which])]
                about = {"method": curve.name, "budget": budget, "samples": len(which)}
                values = task.evaluate_set(samples[which], theirs)
                found += [about | {"metric": metric, "value": value} for metric, value in values.items()]
    sizes = {row["samples"] for row in found}
    new = {curve.name for curve in shown}
    return found + [
        row for row in before if row["method"] not in new and row["samples"] in sizes and row["budget"] in asked
    ]


def _check(samples: pa.Table, known: torch.Tensor) -> None:
    """Raise unless all samples (N,) are of problems that are `known`."""
    if not known.all():
        row = int((~known).int().argmax())
        cell, problem = samples["cell"][row].as_py(), samples["problem"][row].as_py()
        raise RedraftError(
            f"cells/{cell[:2]}/{cell}.samples.parquet has samples of problem {problem}, which the experiment has not: "
            f"delete {cell}.parquet beside it and go on with `redraft bench resume`"
        )


def side_by_side(comparison: Comparison, found: Sequence[Row], budgets: Iterable[float]) -> Iterator[Table]:
    """For each budget the metrics of samples, with their intervals, beside those of sets."""
    for budget in budgets:
        here = {(row["method"], row["metric"]): row["value"] for row in found if row["budget"] == budget}
        names = dict.fromkeys(metric for _, metric in here)
        if not here:
            continue
        rows = []
        for curve in comparison.curves:
            point = np.array([budget], dtype=float)
            single = [comparison.of(curve, "nfe", point, m).words() for m in comparison.experiment.metrics]
            whole = [f"{here[curve.name, m]:.3g}" if (curve.name, m) in here else "" for m in names]
            rows.append([curve.name, *single, *whole])
        head = ["method", *comparison.experiment.metrics, *names]
        sizes = {row["samples"] for row in found if row["budget"] == budget}
        note = f"Sets of {' to '.join(str(size) for size in sorted({min(sizes), max(sizes)}))} samples."
        yield Table(f"Quality and diversity at {budget:g} NFE", head, rows, note)


def _numbered(tables: dict[str, pa.Table]) -> dict[str, pa.Table]:
    """The tables with the number of each row's sample, without methods that have none and units that some lack."""
    place = {key: number for number, key in enumerate(_keys(tables["samples"]))}
    numbers = [place.get(key) for key in _keys(tables["rows"])]
    labels, *pair = (tables["rows"][name].to_pylist() for name in ("label", "problem", "seed"))
    whose = [*zip(labels, zip(*pair, strict=True), numbers, strict=True)]
    sampled = {label for label, _, number in whose if number is not None}
    lacking = {unit for label, unit, number in whose if number is None and label in sampled}
    kept = pa.array([label in sampled and unit not in lacking for label, unit, _ in whose])
    rows = tables["rows"].append_column("sample", pa.array(numbers, pa.int64()))
    return {"rows": rows.filter(kept), "seconds": tables["seconds"].filter(kept), "candidates": pa.table({})}


def _keys(rows: pa.Table) -> Iterator[tuple[Any, ...]]:
    return zip(*(rows[name].to_pylist() for name in ("cell", "role", "problem", "draft")), strict=True)
