"""Results of which only the tables of all cells are left, such as those in bench/results: read as cells are."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from redraft.bench.curves import Floats
from redraft.bench.experiment import Cell, Experiment, cells
from redraft.bench.sound import ALWAYS, TABLES, check_table, table_of
from redraft.bench.store import FAILED, NAMES, Store
from redraft.core.errors import RedraftError, said

Place = tuple[str, str, str, str, str, int, int]
OF_CELLS = (*NAMES, "seed")  # columns that say whose a row is


class Rows(Protocol):
    """Where the rows of cells are read from."""

    def held(self) -> tuple[set[str], set[str]]:
        """Ids of the cells that are done, and of those that raised."""

    def read(self, some: Sequence[Cell], /) -> dict[str, pa.Table]:
        """All rows of those of the cells that are done; each row says whose it is."""

    def truths(self, some: Sequence[Cell], /) -> frozenset[str]:
        """Metrics that are true or false of a sample."""

    def errors(self, some: Sequence[Cell], /) -> dict[str, tuple[str, str]]:
        """What those of the cells that failed raised, and the file below the folder that says more, by id."""


@dataclass(frozen=True)
class Kept:
    """The kept rows of an experiment.

    Cells are found by their place in it, as a setting that was added since gives a cell another id and the same rows.

    Attributes:
        experiment: whose they are.
        tables: by name, those of `sound.TABLES`, empty where there is none.
        failed: what cells raised.
    """

    experiment: Experiment
    tables: dict[str, pa.Table]
    failed: pa.Table

    @cached_property
    def ids(self) -> dict[str, str]:
        """The ids that cells that are done had, by those that they have now."""
        places = dict(_places(self.tables["rows"]))
        known = ((cell.id, places.get(_place(cell, self.experiment.shard))) for cell in self._cells(places))
        return {now: before for now, before in known if before is not None}

    @cached_property
    def raised(self) -> dict[str, tuple[str, str]]:
        """What cells raised and the file that said more, by the ids that they have now."""
        shard, failed = self.experiment.shard, self.failed.to_pylist()
        places = {_failed_place(row, shard): (row["error"], row["file"]) for row in failed}
        known = ((cell.id, places.get(_place(cell, shard))) for cell in self._cells(places))
        return {now: told for now, told in known if told is not None and now not in self.ids}

    def _cells(self, places: Iterable[Place]) -> list[Cell]:
        """All cells, those of the settings among them that were chosen."""
        tuned = self.experiment.select is not None
        chosen = {(model, label): variant for role, model, label, variant, *_ in places if tuned and role == "report"}
        return cells(self.experiment, chosen)

    def held(self) -> tuple[set[str], set[str]]:
        """Ids of the cells whose rows there are, and of those that raised."""
        return {*self.ids}, {*self.raised}

    def errors(self, some: Sequence[Cell]) -> dict[str, tuple[str, str]]:
        """What those of the cells that failed raised, and the file that said more, by id."""
        return {cell.id: self.raised[cell.id] for cell in some if cell.id in self.raised}

    def read(self, some: Sequence[Cell]) -> dict[str, pa.Table]:
        """All rows of those of the cells that there are; each row says whose it is."""
        mine = pa.array([self.ids[cell.id] for cell in some if cell.id in self.ids], pa.string())
        return {name: _of(table, mine) for name, table in self.tables.items()}

    def truths(self, some: Sequence[Cell]) -> frozenset[str]:
        """Metrics that are true or false of a sample: as the rows say, or if they do not, those that look so."""
        return truths(self.tables["rows"])

    def __str__(self) -> str:
        """What is kept, in a sentence."""
        parts = [f"{name} ({len(table):,d})" for name, table in self.tables.items() if len(table)]
        return (
            f"kept are the tables of all cells, {', '.join(parts)}; not the cells, their samples, nor all rows of "
            "best-of-N, whose candidates are kept"
        )


def rows_of(experiment: Experiment, store: Store) -> Store | Kept:
    """The store itself, or if its folder holds no cells any more, the rows that it kept.

    Raises:
        RedraftError: a table of these is damaged.
    """
    if not store.only_kept():
        return store
    tables = {name: _table(store.folder / f"{name}.parquet", name) for name in TABLES}
    rows, seconds = (tables[name] for name in ALWAYS)
    if not all(rows[name].equals(seconds[name]) for name in ("cell", "problem", "draft")):
        raise _damaged(store.folder / "seconds.parquet", "it is of other rows than rows.parquet")
    return Kept(experiment, tables, _failed(store.folder / f"{FAILED}.parquet"))


def _failed(path: Path) -> pa.Table:
    """What cells raised, by whose they were."""
    if not path.exists():
        return pa.table({})
    try:
        return _plain(table_of(path).select([*OF_CELLS, "start", "error", "file"]))
    except (ValueError, KeyError) as error:
        raise _damaged(path, said(error)) from error


def _table(path: Path, name: str) -> pa.Table:
    if name not in ALWAYS and not path.exists():
        return pa.table({})
    try:
        table = table_of(path)
        lacking = [column for column in OF_CELLS if column not in table.column_names]
        if lacking:
            raise ValueError(f"it has no column {lacking[0]!r}")
        check_table(name, table.drop_columns([*OF_CELLS]))
    except ValueError as error:
        raise _damaged(path, str(error)) from error
    return _plain(table)


def _plain(table: pa.Table) -> pa.Table:
    """The table with words, for whom they are of, in place of numbers of a dictionary."""
    for name in NAMES:
        table = table.set_column(table.column_names.index(name), name, table[name].cast(pa.string()))
    return table


def _damaged(path: Path, why: str) -> RedraftError:
    return RedraftError(
        f"{path} is damaged: put back the file that was kept, as the cells it was made of are gone: {why}"
    )


def _of(table: pa.Table, ids: pa.Array) -> pa.Table:
    return table.filter(pc.is_in(table["cell"], value_set=ids)) if len(table) else table


def _places(rows: pa.Table) -> Iterator[tuple[Place, str]]:
    """Where in the experiment each kept cell stands, and its id."""
    whose = ["cell", "role", "model", "label", "variant", "point", "seed"]
    found = rows.group_by(whose, use_threads=False).aggregate([("problem", "min")]).to_pylist()
    firsts = {role: sorted({row["problem_min"] for row in found if row["role"] == role}) for role in ("tune", "report")}
    for row in found:
        shard = firsts[row["role"]].index(row["problem_min"])
        yield (*(row[name] for name in whose[1:]), shard), row["cell"]


def _failed_place(row: dict[str, Any], shard: int) -> Place:
    return *(row[name] for name in (*NAMES, "seed") if name != "cell"), row["start"] // shard


def _place(cell: Cell, shard: int) -> Place:
    return cell.role, cell.model, cell.label, cell.variant, cell.point, cell.job["seed"], cell.job["shard"][0] // shard


def truths(rows: pa.Table, metrics: Collection[str] | None = None) -> frozenset[str]:
    """Those of the metrics that are true or false: by the table's metadata, or else those that are 0 or 1 in all rows.

    Args:
        rows: of all cells.
        metrics: all that there are, if not given.
    """
    columns = {*rows.column_names} if metrics is None else {*metrics} & {*rows.column_names}
    said = (rows.schema.metadata or {}).get(b"redraft")
    return frozenset(columns & {*json.loads(said)["truths"]}) if said else binary(rows, columns)


def binary(rows: pa.Table, columns: Iterable[str]) -> frozenset[str]:
    """Those of the columns that are there and 0 or 1 in all rows that know them."""
    known = [name for name in columns if name in rows.column_names and pa.types.is_floating(rows[name].type)]
    return frozenset(name for name in known if _is_binary(rows[name].drop_null().to_numpy()))


def _is_binary(values: Floats) -> bool:
    known = values[~np.isnan(values)]
    return len(known) > 0 and bool(np.isin(known, (0, 1)).all())
