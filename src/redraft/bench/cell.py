"""One cell of an experiment, run in whichever worker it falls to: from its description to the bytes of its files."""

from __future__ import annotations

import inspect
import json
import platform
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save
from torch import Tensor

import redraft
from redraft.bench.experiment import Cell, made
from redraft.bench.plain import canonical
from redraft.bench.running import noted
from redraft.core.batched import Batched
from redraft.core.method import asks
from redraft.core.result import Result, weights_of
from redraft.core.task import Problems
from redraft.methods.best_of_n import BestOfN
from redraft.verifiers.combined import held_out

COUNTS = ("problem", "draft", "nfe", "critic", "verifier_calls")


@dataclass(frozen=True)
class Outcome:
    """What came of a cell.

    Attributes:
        cell: which.
        files: bytes by the ending of the file's name; the last one is the metrics', whose presence means done.
        error: one line, if it raised.
        details: where it raised.
        summary: means of the last drafts, for trackers.
    """

    cell: Cell
    files: dict[str, bytes] = field(default_factory=dict)
    error: str | None = None
    details: str = ""
    summary: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Measure:
    """Runs cells; what a cell raises is part of its outcome.

    Attributes:
        threads: of torch. Sums round as the number of threads has it: results are the same where it is.
        notes: folder in which a cell is noted while it runs, see `redraft.bench.running`.
    """

    threads: int = 1
    notes: Path | None = None

    def __call__(self, cell: Cell) -> Outcome:
        """Run `cell`."""
        before = torch.get_num_threads()
        try:
            torch.set_num_threads(self.threads)
            with noted(self.notes, cell.id):
                return _measured(cell)
        except Exception as error:
            line = f"{type(error).__name__}: {error}".splitlines()[0]
            return Outcome(cell, error=line, details=traceback.format_exc())
        finally:
            torch.set_num_threads(before)


class Recorded(Batched):
    """A verifier that remembers the reward and the metrics of every sample that it is asked about, in order."""

    def __init__(self, verifier: Any, evaluate: Callable[[Tensor, Problems], dict[str, Tensor]]) -> None:
        """Ask `verifier`, and `evaluate` for the metrics."""
        super().__init__(verifier)
        self.evaluate, self.parts = evaluate, list[dict[str, Tensor]]()

    def __call__(self, samples: Tensor, problems: Problems) -> Tensor:
        """Scores (B,)."""
        scores = super().__call__(samples, problems)
        self.parts.append({"problem": problems.ids, "reward": scores} | self.evaluate(samples, problems))
        return scores


def _measured(cell: Cell) -> Outcome:
    job = cell.job
    task, model = loaded("task", canonical(job["task"])), loaded("model", canonical(job["model"]))
    start, stop = job["shard"]
    problems = _problems(*(canonical(job[key]) for key in ("task", "problems", "model")))[start:stop]
    method, verifier, judge = made(job["method"]), _verifier(job, job["verifier"]), _verifier(job, job["judge"])
    looks = {name: _verifier(job, spec) for name, spec in job.get("held_out", {}).items()}
    measured = held_out(looks, task.evaluate) if looks else task.evaluate

    def evaluate(samples: Tensor, some: Problems) -> dict[str, Tensor]:
        score = {"score": judge(samples, some)} if judge else {}
        return dict(measured(samples, some)) | score

    drafts: list[Tensor] = []

    def watched(samples: Tensor, some: Problems) -> dict[str, Tensor]:
        drafts.append(samples.cpu())
        return evaluate(samples, some)

    if verifier is not None and not asks(method, model, problems):
        verifier = None
    elif verifier is not None and isinstance(method, BestOfN):
        verifier = Recorded(verifier, evaluate)
    result = redraft.run(
        method, model, problems, verifier=verifier, budget=redraft.Budget(nfe=job["budget"]), seed=job["seed"],
        evaluate=watched if hasattr(task, "evaluate_set") else evaluate, progress=False,
    )  # fmt: skip
    if result.interrupted:
        raise KeyboardInterrupt
    return _outcome(cell, model, result, verifier, drafts)


@lru_cache(maxsize=8)
def loaded(kind: str, spec: str) -> Any:
    """A task or a model by name and settings, in canonical JSON; loaded once in each worker."""
    settings = json.loads(spec)
    return getattr(redraft, f"load_{kind}")(settings.pop("name"), **settings)


@lru_cache(maxsize=4)
def _problems(task: str, arguments: str, model: str) -> Problems:
    make = loaded("task", task).problems
    asked = {"model": loaded("model", model)} if "model" in inspect.signature(make).parameters else {}
    given: Problems = make(**json.loads(arguments), **asked)
    return given


def _verifier(job: dict[str, Any], spec: dict[str, Any] | None) -> Any:
    return _loaded_verifier(*map(canonical, (spec, job["task"], job["model"]))) if spec else None


@lru_cache(maxsize=8)
def _loaded_verifier(spec: str, task: str, model: str) -> Any:
    settings = json.loads(spec)
    made_of = loaded("task", task), loaded("model", model)
    return redraft.load_verifier(settings.pop("name"), *made_of, **settings)


def versions() -> dict[str, str]:
    """What has to be equal for metrics to be."""
    return {
        "redraft": redraft.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def _outcome(cell: Cell, model: Any, result: Result, verifier: Any, drafts: list[Tensor]) -> Outcome:
    trace = result.trace
    settings: dict[str, Any] = {
        "job": cell.job,
        "versions": versions(),
        "weights": {model.name: weights_of(model)},
    }
    columns = {name: trace[name] for name in trace if name != "seconds"}
    settings["truths"] = sorted(name for name, column in columns.items() if column.dtype == torch.bool)
    files = {}
    if cell.media:
        files["media.safetensors"] = _media(cell, model, result)
    if isinstance(verifier, Recorded):
        files["candidates.parquet"] = parquet(
            {name: torch.cat([part[name] for part in verifier.parts]) for name in verifier.parts[0]}, {}
        )
    rows = {name: trace[name] for name in ("problem", "draft")}
    if drafts:
        files["samples.parquet"] = parquet(rows | {"sample": torch.cat(drafts)}, {})
    files["seconds.parquet"] = parquet(rows | {"seconds": trace["seconds"] / len(result.ids)}, {})
    files["parquet"] = parquet(columns, settings)
    last = trace["draft"] == trace["draft"].max()
    summary = {name: float(trace[name][last].double().mean()) for name in trace if name not in ("problem", "draft")}
    return Outcome(cell, files, summary=summary)


def parquet(columns: dict[str, Tensor], about: dict[str, Any]) -> bytes:
    """A Parquet file; counts and tokens are whole numbers, all else is float64, so that any two such files fit."""
    arrays = {n: _array(v if n in COUNTS or v.ndim > 1 else v.double()) for n, v in columns.items()}
    return packed(pa.table(arrays).replace_schema_metadata({"redraft": canonical(about)}))


def packed(table: pa.Table) -> bytes:
    """The Parquet file of a table."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue())


def _array(values: Tensor) -> Any:
    """Values (N,), or rows (N, L) as a list each."""
    flat = values.detach().cpu().numpy()
    return flat if flat.ndim == 1 else pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), flat.shape[1])


def _media(cell: Cell, model: Any, result: Result) -> bytes:
    """Samples of the first problems, with their text if the model writes text."""
    samples = result.samples[: cell.media].cpu().contiguous()
    text = model.text(samples) if getattr(model, "codec", None) else None
    about = {"text": json.dumps(text)} if isinstance(text, list) else {}
    return save({"samples": samples, "ids": result.ids[: cell.media].clone()}, about)
