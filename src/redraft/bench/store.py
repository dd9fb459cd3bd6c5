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
report; sets.parquet has what the report measured of sets of samples.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from redraft.bench.cell import Outcome, packed, versions
from redraft.bench.experiment import Cell, Experiment, Spec
from redraft.core.errors import RedraftError, said
from redraft.core.files import prepare, write
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
TABLES = {"rows": "parquet"} | {name: f"{name}.parquet" for name in ("seconds", "candidates", "samples")}
ALWAYS = ("rows", "seconds")  # tables that every cell has
ABOUT = {"name": str, "size": str, "source": dict, "changes": list, "versions": dict, "weights": dict}


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
        """What a cell raised."""
        return dict(json.loads(self.path(cell, "error.json").read_text()))

    def open(self, experiment: Experiment, size: str = "full", force: bool = False) -> None:
        """Make the folder, or see that what is in it was made by the same versions and weights, and write what is run.

        Raises:
            RedraftError: it holds another experiment, or was begun with other versions and `force` is false.
        """
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
            about = json.loads((self.folder / "experiment.json").read_text())
            return {key: _of(kind, about[key]) for key, kind in ABOUT.items()}
        except OSError as error:
            raise RedraftError(f"{self.folder} holds no experiment: give the folder of `redraft bench run`") from error
        except (ValueError, TypeError, KeyError) as error:
            raise self.damaged() from error

    def damaged(self) -> RedraftError:
        """The error for an experiment.json that does not say what is run."""
        return RedraftError(
            f"{self.folder / 'experiment.json'} is damaged: delete it and start the same `redraft bench run` again; "
            "cells are kept"
        )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs out of the folder; a run that is killed leaves no lock.

        Raises:
            RedraftError: another run is at work in it.
        """
        with locked(self.folder):
            yield

    def read(self, cells: Sequence[Cell]) -> dict[str, pa.Table]:
        """All rows of those of the cells that are done; each row says whose it is.

        Raises:
            RedraftError: a file is damaged, or has gone though its cell is done.
        """
        done, _ = self.held()
        found = {}
        for name, ending in TABLES.items():
            mine = [cell for cell in cells if cell.id in done]
            kept = [c for c in mine if name in ALWAYS or self.path(c.id, ending).exists()]
            found[name] = _joined([(cell, self._whole(cell.id, ending)) for cell in kept])
        return found

    def _whole(self, cell: str, ending: str) -> pa.Table:
        """A table of a cell; of a damaged one the metrics' file is named: it is what makes the cell done."""
        path, metrics = self.path(cell, ending), self.path(cell, TABLES["rows"])
        try:
            return pq.ParquetFile(path).read(use_threads=False)
        except (pa.ArrowException, OSError) as error:
            why = f"{path.name} is missing" if isinstance(error, FileNotFoundError) else said(error)
            raise RedraftError(
                f"{metrics} is damaged: delete it and go on with `redraft bench resume`: {why}"
            ) from error

    def compact(self, cells: Sequence[Cell]) -> dict[str, pa.Table]:
        """What `read` gives, written into one file each as well."""
        tables = self.read(cells)
        for name, table in tables.items():
            self.keep(name, table)
        return tables

    def keep(self, name: str, table: pa.Table) -> None:
        """Write a table of all cells, if it has rows."""
        if len(table):
            self.write(self.folder / f"{name}.parquet", packed(table))

    def kept(self, name: str) -> list[dict[str, Any]]:
        """The rows of a table that `keep` wrote, if there is one."""
        path = self.folder / f"{name}.parquet"
        return list(pq.read_table(path).to_pylist()) if path.exists() else []

    def settings(self, cell: str) -> dict[str, Any]:
        """The job, versions and weights that a cell's metrics were made with, and which metrics are true or false."""
        return dict(json.loads(pq.read_schema(self.path(cell, "parquet")).metadata[b"redraft"]))


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
