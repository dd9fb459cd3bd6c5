"""A run's last finished draft on disk, replaced in one piece, so that a kill at any moment leaves a whole one."""

from __future__ import annotations

import json
import os
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from redraft.core.errors import RedraftError
from redraft.core.files import prepare
from redraft.core.trace import Trace


@dataclass(frozen=True)
class Saved:
    """What a checkpoint holds: see `Checkpoint.save`."""

    rows: Tensor
    final: Tensor
    number: int
    seconds: float
    carry: dict[str, Tensor]
    spent: dict[str, Tensor]
    saved: dict[str, Tensor]
    trace: Trace
    candidates: Trace


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

    def save(self, session: Any, at_once: bool = False) -> None:
        """Write the session's last draft, its ledger and its trace, unless the last write was just now."""
        draft = session.draft
        if self.written == draft.number or not at_once and time.monotonic() - self.last < self.every:
            return
        self.last, self.written = time.monotonic(), draft.number
        tensors = {"rows": draft.state.problem, "final": session.final}
        groups = {
            "carry": draft.carry,
            "spent": session.paid.spent,
            "saved": session.paid.saved,
            "trace": session.trace,
            "candidates": session.candidates,
        }
        tensors |= {f"{group}.{name}": group_[name] for group, group_ in groups.items() for name in group_}
        about = {
            "fingerprint": self.fingerprint,
            "number": json.dumps(draft.number),
            "seconds": json.dumps(session.seconds),
        }
        part = self.path.with_suffix(".part")
        try:
            save_file({name: value.cpu().contiguous().clone() for name, value in tensors.items()}, part, about)
            os.replace(part, self.path)
        except (OSError, SafetensorError) as error:
            warnings.warn(f"the checkpoint {self.path} was not written, the run goes on: {error}", stacklevel=2)

    def load(self) -> Saved | None:
        """What was saved, if anything was.

        Raises:
            RedraftError: the file is damaged, or from another run.
        """
        if not self.path.exists():
            return None
        names = ("carry", "spent", "saved", "trace", "candidates", "")
        groups: dict[str, dict[str, Tensor]] = {name: {} for name in names}
        try:
            with safe_open(self.path, "pt") as file:
                about = file.metadata()
                for name in file.keys():  # noqa: SIM118 - not a mapping
                    group, _, key = name.partition(".") if "." in name else ("", "", name)
                    groups[group][key] = file.get_tensor(name)
            saved = Saved(
                rows=groups[""]["rows"],
                final=groups[""]["final"],
                number=json.loads(about["number"]),
                seconds=json.loads(about["seconds"]),
                carry=groups["carry"],
                spent=groups["spent"],
                saved=groups["saved"],
                trace=Trace(groups["trace"]),
                candidates=Trace(groups["candidates"]),
            )
            fingerprint = about["fingerprint"]
        except Exception as error:
            raise RedraftError(f"{self.path} is damaged; delete it to start over: {error}") from error
        if fingerprint != self.fingerprint:
            other = _differing(json.loads(self.fingerprint), fingerprint)
            raise RedraftError(
                f"{self.path} is from a run with other settings ({other}): delete it or choose another folder"
            )
        return saved


def _differing(mine: dict[str, Any], there: str) -> str:
    """Names of what sets two fingerprints apart."""
    try:
        other = dict(json.loads(there))
    except (ValueError, TypeError):
        other = {}
    return ", ".join(name for name in mine if name not in other or other[name] != mine[name])
