"""A run's last finished draft on disk, replaced in one piece, so that a kill at any moment leaves a whole one."""

from __future__ import annotations

import json
import time
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from redraft.core.errors import RedraftError, said
from redraft.core.files import prepare
from redraft.core.ledger import Ledger, are_accounts
from redraft.core.sealed import seal, unseal
from redraft.core.state import Draft, State
from redraft.core.trace import OWN, Trace


@dataclass(frozen=True)
class Finished:
    """A run up to its last finished draft: either all of a draft is in it, or nothing.

    Attributes:
        draft: of the problems that were still at work.
        final: the last draft (P, ...) of every problem.
        trace: of all drafts.
        candidates: of all drafts.
        paid: what they cost.
        seconds: spent on them.
    """

    draft: Draft
    final: Tensor
    trace: Trace
    candidates: Trace
    paid: Ledger
    seconds: float


class Checkpoint:
    """A folder that a run goes on from."""

    def __init__(self, folder: str | Path, fingerprint: dict[str, Any], every: float = 2.0) -> None:
        """Open `folder` for the run with this fingerprint; write at most once in `every` seconds, and at the end.

        Raises:
            RedraftError: the folder cannot be written.
        """
        self.path = prepare(Path(folder)) / "run.safetensors"
        self.fingerprint, self.every, self.last = (
            json.dumps(fingerprint, sort_keys=True),
            every,
            -every,
        )
        self.written: int | None = None  # number of the draft

    def save(self, finished: Finished, at_once: bool = False) -> None:
        """Write what is finished, unless the last write was just now."""
        number = finished.draft.number
        if self.written == number or not at_once and time.monotonic() - self.last < self.every:
            return
        self.last, self.written = time.monotonic(), number
        about = {
            "fingerprint": self.fingerprint,
            "number": json.dumps(number),
            "seconds": json.dumps(finished.seconds),
        }
        try:
            seal(self.path, _tensors(finished), about)
        except (OSError, SafetensorError) as error:
            warnings.warn(f"the checkpoint {self.path} was not written, the run goes on: {error}", stacklevel=2)

    def load(self, state: State, ids: Tensor) -> Finished | None:
        """What was saved, if anything was, of the run on the problems with these ids (P,) that began with `state`.

        Raises:
            RedraftError: the file is damaged, or from another run.
        """
        if not self.path.exists():
            return None
        try:
            tensors, about = unseal(self.path)
            fingerprint = about["fingerprint"]
        except Exception as error:
            raise self._damaged(error) from error
        if fingerprint != self.fingerprint:
            other = _differing(json.loads(self.fingerprint), fingerprint)
            raise RedraftError(
                f"{self.path} is from a run with other settings ({other}): delete it or choose another folder"
            )
        try:
            return _finished(tensors, about, state, ids)
        except Exception as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> RedraftError:
        return RedraftError(f"{self.path} is damaged; delete it to start over: {said(error)}")


def _tensors(finished: Finished) -> dict[str, Tensor]:
    groups = {
        "carry": finished.draft.carry,
        "spent": finished.paid.spent,
        "saved": finished.paid.saved,
        "trace": finished.trace,
        "candidates": finished.candidates,
    }
    tensors = {"rows": finished.draft.state.problem, "final": finished.final}
    return tensors | {f"{group}.{name}": held[name] for group, held in groups.items() for name in held}


def _finished(tensors: dict[str, Tensor], about: dict[str, str], state: State, ids: Tensor) -> Finished:
    """What the tensors say, if it can be of a run on the problems `ids` (P,)."""
    groups: dict[str, dict[str, Tensor]] = {name: {} for name in ("carry", "spent", "saved", "trace", "candidates")}
    for name, tensor in tensors.items():
        if "." in name:
            group, _, key = name.partition(".")
            groups[group][key] = tensor
    rows, final = tensors["rows"], tensors["final"]
    number, seconds = json.loads(about["number"]), json.loads(about["seconds"])
    wrong = {
        "number": not isinstance(number, int) or number < 0,
        "seconds": not isinstance(seconds, float) or not 0 <= seconds < float("inf"),
        "rows": not _distinct(rows, len(ids)),
        "final": (final.shape, final.dtype) != (state.x.shape, state.x.dtype) or not final.isfinite().all(),
        "carry": any(value.shape[:1] != rows.shape for value in groups["carry"].values()),
        "spent": not are_accounts(groups["spent"], len(ids)),
        "saved": not are_accounts(groups["saved"], len(ids)),
        "candidates": not _columns(groups["candidates"]),
    }
    _raise_for(wrong)
    paid = Ledger(len(ids), groups["spent"], groups["saved"])
    _raise_for({"trace": not _is_trace(groups["trace"], ids, ids[rows], number, paid.nfe[rows])})
    kept = state[rows]
    kept = kept.to(final[rows].to(state.x), torch.zeros_like(kept.t))
    draft = Draft(kept, number, carry={name: value.to(state.x.device) for name, value in groups["carry"].items()})
    return Finished(draft, final.to(state.x), Trace(groups["trace"]), Trace(groups["candidates"]), paid, seconds)


def _raise_for(wrong: dict[str, bool]) -> None:
    for name, is_wrong in wrong.items():
        if is_wrong:
            raise ValueError(f"{name!r} in it cannot be of this run")


def _distinct(rows: Tensor, problems: int) -> bool:
    """Whether these are numbers of different problems."""
    whole = rows.dtype == torch.int64 and rows.ndim == 1 and len(rows) > 0
    return whole and bool((rows >= 0).all() and (rows < problems).all()) and len(set(rows.tolist())) == len(rows)


def _columns(held: dict[str, Tensor]) -> bool:
    """Whether the columns are of one length."""
    return len({column.shape for column in held.values()}) < 2 and all(column.ndim == 1 for column in held.values())


def _is_trace(held: dict[str, Tensor], ids: Tensor, last: Tensor, number: int, nfe: Tensor) -> bool:
    """Whether it has a row for each draft of each problem, and ends with those of `last`, which have cost `nfe`."""
    if not (_columns(held) and set(OWN) <= set(held)):
        return False
    problem, draft = held["problem"], held["draft"]
    most = max(Counter(ids.tolist()).values())  # which may repeat
    counts = torch.stack([held[name] for name in OWN if name not in ("problem", "seconds")])
    ended = draft == number
    return bool(
        counts.dtype == problem.dtype == torch.int64
        and (counts >= 0).all()
        and (held["seconds"] >= 0).all()
        and set(problem.tolist()) <= set(ids.tolist())
        and max(Counter(zip(problem.tolist(), draft.tolist(), strict=True)).values()) <= most
        and torch.equal(problem[ended], last)
        and torch.equal(held["nfe"][ended], nfe)
    )


def _differing(mine: dict[str, Any], there: str) -> str:
    """Names of what sets two fingerprints apart."""
    try:
        other = dict(json.loads(there))
    except (ValueError, TypeError):
        other = {}
    return ", ".join(name for name in mine if name not in other or other[name] != mine[name])
