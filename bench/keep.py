"""Keep what an experiment measured in bench/results/NAME: `python bench/keep.py FOLDER [NAME]`.

FOLDER is that of `redraft bench run`; NAME is the experiment's own, if not given. What the rest says again is left out:
single cells, samples, and of best-of-N, whose candidates are kept, the rows of all drafts but the last.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from cells import RESULTS
from numpy.typing import NDArray

from redraft.bench.store import Store

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


if __name__ == "__main__":
    source = Path(sys.argv[1])
    keep(source, RESULTS / (sys.argv[2] if len(sys.argv) > 2 else str(Store(source).about()["name"])))
