"""What the benchmarks that go cell by cell share: rows in a Parquet file, a pool of workers, means with intervals."""

from __future__ import annotations

import argparse
import math
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import lru_cache
from multiprocessing import get_context
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from measured import RESULTS
from torch import Tensor

import redraft
from redraft.bench.compare import Table
from redraft.report.statistics import mean_interval, wilson

Row = dict[str, Any]
UNMEASURED = "*Not measured yet.*"


class Cell(Protocol):
    """What is measured at once: a frozen dataclass whose fields name it, `n` the number of samples."""

    n: int


def stored(name: str) -> list[Row]:
    """The rows of bench/results/NAME.parquet."""
    path = RESULTS / f"{name}.parquet"
    return pq.read_table(path).to_pylist() if path.exists() else []


def markdown(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    return Table("", head, body).markdown() if body else UNMEASURED


def summary(values: Tensor) -> Row:
    """Mean and 95 % interval: Wilson's of shares, else the bootstrap's; NaN left out."""
    values = values.double()[~values.isnan()] if values.is_floating_point() else values.double()
    if not len(values):
        return dict.fromkeys(("mean", "low", "high"), math.nan)
    share = bool(((values == 0) | (values == 1)).all())
    low, high = wilson(int(values.sum()), len(values)) if share else mean_interval(values.tolist())
    return {"mean": float(values.mean()), "low": low, "high": high}


def rows_of(cell: Cell, metrics: dict[str, Tensor], of_the_set: dict[str, float]) -> list[Row]:
    """The rows of a cell: one for each metric of samples (n,) and of the set of them."""
    rows = [dict(vars(cell), metric=name, **summary(values)) for name, values in metrics.items()]
    return rows + [dict(vars(cell), metric=k, mean=v, low=v, high=v) for k, v in of_the_set.items()]


@lru_cache(maxsize=2)
def load(name: str) -> tuple[Any, Any]:
    """The task and its model, for one thread of a processor, compiled where that is possible."""
    torch.set_num_threads(1)
    fused = shutil.which("c++") is not None and not torch.cuda.is_available()
    return redraft.load_task(name), redraft.load_model(name, compile=fused)


def run(
    name: str,
    about: str | None,
    groups: Callable[[int], dict[str, list[Any]]],
    measure: Callable[[Any], list[Row]],
    cost: Callable[[Any], int],
    shown: Sequence[str],
    n: int,
) -> None:
    """The command line of a benchmark: run the cells of the named groups that are not stored with as many samples.

    Args:
        name: of the Parquet file.
        about: the help.
        groups: cells by the name of their group, for a number of samples.
        measure: the rows of a cell; runs in a worker.
        cost: the most evaluations that a sample of a cell takes.
        shown: metrics to print, those that a cell has.
        n: samples of a cell, if not given.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="+", help="groups of cells, or 'list'")
    parser.add_argument("--n", type=int, default=n, help="samples of a cell")
    parser.add_argument(
        "--most", type=int, default=math.inf, help="leave out cells that cost more evaluations a sample"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()
    known = groups(asked.n)
    if asked.groups == ["list"]:
        for group, cells in known.items():
            print(f"{group:20s} {len(cells):4d} cells, at most {sum(c.n * cost(c) for c in cells):>12,d} evaluations")
        return
    rows = stored(name)
    done = {key(row): row["n"] for row in rows}
    cells = dict.fromkeys(cell for group in asked.groups for cell in known[group] if cost(cell) <= asked.most)
    todo = sorted((cell for cell in cells if done.get(key(vars(cell)), 0) < cell.n), key=cost)
    with ProcessPoolExecutor(asked.workers, mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(measure, cell) for cell in todo]):
            found = future.result()
            rows = [row for row in rows if key(row) != key(found[0])] + found
            RESULTS.mkdir(exist_ok=True)
            pq.write_table(pa.Table.from_pylist(rows), RESULTS / f"{name}.parquet")
            means = {row["metric"]: row["mean"] for row in found}
            print(*key(found[0]), *(f"{metric} {means[metric]:.3f}" for metric in shown if metric in means), flush=True)


def key(row: Row) -> tuple[Any, ...]:
    """What tells cells apart, the number of samples aside, and the costs at which one run was looked at."""
    return tuple(value for name, value in row.items() if name not in ("n", "at", "metric", "mean", "low", "high"))
