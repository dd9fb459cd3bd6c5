"""Run an experiment: the cells that are not done yet, wherever there are workers, each stored as it ends."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from tqdm.auto import tqdm

from redraft.bench.cell import Measure, Outcome, loaded
from redraft.bench.choose import choices
from redraft.bench.experiment import Cell, Experiment, cells, made
from redraft.bench.kept import Rows
from redraft.bench.local import Executor, Serial
from redraft.bench.plain import canonical
from redraft.bench.running import notes
from redraft.bench.store import Store
from redraft.bench.track import Sink
from redraft.core.build import Map, wrong
from redraft.core.errors import RedraftError, said, unknown
from redraft.core.state import Draft
from redraft.core.trace import OWN


@dataclass(frozen=True)
class Status:
    """Where an experiment stands.

    Attributes:
        cells: those that are known so far; those of settings that are to be chosen come later.
        done: ids.
        failed: ids.
    """

    cells: list[Cell]
    done: set[str]
    failed: set[str]

    @property
    def open(self) -> list[Cell]:
        """Cells that are not done, those that raised among them."""
        different = {cell.id: cell for cell in self.cells}
        return [cell for cell in different.values() if cell.id not in self.done]

    def __str__(self) -> str:
        """In a sentence."""
        known = {cell.id for cell in self.cells}
        done, failed = len(known & self.done), len(known & self.failed)
        return f"{done} of {len(known)} cells done, {failed} failed, {len(known) - done - failed} to do"


def status(experiment: Experiment, store: Rows) -> Status:
    """Where the experiment stands in its folder, or by its kept rows."""
    done, failed = store.held()
    chosen = choices(experiment, store, done | failed)
    return Status(cells(experiment, chosen), done, failed)


def run(
    experiment: Experiment,
    store: Store,
    executor: Executor | None = None,
    threads: int = 1,
    sink: Sink | None = None,
    progress: bool | None = None,
) -> Status:
    """Run what is not done; cells that raised are tried once more.

    Args:
        experiment: what to run.
        store: its folder.
        executor: where; this process if not given.
        threads: of torch in each worker.
        sink: is told of every cell.
        progress: show a bar; by default when a person looks at the terminal.

    Raises:
        RedraftError: the folder cannot be written; all cells that ended before are kept.
    """
    executor, tried = executor or Serial(), set[str]()
    with store.locked(), notes(store.folder) as place:
        while True:
            now = status(experiment, store)
            todo = [cell for cell in now.open if cell.id not in tried]
            if not todo:
                return now
            tried |= {cell.id for cell in todo}
            total = len({cell.id for cell in now.cells})
            with tqdm(
                total=total, initial=total - len(now.open), unit="cell", dynamic_ncols=True,
                disable=None if progress is None else not progress,
            ) as bar:  # fmt: skip
                _spend(experiment, executor, Measure(threads, place), todo, store, sink, bar)


def _spend(
    experiment: Experiment, executor: Executor, measure: Measure, todo: list[Cell], store: Store, sink: Sink | None,
    bar: Any,
) -> None:  # fmt: skip
    outcomes: Any = executor.map(measure, todo)
    failed = 0
    with closing(outcomes) if hasattr(outcomes, "close") else nullcontext():
        for outcome in outcomes:
            store.add(outcome)
            _named(experiment, outcome)
            failed += bool(outcome.error)
            bar.update()
            bar.set_postfix(failed=failed)
            if sink and not _logged(sink, outcome):
                sink = None


def _named(experiment: Experiment, outcome: Outcome) -> None:
    """Stop at the first cell that shows that a metric to report is never measured."""
    known = [name for name in outcome.summary if name not in OWN]
    for name in experiment.metrics:
        if outcome.summary and name not in known:
            raise wrong(experiment.metrics, name, str(unknown("metric", name, known)))


def _logged(sink: Sink, outcome: Outcome) -> bool:
    """Tell a tracker of a cell; one that fails is not worth the run."""
    try:
        sink.log({"cell": outcome.cell.words, "failed": bool(outcome.error), **outcome.summary})
    except Exception as error:
        warnings.warn(f"the tracker failed, the run goes on without it: {error}", stacklevel=2)
        return False
    return True


def nfe(experiment: Experiment, some: list[Cell], probe: int = 8) -> int | None:
    """About the most network evaluations that the cells take, as the methods state it; None where they state none.

    It is read off the first `probe` problems, and no model is loaded.
    """
    costs: dict[str, float] = {}
    total = 0.0
    for cell in some:
        key = canonical([cell.job[k] for k in ("resolved", "problems", "budget")])
        if key not in costs:
            costs[key] = _cost(experiment, cell, probe)
        total += costs[key] * (cell.job["shard"][1] - cell.job["shard"][0])
    return None if total != total else round(total)


def check_problems(experiment: Experiment, found: Map, probe: int = 1000) -> None:
    """See that the task can be made and has such problems, of which at most `probe` are made; no model is loaded.

    Raises:
        RedraftError: it cannot, or has not; with the line in `found`.
    """
    try:
        task = loaded("task", canonical(experiment.task.plain()))
    except RedraftError as error:
        raise wrong(found, "task", str(error)) from error
    select = experiment.select
    for key, problems in {
        "problems": experiment.problems,
        "select": select and experiment.problems | select.problems,
    }.items():
        try:
            if problems:
                task.problems(**problems | {"n": min(problems["n"], probe)})
        except (RedraftError, ValueError, TypeError) as error:
            raise wrong(found, key, said(error)) from error


def _cost(experiment: Experiment, cell: Cell, probe: int) -> float:
    """Mean NFE of a problem, or NaN."""
    given = dict(cell.job["problems"])
    given["n"] = min(given["n"], probe)
    method, state = made(cell.job["method"]), loaded("task", canonical(cell.job["task"])).problems(**given).state()
    ask: Callable[[int], torch.Tensor] = lambda number: method.nfe(None, Draft(state, number)).double()  # noqa: E731
    drafts = method.total() or 1
    try:
        cost = ask(-1) + (ask(0) * (drafts - 1) if drafts > 1 else 0)
    except AttributeError:  # it asks the model
        return float("nan")
    budget = cell.job["budget"]
    return float((cost if budget is None else cost.clamp_max(budget)).mean())
