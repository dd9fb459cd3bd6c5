"""Keep what an experiment measured in bench/results/NAME: `python bench/keep.py FOLDER [NAME]`.

FOLDER is that of `redraft bench run`; NAME is the experiment's own, if not given. What the rest says again is left out:
single cells, samples, and of best-of-N, whose candidates are kept, the rows of all drafts but the last. `redraft bench
report` and `status` read what is kept.

`python bench/keep.py --back FOLDER NAME [LABEL ...]` makes FOLDER of kept rows, so that `redraft bench run --out
FOLDER` goes on with a larger size, or with the entries LABEL, whose results have changed. What needs the samples
themselves, as diversity, is then measured of the new ones alone, and stays as it was for methods without new ones.
Best-of-N is always run again, as not all of its rows are kept.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from measured import RESULTS
from numpy.typing import NDArray

from redraft.bench.cell import packed
from redraft.bench.experiment import SHIPPED, Cell, Experiment, cells, checked, load
from redraft.bench.kept import truths
from redraft.bench.plain import Map, canonical
from redraft.bench.store import NAMES, Store
from redraft.core.errors import RedraftError

PAGES = ("experiment.json", "report.md", "index.html")


def keep(folder: Path, target: Path) -> None:
    """Put what is worth keeping of `folder` into `target`, in place of what is there."""
    for name in PAGES:
        if not (folder / name).exists():
            sys.exit(f"{folder} has no {name}: make its report first")
    tables = {path.stem: pq.read_table(path) for path in folder.glob("*.parquet") if path.stem != "samples"}
    if "candidates" in tables:
        chosen = pa.array(~repeated(tables["rows"], tables["candidates"]))
        tables |= {name: tables[name].filter(chosen) for name in ("rows", "seconds")}
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in PAGES:
        shutil.copy(folder / name, target)
    for name, table in tables.items():
        Store(target).keep(name, table)


def repeated(rows: pa.Table, candidates: pa.Table) -> NDArray[np.bool_]:
    """Which rows (N,) of best-of-N are not a problem's last."""
    cell, problem, draft = (np.array(rows[name].to_pylist()) for name in ("cell", "problem", "draft"))
    _, run = np.unique(np.stack([np.unique(cell, return_inverse=True)[1], problem]), axis=1, return_inverse=True)
    last = np.zeros(run.max() + 1, draft.dtype)
    np.maximum.at(last, run, draft)
    return np.isin(cell, np.unique(candidates["cell"].to_pylist())) & (draft < last[run])


def back(folder: Path, kept: Path, changed: Sequence[str] = ()) -> None:
    """Write the cells whose rows lie in `kept` into `folder`, but for the entries that have `changed`.

    Cells are those of the experiment as it ships now, found by their place in it: a setting that was added since, at
    the value that it had before, gives a cell another id and the same rows.
    """
    about = Store(kept).about()
    experiment = _now(about)
    if experiment.select is not None:
        sys.exit(f"{kept} has settings that were chosen: not all of its rows are kept")
    tables = {name: pq.read_table(kept / f"{name}.parquet") for name in ("rows", "seconds")}
    partly = kept / "candidates.parquet"
    left_out = {*changed} | ({*pq.read_table(partly)["label"].to_pylist()} if partly.exists() else set())
    made = {"versions": about["versions"], "weights": about["weights"]}
    made["truths"] = sorted(truths(tables["rows"], experiment.metrics))
    store, kept_rows = Store(folder), {name: ByPlace(table) for name, table in tables.items()}
    for cell in (cell for cell in cells(experiment) if cell.label not in left_out):
        for name, ending in (("seconds", "seconds.parquet"), ("rows", "parquet")):
            mine = kept_rows[name].of(cell)
            if len(mine):
                mine = mine.replace_schema_metadata({"redraft": canonical(made | {"job": cell.job})})
                store.write(store.path(cell.id, ending), packed(mine))
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("experiment.json", "sets.parquet"):
        if (kept / name).exists():
            shutil.copy(kept / name, folder)


def _now(about: dict[str, Any]) -> Experiment:
    """The experiment as it ships, in full if it has lost the size of `about`; as it was if it does not ship."""
    if not (SHIPPED / f"{about['name']}.yaml").is_file():
        return checked(Map(about["source"], {}))
    try:
        return load(about["name"], about["size"])
    except RedraftError:
        return load(about["name"])


class ByPlace:
    """The rows of all cells, looked up by a cell's place in the experiment: its label, variant, point and seed."""

    def __init__(self, table: pa.Table) -> None:
        """Look through `table` once."""
        self.table = table.drop_columns([*NAMES, "seed"])
        self.problem = np.array(table["problem"].to_pylist())
        self.problems = np.unique(self.problem)
        self.numbers: dict[tuple[Any, ...], list[int]] = {}
        places = (table[name].to_pylist() for name in ("label", "variant", "point", "seed"))
        for number, place in enumerate(zip(*places, strict=True)):
            self.numbers.setdefault(place, []).append(number)

    def of(self, cell: Cell) -> pa.Table:
        """A cell's own columns and rows; none if not all are there."""
        start, stop = cell.job["shard"]
        wanted = self.problems[start:stop]
        mine = np.array(self.numbers.get((cell.label, cell.variant, cell.point, cell.job["seed"]), []), dtype=int)
        mine = mine[np.isin(self.problem[mine], wanted)]
        found = self.table.take(pa.array(mine))
        if len(wanted) < stop - start or len(np.unique(self.problem[mine])) < len(wanted):
            return found.slice(0, 0)
        return found.drop_columns([c for c in found.column_names if found[c].null_count == len(found)])


if __name__ == "__main__":
    if sys.argv[1] == "--back":
        back(Path(sys.argv[2]), RESULTS / sys.argv[3], sys.argv[4:])
    else:
        source = Path(sys.argv[1])
        keep(source, RESULTS / (sys.argv[2] if len(sys.argv) > 2 else str(Store(source).about()["name"])))
