"""Tables of cells as they must be: what is read from a folder may have been damaged, or be of something else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from redraft.bench.cell import COUNTS
from redraft.bench.experiment import id_of
from redraft.core.errors import said
from redraft.core.files import regular

TABLES = {"rows": "parquet"} | {name: f"{name}.parquet" for name in ("seconds", "candidates", "samples")}
"""The tables of a cell, with the endings of their files."""
ALWAYS = ("rows", "seconds")  # tables that every cell has
COLUMNS = {
    "rows": ("problem", "draft", "nfe", "critic", "verifier_calls"),
    "seconds": ("problem", "draft", "seconds"),
    "candidates": ("problem", "reward"),
    "samples": ("problem", "draft", "sample"),
}
"""What each table has; rows and candidates have metrics beside."""


MOST_ROWS = 100_000_000  # of a table, which are more than fit into memory


def table_of(path: Path) -> pa.Table:
    """The table that a Parquet file holds.

    Raises:
        ValueError: there is no such file, or it cannot be read.
    """
    try:
        with pq.ParquetFile(regular(path)) as file:
            if file.metadata.num_rows > MOST_ROWS:
                raise ValueError(f"{path.name} has more than {MOST_ROWS:,d} rows")
            return file.read(use_threads=False)
    except FileNotFoundError as error:
        raise ValueError(f"{path.name} is missing") from error
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path.name} cannot be read: {getattr(error, 'strerror', None) or said(error)}") from error


def check_table(name: str, table: pa.Table) -> None:
    """See that a table of this `name`, of `TABLES`, has its columns, all of their types, and rows.

    Raises:
        ValueError: it has not.
    """
    missing = [column for column in COLUMNS[name] if column not in table.column_names]
    if missing:
        raise ValueError(f"its table of {name} has no column {missing[0]!r}")
    if not len(table):
        raise ValueError(f"its table of {name} is empty")
    for column, kind in zip(table.column_names, table.schema.types, strict=True):
        if not _fits(column, kind):
            raise ValueError(f"its table of {name} has a column {column!r} of type {kind}")
        if column in COLUMNS[name] and table[column].null_count:
            raise ValueError(f"its table of {name} has no value in some rows of {column!r}")


def _fits(column: str, kind: Any) -> bool:
    """Whether the column may be of this type: any two such tables fit."""
    if column == "sample":
        return bool(pa.types.is_fixed_size_list(kind) and pa.types.is_primitive(kind.value_type))
    return bool(kind == (pa.int64() if column in COUNTS else pa.float64()))


def check_cell(cell: str, tables: dict[str, pa.Table]) -> None:
    """See that all tables of a cell are sound, and of the same drafts of as many problems as it has.

    Raises:
        ValueError: they are not.
    """
    for name, table in tables.items():
        check_table(name, table)
    rows = tables["rows"]
    start, stop = settings_of(rows.schema, cell)["job"]["shard"]
    if len(rows["problem"].unique()) != stop - start:
        raise ValueError(f"its table of rows is not of {stop - start} problems")
    for name in ("seconds", "samples"):
        other = tables.get(name)
        if other is not None and not all(other[key].equals(rows[key]) for key in ("problem", "draft")):
            raise ValueError(f"its table of {name} is of other drafts")
    if "candidates" in tables and not {*tables["candidates"]["problem"].to_pylist()} <= {*rows["problem"].to_pylist()}:
        raise ValueError("its table of candidates is of other problems")


def settings_of(schema: pa.Schema, cell: str) -> dict[str, Any]:
    """What the metadata of a cell's rows say: its job, versions, weights and which metrics are true or false.

    Raises:
        ValueError: they say nothing of it, or are of another cell.
    """
    try:
        about = dict(json.loads((schema.metadata or {})[b"redraft"]))
        owner, known = id_of(about["job"]), all(isinstance(name, str) for name in about["truths"])
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError("its metadata do not say what it is of") from error
    if owner != cell or not known:
        raise ValueError("its metadata are of another cell")
    return about
