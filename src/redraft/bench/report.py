"""An experiment's report: one HTML page that needs nothing else, and the same tables in Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from typing import Any

import numpy as np
import pyarrow as pa

from redraft.bench.compare import Comparison, Table, selection
from redraft.bench.curves import Curve, by_metric, curves
from redraft.bench.engine import Status, status
from redraft.bench.experiment import Experiment
from redraft.bench.kept import Rows, binary, rows_of
from redraft.bench.samples import AFTER, gallery, shown_before
from redraft.bench.sets import measured, side_by_side
from redraft.bench.store import Store
from redraft.core.errors import RedraftError, unknown
from redraft.report.chart import LEGEND_STYLE, Line, chart, fading
from redraft.report.chart import STYLE as CHART_STYLE
from redraft.report.page import STYLE

TABLE_STYLE = """pre { overflow-x: auto; font-size: .82rem; }
th:first-child, td:first-child { text-align: left; } summary { cursor: pointer; margin-top: 1.5rem; }
"""
ACROSS = {
    "nfe": "network evaluations a problem",
    "calls": "network evaluations and verifier calls a problem",
    "seconds": "seconds a problem",
}


def report(experiment: Experiment, store: Store) -> None:
    """Write index.html, report.md and the compacted tables into the experiment's folder.

    Where these tables are all that was kept they stay as they are, and so do the samples that the page shows.

    Raises:
        RedraftError: no cell is done yet, or a metric to report was never measured; or a file is damaged.
    """
    rows, about = rows_of(experiment, store), store.about()
    now = status(experiment, rows)
    tables = store.compact(now.cells) if rows is store else rows.read(now.cells)
    found = curves(tables, merge_variants=experiment.select is not None)
    if not found:
        raise RedraftError(f"no cell to report is done in {store.folder}: `redraft bench resume {store.folder}`")
    known = [*by_metric(found)]
    for name in experiment.metrics:
        if name not in known:
            raise RedraftError(f"{store.folder / 'experiment.json'}: {unknown('metric', name, known)}")
    judged = binary(tables["rows"], ("score", *experiment.held_out))  # of verifiers: numbers, but some say yes or no
    comparison = Comparison(experiment, found, rows.truths(now.cells) | judged)
    budgets = _budgets(experiment, found)
    made = list(_tables(comparison, rows, now, budgets))
    of_sets = measured(experiment, tables, budgets["nfe"], store.sets())
    made += side_by_side(comparison, of_sets, budgets["nfe"])
    if now.failed:
        made.append(_failures(rows, now))
    page = store.folder / "index.html"
    if rows is store:
        store.keep("sets", pa.Table.from_pylist(of_sets))
    shown = gallery(now.cells, store) if rows is store else shown_before(page)
    store.write(store.folder / "report.md", _markdown(experiment, made, now, about).encode())
    store.write(page, _html(comparison, made, now, about, [*shown]).encode())


def _tables(comparison: Comparison, rows: Rows, now: Status, budgets: dict[str, list[float]]) -> Iterator[Table]:
    experiment = comparison.experiment
    yield comparison.summary()
    tuned = selection(experiment, rows, _chosen(now))
    if tuned:
        yield tuned
    for axis, points in budgets.items():
        for metric in experiment.metrics:
            yield comparison.at_budgets(axis, points, metric)
            less = comparison.differences(axis, points, metric)
            if less:
                yield less
        yield comparison.ranking(axis, points, next(iter(experiment.metrics)))


def _budgets(experiment: Experiment, found: list[Curve]) -> dict[str, list[float]]:
    """Budgets for the tables: those asked for, or four that spread evenly over what was spent."""
    counted = ("nfe", "calls") if experiment.verifier else ("nfe",)
    asked: dict[str, list[float]] = {axis: [*experiment.budgets] for axis in counted}
    asked["seconds"] = [*experiment.seconds]
    for axis, budgets in asked.items():
        ends = [float(end) for curve in found for end in curve.points(axis)[[0, -1]] if end > 0]
        if not budgets and ends:
            even = np.geomspace(min(ends), max(ends), 4)
            asked[axis] = sorted({float(np.ceil(b)) if axis in counted else float(f"{1.01 * b:.3g}") for b in even})
    return asked


def _chosen(now: Status) -> dict[tuple[str, str], str]:
    return {c.entry: c.variant for c in now.cells if c.role == "report" and c.variant}


def _failures(rows: Rows, now: Status) -> Table:
    cells = {cell.id: cell for cell in now.cells if cell.id in now.failed}
    told = [[cells[key].words, error, file] for key, (error, file) in rows.errors([*cells.values()]).items()]
    return Table(
        "Cells that failed", ["cell", "error", "file"], told, "They are tried again by `redraft bench resume`."
    )


def _markdown(experiment: Experiment, tables: list[Table], now: Status, about: dict[str, Any]) -> str:
    parts = [f"# {experiment.name}", experiment.claim, str(now) + "."]
    for table in tables:
        parts += [f"## {table.title}", table.markdown(), table.note]
    parts.append(_made_with(about))
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


def _made_with(about: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    weights = ", ".join(f"{name} {mark}" for name, mark in about["weights"].items() if mark)
    mixed = "; some cells were made before, with " + "; ".join(about["changes"]) if about["changes"] else ""
    return f"Size {about['size']}; {versions}" + (f"; weights: {weights}" if weights else "") + mixed + "."


def _html(comparison: Comparison, tables: list[Table], now: Status, about: dict[str, Any], shown: list[str]) -> str:
    experiment = comparison.experiment
    parts = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Redraft: {escape(experiment.name)}</title>",
        f"<style>{STYLE}{CHART_STYLE}{LEGEND_STYLE}{fading(len(comparison.curves))}{TABLE_STYLE}</style>\n</head>\n<body>",
        f'<h1>{escape(experiment.name)}</h1>\n<p>{escape(experiment.claim)}</p>\n<p class="soft">{now}.</p>',
        _table(tables[0]),
        *_charts(comparison),
        *(_table(table) for table in tables[1:]),
        *shown,
        f"{AFTER}\n<details><summary>The experiment's file, resolved</summary>",
        f"<pre>{escape(json.dumps(about['source'], indent=1))}</pre></details>",
        f"<footer>{escape(_made_with(about))}</footer>\n</body>\n</html>\n",
    ]
    return "\n".join(parts)


def _charts(comparison: Comparison) -> Iterator[str]:
    asked = [*comparison.experiment.metrics]
    more = [name for name in by_metric(comparison.curves) if name not in asked]
    for metric in asked:
        yield from _pair(comparison, metric)
    yield '<p class="soft">Means over units, with 95 % bands; a method has a point where every unit has a draft.</p>'
    if more:
        yield f"<details><summary>Also measured: {escape(', '.join(more))}</summary>"
        for metric in more:
            yield from _pair(comparison, metric)
        yield "</details>"


def _pair(comparison: Comparison, metric: str) -> Iterator[str]:
    """A metric against compute."""
    yield f"<h2>{escape(metric)}</h2>"
    for axis, across in ACROSS.items():
        if axis != "calls" or comparison.experiment.verifier:
            yield chart([line(comparison, curve, axis, metric) for curve in comparison.curves], metric, across)


def line(comparison: Comparison, curve: Curve, axis: str, metric: str) -> Line:
    """A metric of one method with its band, at every draft."""
    x = curve.points(axis)
    found = comparison.of(curve, axis, x, metric)
    return Line(curve.name, x, found.mean, found.low, found.high)


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(word)}</th>" for word in table.head)
    rows = ("<tr>" + "".join(f"<td>{escape(word)}</td>" for word in row) + "</tr>" for row in table.rows)
    note = f'<p class="soft">{escape(table.note)}</p>' if table.note else ""
    return (
        f'<h2>{escape(table.title)}</h2>\n<div class="scroll"><table><thead><tr>{head}</tr></thead>\n'
        f"<tbody>{''.join(rows)}</tbody></table></div>{note}"
    )
