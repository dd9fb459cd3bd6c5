"""What docs/experiments.md shows of the kept rows of `redraft bench run`; bench/tables.py fills it in."""

from __future__ import annotations

import json
from functools import cache, partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from cells import UNMEASURED
from measured import RESULTS

from redraft.bench.compare import Comparison
from redraft.bench.curves import curves
from redraft.bench.experiment import checked
from redraft.bench.kept import truths
from redraft.bench.plain import Map
from redraft.bench.report import ACROSS, line
from redraft.bench.sets import side_by_side
from redraft.report.chart import figure

NAMES = (
    "ipr-sudoku",
    "samplers-sudoku",
    "samplers-python",
    "gstar-python",
    "gstar-python-main",
    "gstar-ablation",
    "gstar-python-whole",
    "gstar-python-infilling",
    "iterref-sudoku",
    "iterref-sudoku-tune",
    "iterref-python",
    "iterref-python-tune",
    "iterref-python-parses",
    "iterref-python-raise",
    "search-digits",
    "steering-digits",
)
AT = 128  # evaluations, where there is a table of quality and diversity; and at the most
REWARDED = ("best-of-n", "fk", "beam", "iterref", "iterref, at the end", "ipr", "ipr with blame")
DRAWN: dict[str, tuple[str, tuple[str, ...]]] = {  # a metric, and methods where not all are drawn
    "ipr-sudoku": ("valid", ()),
    "samplers-sudoku": ("valid", ("ancestral", "remdm-conf", "p2", "llada", "token-critic", "g-star+")),
    "samplers-python": ("parses", ("ancestral", "maskgit", "remdm-conf", "star", "llada", "g-star+")),
    "gstar-python": ("nll", ("ancestral", "remdm-cap", "star+", "g-star+", "g-star+, two blocks")),
    "iterref-sudoku": ("score", REWARDED),
    "iterref-python": ("score", REWARDED),
    "iterref-python-parses": ("score", REWARDED),
    "iterref-python-raise": ("score", REWARDED),
    "search-digits": ("right", ()),
    "steering-digits": ("score", ()),
}


@cache
def comparison(name: str) -> Comparison:
    """The curves of an experiment's kept rows."""
    folder = RESULTS / name
    found = checked(Map(json.loads((folder / "experiment.json").read_text())["source"], {}))
    kept = dict.fromkeys(("seconds", "candidates"), pa.table({}))
    kept |= {path.name.removesuffix(".parquet"): pq.read_table(path) for path in folder.glob("*.parquet")}
    shares = truths(kept["rows"], found.metrics)
    return Comparison(found, curves(kept, merge_variants=found.select is not None), shares)


def of(name: str) -> str:
    """The figure, and folded below it the tables."""
    if not (RESULTS / name / "rows.parquet").exists():
        return UNMEASURED
    shown = f"![{DRAWN[name][0]} against network evaluations](curves/{name}.svg)\n\n" if name in DRAWN else ""
    return f"{shown}<details><summary>Tables</summary>\n\n{tables(name)}\n\n</details>"


def drawn(name: str) -> str:
    """A metric of an experiment against evaluations, as an SVG file."""
    metric, methods = DRAWN[name]
    found = comparison(name)
    lines = [line(found, curve, "nfe", metric) for curve in found.curves if not methods or curve.name in methods]
    return figure(lines, metric, ACROSS["nfe"])


def tables(name: str) -> str:
    """Metrics at equal evaluations, and what the first one differs from the baseline's.

    Where sets were measured the other metrics stand beside those of sets, at two budgets.
    """
    found = comparison(name)
    budgets = found.experiment.budgets
    first, *others = found.experiment.metrics
    made = [found.at_budgets("nfe", budgets, first), found.differences("nfe", budgets, first)]
    if found.experiment.verifier:
        made.append(found.at_budgets("calls", budgets, first))
    sets = RESULTS / name / "sets.parquet"
    if sets.exists():
        shown = dict.fromkeys((min(AT, budgets[-1]), budgets[-1]))
        made += side_by_side(found, pq.read_table(sets).to_pylist(), shown)
    else:
        made += [found.at_budgets("nfe", budgets, metric) for metric in others]
    units = max(len(np.unique(curve.unit)) for curve in found.curves)
    parts = [f"**{t.title}**, {units} units{t.note and '. ' + t.note}\n\n{t.markdown()}" for t in made if t]
    return "\n\n".join(parts)


TABLES = {f"experiment {name}": partial(of, name) for name in NAMES}
FIGURES = {f"{name}.svg": partial(drawn, name) for name in DRAWN if (RESULTS / name / "rows.parquet").exists()}
