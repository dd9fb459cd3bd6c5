"""Keep what an experiment measured in bench/results/NAME: `python bench/keep.py FOLDER [NAME]`.

FOLDER is that of `redraft bench run`; NAME is the experiment's own, if not given. What the rest says again is left out:
single cells, samples, and of best-of-N, whose candidates are kept, the rows of all drafts but the last.

`python bench/keep.py --back FOLDER NAME` makes FOLDER of kept rows, so that `redraft bench run --out FOLDER` goes on
with a larger size. What needs the samples themselves, as diversity, is then measured of the new ones alone.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from cells import truths
from measured import RESULTS
from numpy.typing import NDArray

from redraft.bench.cell import packed
from redraft.bench.experiment import cells, checked
from redraft.bench.plain import Map, canonical
from redraft.bench.store import NAMES, Store

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


def back(folder: Path, kept: Path) -> None:
    """Write the cells whose rows lie in `kept` into `folder`."""
    about = Store(kept).about()
    experiment = checked(Map(about["source"], {}))
    if (kept / "candidates.parquet").exists() or experiment.select is not None:
        sys.exit(f"{kept} has best-of-N or settings that were chosen: not all of its rows are kept")
    tables = {name: pq.read_table(kept / f"{name}.parquet") for name in ("rows", "seconds")}
    settings = {key: about[key] for key in ("versions", "weights")}
    settings["truths"] = sorted(truths(tables["rows"], experiment.metrics))
    store, made = Store(folder), cells(experiment)
    for name, ending in (("seconds", "seconds.parquet"), ("rows", "parquet")):
        owner = np.array(tables[name]["cell"].to_pylist())
        plain = tables[name].drop_columns([*NAMES, "seed"])
        for cell in made:
            mine = plain.filter(pa.array(owner == cell.id))
            mine = mine.drop_columns([c for c in mine.column_names if mine[c].null_count == len(mine)])
            mine = mine.replace_schema_metadata({"redraft": canonical(settings | {"job": cell.job})})
            store.write(store.path(cell.id, ending), packed(mine))
    shutil.copy(kept / "experiment.json", folder)


if __name__ == "__main__":
    if sys.argv[1] == "--back":
        back(Path(sys.argv[2]), RESULTS / sys.argv[3])
    else:
        source = Path(sys.argv[1])
        keep(source, RESULTS / (sys.argv[2] if len(sys.argv) > 2 else str(Store(source).about()["name"])))
