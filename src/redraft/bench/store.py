"""An experiment's folder: a few small files for each cell, replaced in one piece, and tables of all of them.

experiment.json says what is run: the file's contents, size, versions, weights. In `cells`, under the first two digits
of a cell's id, lie

    ID.parquet              a row for each draft of each problem; its presence means that the cell is done
    ID.seconds.parquet      wall-clock time, kept apart: all else is the same byte for byte in any run
    ID.candidates.parquet   of best-of-N only: reward and metrics of every candidate
    ID.samples.parquet      of tasks that measure sets of samples: the samples of every draft
    ID.media.safetensors    samples, if they are kept
    ID.error.json           what the cell raised, until it is done

and rows.parquet, seconds.parquet, candidates.parquet and samples.parquet hold all cells in one, made anew for every
report; failed.parquet says what cells raised, and sets.parquet what the report measured of sets of samples. While a run
is at work, `running` has a small file for each cell that is under way.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from redraft.bench.cell import Outcome, packed, versions
from redraft.bench.experiment import Cell, Experiment
from redraft.bench.plain import LARGEST as SMALL
from redraft.bench.plain import canonical
from redraft.bench.sound import ALWAYS, TABLES, check_cell, settings_of, table_of
from redraft.bench.spec import Spec
from redraft.core.errors import RedraftError, said
from redraft.core.files import prepare, read_json, regular, write
from redraft.core.lock import locked
from redraft.models.hub import is_hub_folder
from redraft.models.weights import SHIPPED, digest, digest_of_all

NAMES: dict[str, Callable[[Cell], str]] = {
    "cell": lambda cell: cell.id,
    "role": lambda cell: cell.role,
    "model": lambda cell: cell.model,
    "label": lambda cell: cell.label,
    "variant": lambda cell: cell.variant,
    "point": lambda cell: cell.point,
}
ABOUT = {"name": str, "size": str, "source": dict, "changes": list, "versions": dict, "weights": dict}
LARGEST = 50_000_000  # bytes of an experiment.json
FAILED = "failed"  # the table of what cells raised
SETS = ("method", "budget", "samples", "metric", "value")  # columns of sets.parquet


@dataclass(frozen=True)
class Store:
    """The folder of an experiment."""

    folder: Path

    def path(self, cell: str, ending: str) -> Path:
        """A file of the cell with this id."""
        return self.folder / "cells" / cell[:2] / f"{cell}.{ending}"

    def held(self) -> tuple[set[str], set[str]]:
        """Ids of the cells that are done, and of those that raised; one listing of each folder."""
        done, failed = set(), set()
        for entry in _files(self.folder / "cells"):
            cell, _, ending = entry.partition(".")
            if ending == "parquet":
                done.add(cell)
            elif ending == "error.json":
                failed.add(cell)
        return done, failed - done

    def add(self, outcome: Outcome) -> None:
        """Write what came of a cell; the metrics last.

        Raises:
            RedraftError: the folder cannot be written, as on a full disk.
        """
        cell = outcome.cell.id
        files = outcome.files
        if outcome.error:
            about = {"cell": outcome.cell.words, "error": outcome.error, "details": outcome.details}
            files = {"error.json": _json(about | {"job": outcome.cell.job})}
        for ending, content in files.items():
            self.write(self.path(cell, ending), content)
        if not outcome.error:
            self.path(cell, "error.json").unlink(missing_ok=True)

    def write(self, path: Path, content: bytes) -> None:
        """Write a file in one piece: a kill leaves the old one or the new one.

        Raises:
            RedraftError: it cannot be written.
        """
        try:
            write(path, content)
        except RedraftError as error:
            raise RedraftError(
                f"{error}; what was finished is kept, so mend this and go on with `redraft bench resume {self.folder}`"
            ) from error

    def failure(self, cell: str) -> dict[str, Any]:
        """What a cell raised; of a damaged file that it is."""
        path = self.path(cell, "error.json")
        try:
            found = dict(read_json(path, SMALL))
            return found | {"error": str(found["error"])}
        except (OSError, ValueError, TypeError, KeyError) as error:
            return {"error": f"{path} is damaged: delete it and go on with `redraft bench resume`: {said(error)}"}

    def errors(self, cells: Sequence[Cell]) -> dict[str, tuple[str, str]]:
        """What those of the cells that failed raised, and the file below the folder that says more, by id."""
        _, failed = self.held()
        files = {cell.id: self.path(cell.id, "error.json") for cell in cells if cell.id in failed}
        return {key: (self.failure(key)["error"], str(path.relative_to(self.folder))) for key, path in files.items()}

    def only_kept(self) -> bool:
        """Whether the folder holds the tables of all cells but no cell, as one that was cleaned."""
        return (self.folder / "rows.parquet").exists() and not any(self.held())

    def check_own(self) -> None:
        """See that a run in the folder replaces nothing that cannot be made again.

        Raises:
            RedraftError: it holds the rows of cells that are gone.
        """
        if self.only_kept():
            raise RedraftError(
                f"{self.folder} holds kept rows without their cells, which a run would replace: choose another folder "
                "by --out, or delete its rows.parquet to begin anew"
            )

    def open(self, experiment: Experiment, size: str = "full", force: bool = False) -> None:
        """Make the folder, or see that what is in it was made by the same versions and weights, and write what is run.

        Raises:
            RedraftError: it holds another experiment, or kept rows alone, or was begun with other versions and
                `force` is false.
        """
        self.check_own()
        now: dict[str, Any] = {"name": experiment.name, "size": size, "source": experiment.plain(), "changes": []}
        now |= {"versions": versions(), "weights": weights(experiment.model) | sources(experiment)}
        path = prepare(self.folder) / "experiment.json"
        if path.exists():
            before = self.about()
            if before["name"] != experiment.name:
                raise RedraftError(
                    f"{self.folder} holds the experiment {before['name']!r}: choose another folder by --out"
                )
            changes = [*_changes(before["versions"], now["versions"]), *_changes(before["weights"], now["weights"])]
            if changes and not force:
                raise RedraftError(
                    f"{self.folder} was begun with {'; '.join(changes)}: go back to it, choose another folder by "
                    "--out, or mix them by --force"
                )
            now["changes"] = [*before["changes"], *changes]
        self.write(path, _json(now))

    def about(self) -> dict[str, Any]:
        """What experiment.json says.

        Raises:
            RedraftError: there is none, or it is damaged.
        """
        try:
            about = read_json(self.folder / "experiment.json", LARGEST)
            return _checked({key: _of(kind, about[key]) for key, kind in ABOUT.items()})
        except FileNotFoundError as error:
            raise RedraftError(f"{self.folder} holds no experiment: give the folder of `redraft bench run`") from error
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise self.damaged() from error

    def damaged(self) -> RedraftError:
        """The error for an experiment.json that does not say what is run."""
        return RedraftError(
            f"{self.folder / 'experiment.json'} is damaged: delete it and start the same `redraft bench run` again; "
            "cells are kept"
        )

    def locked(self) -> AbstractContextManager[None]:
        """Keep other runs out of the folder; a run that is killed leaves no lock.

        Raises:
            RedraftError: another run is at work in it.
        """
        return locked(self.folder)

    def read(self, cells: Sequence[Cell]) -> dict[str, pa.Table]:
        """All rows of those of the cells that are done; each row says whose it is.

        Raises:
            RedraftError: a file is damaged, or has gone though its cell is done.
        """
        done, _ = self.held()
        parts: dict[str, list[tuple[Cell, pa.Table]]] = {name: [] for name in TABLES}
        for cell in cells:
            for name, table in (self._tables(cell.id) if cell.id in done else {}).items():
                if parts[name] and name == "samples" and table["sample"].type != parts[name][0][1]["sample"].type:
                    raise self.damage(cell.id, "its samples are of another length than those of other cells")
                parts[name].append((cell, table))
        return {name: _joined(some) for name, some in parts.items()}

    def _tables(self, cell: str) -> dict[str, pa.Table]:
        """The tables of a cell that is done."""
        endings = {n: e for n, e in TABLES.items() if n in ALWAYS or os.path.lexists(self.path(cell, e))}
        try:
            tables = {name: table_of(self.path(cell, ending)) for name, ending in endings.items()}
            check_cell(cell, tables)
        except ValueError as error:
            raise self.damage(cell, str(error)) from error
        return tables

    def damage(self, cell: str, why: str) -> RedraftError:
        """The error for a damaged file of a cell; the metrics' file is named: it is what makes the cell done."""
        path = self.path(cell, TABLES["rows"])
        return RedraftError(f"{path} is damaged: delete it and go on with `redraft bench resume`: {why}")

    def compact(self, cells: Sequence[Cell]) -> dict[str, pa.Table]:
        """What `read` gives, written into one file each as well, and what raised into another.

        That of the rows says which metrics are truths.
        """
        tables = self.read(cells)
        truths = canonical({"truths": sorted(self.truths(cells))})
        tables["rows"] = tables["rows"].replace_schema_metadata({"redraft": truths})
        for name, table in tables.items():
            self.keep(name, table)
        self._keep_errors(cells)
        return tables

    def _keep_errors(self, cells: Sequence[Cell]) -> None:
        known = self.errors(cells)
        failed = {cell.id: cell for cell in cells if cell.id in known}
        parts = [(cell, pa.table(_failed_row(cell, *known[key]))) for key, cell in failed.items()]
        if parts:
            self.keep(FAILED, _joined(parts))
        elif (path := self.folder / f"{FAILED}.parquet").is_file():
            path.unlink()

    def keep(self, name: str, table: pa.Table) -> None:
        """Write a table of all cells, if it has rows."""
        if len(table):
            self.write(self.folder / f"{name}.parquet", packed(table))

    def sets(self) -> list[dict[str, Any]]:
        """What a report measured of sets of samples before.

        Raises:
            RedraftError: the file is damaged.
        """
        path = self.folder / "sets.parquet"
        if not os.path.lexists(path):
            return []
        try:
            return list(table_of(path).select(SETS).to_pylist())
        except (ValueError, KeyError) as error:
            raise RedraftError(f"{path} is damaged: delete it and make the report again: {said(error)}") from error

    def truths(self, cells: Sequence[Cell]) -> frozenset[str]:
        """Metrics that are true or false of a sample, by the cells that are done: one of each method."""
        done, _ = self.held()
        some = {cell.label: cell.id for cell in cells if cell.id in done}.values()
        return frozenset(name for cell in some for name in self.settings(cell)["truths"])

    def settings(self, cell: str) -> dict[str, Any]:
        """The job, versions and weights that a cell's metrics were made with, and which metrics are true or false.

        Raises:
            RedraftError: the file is damaged.
        """
        try:
            return settings_of(pq.read_schema(regular(self.path(cell, TABLES["rows"]))), cell)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise self.damage(cell, said(error)) from error


def weights(models: Sequence[Spec]) -> dict[str, str | None]:
    """Twelve hexadecimal digits of each model's weights that lie on this machine, and of each of its critics'."""
    found: dict[str, str | None] = {}
    for name in (spec.name for spec in models):
        folder = Path(name) if Path(name).exists() else SHIPPED / name
        ours = (folder / "model.safetensors").exists() and not is_hub_folder(folder)
        found[name] = digest(folder) if ours else digest_of_all(folder) if folder.exists() else None
        critics = sorted(folder.glob("critics/*/model.safetensors"))
        found |= {f"{name}/{path.parent.name}": digest(path.parent) for path in critics}
    return found


def sources(experiment: Experiment) -> dict[str, str | None]:
    """Likewise of the files and folders that settings of the task and of verifiers name: prompts, weights."""
    own = [entry.get("verifier") for entry in experiment.methods.values() if isinstance(entry, dict)]
    specs = [experiment.task, *([experiment.verifier] if experiment.verifier else [])]
    given = [*(spec.plain() for spec in specs), *experiment.looks.values(), *own]
    values = [value for settings in given if isinstance(settings, dict) for value in settings.values()]
    paths = [Path(value) for value in values if isinstance(value, str)]
    return {str(path): digest_of_all(path) for path in paths if path.exists()}


def _files(folder: Path) -> Iterator[str]:
    if folder.is_dir():
        for shard in (entry for entry in os.scandir(folder) if entry.is_dir()):
            yield from (entry.name for entry in os.scandir(shard.path))


def _of(kind: type, value: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value


def _failed_row(cell: Cell, error: str, file: str) -> dict[str, list[Any]]:
    return {"start": [cell.job["shard"][0]], "error": [error], "file": [file]}


def _checked(about: dict[str, Any]) -> dict[str, Any]:
    words = [*about["changes"], *about["versions"].values(), *(mark for mark in about["weights"].values() if mark)]
    if not all(isinstance(word, str) for word in words):
        raise TypeError("changes, versions and weights are words")
    return about


def _json(about: dict[str, Any]) -> bytes:
    return (json.dumps(about, indent=2) + "\n").encode()


def _changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    return [f"{k} {before[k]}, now {now.get(k)}" for k in before if k in now and before[k] != now.get(k)]


def _joined(parts: list[tuple[Cell, pa.Table]]) -> pa.Table:
    """One table of all; each row says whose it is."""
    if not parts:
        return pa.table({})
    rows = pa.concat_tables([t.replace_schema_metadata(None) for _, t in parts], promote_options="default")
    sizes, owners = [len(table) for _, table in parts], [cell for cell, _ in parts]
    for key, name in NAMES.items():
        values = pa.array([name(cell) for cell in owners]).dictionary_encode()
        which = np.repeat(values.indices.to_numpy(), sizes)
        rows = rows.append_column(key, pa.DictionaryArray.from_arrays(which, values.dictionary))
    seeds = np.repeat(np.array([cell.job["seed"] for cell in owners], dtype=np.int64), sizes)
    return rows.append_column("seed", pa.array(seeds)).combine_chunks()
