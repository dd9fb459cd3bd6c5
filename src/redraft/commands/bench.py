"""Experiments from the command line: run, go on, look, report."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from redraft.bench import engine
from redraft.bench.experiment import Experiment, cells, checked, load, outlook, sizes, values
from redraft.bench.kept import Kept, Rows, rows_of
from redraft.bench.local import Executor, Pool, Serial
from redraft.bench.report import report
from redraft.bench.running import under_way
from redraft.bench.store import Store
from redraft.bench.track import tracker
from redraft.core.build import Map, call
from redraft.core.errors import RedraftError, said

if TYPE_CHECKING:
    from redraft.bench.engine import Status

MOST_CELLS, MOST_NFE = 2_000, 20_000_000  # of a run that does not say --yes
ESTIMATED = 10  # times as many cells are made to say what they cost
MOST_STORED = 200_000  # cells that are made only to look at them, unless --yes says so
Word = Annotated[str, tyro.conf.Positional]


@dataclass(frozen=True)
class Options:
    """How cells are run.

    Attributes:
        workers: processes, each with its own models; with --ray, actors, as many as there are CPUs if not given.
        threads: of torch in each worker; results are the same byte for byte where it is.
        ray: address of a Ray cluster, 'auto' for the one of this node, or 'local' to start one.
        gpus_per_worker: share of a GPU that a Ray actor holds, for its models and verifiers.
        track: tell a tracker of every cell.
        yes: run it however large it is.
        force: go on though versions or weights differ from those that the folder was begun with.
    """

    workers: int | None = None
    threads: int = 1
    ray: str | None = None
    gpus_per_worker: float = 0.0
    track: Literal["trackio", "wandb"] | None = None
    yes: bool = False
    force: bool = False

    def executor(self) -> Executor:
        """What the options ask for."""
        for name in ("workers", "threads"):
            if (asked := getattr(self, name)) is not None and asked < 1:
                raise RedraftError(f"--{name} is {asked}: it must be 1 or more")
        if self.ray is not None:
            from redraft.bench.cluster import Cluster

            return Cluster(self.ray, self.workers, self.gpus_per_worker)
        workers = self.workers or 1
        return Pool(workers) if workers > 1 else Serial()


@dataclass(frozen=True)
class Run:
    """Run an experiment; started again, it goes on.

    Attributes:
        file: a YAML file, or the name of an experiment that ships.
        size: such as 'smoke', of those that the file has; 'full' is the file itself.
        out: folder; runs/bench/NAME-SIZE if not given.
        set: what the file says, changed: keys by dots, such as problems.n=20 model.name=folder; may be given again.
        options: how.
    """

    file: Word
    size: str = "full"
    out: Path | None = None
    set: tuple[str, ...] = ()
    options: Annotated[Options, tyro.conf.arg(name="")] = Options()

    def run(self) -> Status:
        """Say what it costs, run it, write the report."""
        experiment = load(self.file, self.size, self.set, None if self.options.yes else ESTIMATED * MOST_CELLS)
        store = Store(self.out or Path("runs/bench") / f"{experiment.name}-{self.size}")
        return _go(experiment, store, self.size, self.options)


@dataclass(frozen=True)
class Resume:
    """Go on with an experiment; cells that failed are tried again.

    Attributes:
        folder: of `redraft bench run`.
        options: how.
    """

    folder: Annotated[Path, tyro.conf.Positional]
    options: Annotated[Options, tyro.conf.arg(name="")] = Options()

    def run(self) -> Status:
        """Run what is left, write the report."""
        store = Store(self.folder)
        experiment = _stored(store, self.options.yes)
        return _go(experiment, store, store.about()["size"], self.options)


@dataclass(frozen=True)
class Validate:
    """Check an experiment's file whole: names, settings, types, problems, and what it would cost.

    Attributes:
        file: a YAML file, or the name of an experiment that ships.
        size: one of those that the file has; all of them if not given.
        set: what the file says, changed, as of `redraft bench run`; may be given again.
    """

    file: Word
    size: str | None = None
    set: tuple[str, ...] = ()

    def run(self) -> None:
        """Print what each size spans; the first thing that is wrong is an error."""
        for size in [self.size] if self.size else sizes(self.file):
            found = values(self.file, size, self.set)
            experiment = checked(found, MOST_STORED)
            engine.check_problems(experiment, found)
            some = outlook(experiment, cells(experiment))
            count, cost = len(some), engine.nfe(experiment, some)
            asks = ", for which `redraft bench run` asks for --yes" if _many(count, cost) else ""
            print(f"{experiment.name}, {size}: {_sum(count, cost)}{asks}")


@dataclass(frozen=True)
class Show:
    """Say how far an experiment is, which cells are under way, and what failed.

    Attributes:
        folder: of `redraft bench run`, or of kept rows.
        yes: though it has very many cells.
    """

    folder: Annotated[Path, tyro.conf.Positional]
    yes: bool = False

    def run(self) -> None:
        """Print it."""
        store = Store(self.folder)
        experiment = _stored(store, self.yes)
        rows = rows_of(experiment, store)
        now = engine.status(experiment, rows)
        _told(now, rows, self.folder)
        if isinstance(rows, Kept):
            print(f"  {rows}")
        words = {cell.id: cell.words for cell in now.cells}
        for note in under_way(self.folder):
            print(f"  under way: {words.get(note.cell, note.cell)}: {note}")


@dataclass(frozen=True)
class Report:
    """Write index.html and report.md of what is done.

    Attributes:
        folder: of `redraft bench run`, or of kept rows.
        yes: though it has very many cells.
    """

    folder: Annotated[Path, tyro.conf.Positional]
    yes: bool = False

    def run(self) -> None:
        """Write them."""
        store = Store(self.folder)
        report(_stored(store, self.yes), store)
        if store.only_kept():
            print("made of kept rows: samples stay as the page showed them before")
        print(f"report: {store.folder / 'index.html'}")


def _go(experiment: Experiment, store: Store, size: str, options: Options) -> Status:
    store.check_own()
    executor, now = options.executor(), engine.status(experiment, store)
    _estimated(experiment, now, options.yes)
    sink = tracker(options.track, experiment.name) if options.track else None
    with store.locked():
        store.open(experiment, size, options.force)
    try:
        now = engine.run(experiment, store, executor, options.threads, sink)
        _told(now, store, store.folder)
        if now.done:
            report(experiment, store)
            print(f"report: {store.folder / 'index.html'}")
    except KeyboardInterrupt:
        print(
            f"redraft: what was finished is kept: the same command, or `redraft bench resume {store.folder}`, goes on",
            file=sys.stderr,
        )
        raise
    return now


def _estimated(experiment: Experiment, now: Status, yes: bool) -> None:
    """Print what is to be done, and refuse what is too much to be meant."""
    todo = [cell for cell in outlook(experiment, now.cells) if cell.id not in now.done]
    cost, count = engine.nfe(experiment, todo), len(todo)
    print(
        f"{experiment.name}: {now}; {count} cells, those of settings yet to be chosen included, take {_nfe(cost)} NFE"
    )
    if not yes and _many(count, cost):
        raise RedraftError(f"{_sum(count, cost)} are many: say --yes if you mean it")


def _many(count: int, cost: int | None) -> bool:
    return count > MOST_CELLS or (cost or 0) > MOST_NFE


def _sum(count: int, cost: int | None) -> str:
    return f"{count:,d} cells and {_nfe(cost)} NFE"


def _nfe(cost: int | None) -> str:
    return "an unknown number of" if cost is None else f"about {cost:,d}"


def _told(now: Status, rows: Rows, folder: Path) -> None:
    print(f"{now}; folder: {folder}")
    cells = {cell.id: cell for cell in now.cells if cell.id in now.failed}
    for key, (error, file) in sorted(rows.errors([*cells.values()]).items(), key=lambda each: cells[each[0]].words):
        print(f"  failed: {cells[key].words}: {error} ({folder / file})")


def _stored(store: Store, yes: bool = False) -> Experiment:
    """What the folder says is run; an error names the file."""
    source = store.about()["source"]
    try:
        call(Experiment, source)
    except (RedraftError, RecursionError) as error:
        raise RedraftError(f"{store.damaged()}: {said(error)}") from error
    try:
        return checked(Map(source, {}), None if yes else MOST_STORED)
    except (RedraftError, RecursionError) as error:
        raise RedraftError(f"{store.folder / 'experiment.json'}: {said(error)}") from error
