"""What a run gives back, and how it is kept: safetensors, JSON and Parquet."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass, field, is_dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from redraft import __version__
from redraft.core.errors import RedraftError, said
from redraft.core.ledger import Budget, Ledger, are_accounts
from redraft.core.manifest import keep, kept
from redraft.core.model import Model
from redraft.core.trace import OWN, Trace


@dataclass(frozen=True)
class Result:
    """The outcome of a run.

    Attributes:
        samples: the last draft within the budget, (P, ...), one for each problem.
        ids: the problems' ids (P,).
        trace: one row for each draft of each problem.
        ledger: what was spent, by kind and problem.
        settings: method, model, budget, seed and versions.
        seconds: spent on drafts.
        interrupted: the run was ended by Ctrl-C.
        candidates: one row for each candidate that was evaluated, of methods that tell; see
            `redraft.methods.candidates`. Empty otherwise.
    """

    samples: Tensor
    ids: Tensor
    trace: Trace
    ledger: Ledger
    settings: dict[str, Any]
    seconds: float
    interrupted: bool = False
    candidates: Trace = field(default_factory=Trace)

    def save(self, folder: str | Path) -> None:
        """Write samples.safetensors, trace.parquet, candidates.parquet if there are any, and result.json into `folder`.

        A result that is there already is replaced as a whole: a kill leaves the old one or the new one.

        Raises:
            RedraftError: the folder cannot be written.
        """
        tensors = {"samples": self.samples.contiguous().cpu(), "ids": self.ids.cpu()}
        for account in ("spent", "saved"):
            tensors |= {f"{account}.{kind}": rows for kind, rows in getattr(self.ledger, account).items()}
        about = {"settings": self.settings, "seconds": self.seconds, "interrupted": self.interrupted}
        tables = {"trace.parquet": self.trace, "candidates.parquet": self.candidates}
        try:
            files = {"samples.safetensors": save(tensors)} | {n: _packed(t) for n, t in tables.items() if len(t)}
            keep(Path(folder) / "result.json", about | {"totals": self.ledger.totals()}, files)
        except (OSError, SafetensorError) as error:
            raise RedraftError(f"the result cannot be written to {folder}: {said(error)}") from error

    @classmethod
    def load(cls, folder: str | Path) -> Result:
        """Read what `save` wrote.

        Raises:
            RedraftError: a file is missing or damaged, or of another result.
        """
        try:
            about, files = kept(Path(folder) / "result.json")
            tensors = load(files["samples.safetensors"])
            trace, candidates = (_unpacked(files.get(name)) for name in ("trace.parquet", "candidates.parquet"))
            samples, ids = tensors.pop("samples"), tensors.pop("ids")
            accounts: dict[str, dict[str, Tensor]] = {"spent": {}, "saved": {}}
            for name, rows in tensors.items():
                account, kind = name.split(".")
                accounts[account][kind] = rows
            whole = all(are_accounts(held, len(ids)) for held in accounts.values()) and len(samples) == len(ids)
            if not (whole and set(OWN) <= set(trace) and set(trace["problem"].tolist()) <= set(ids.tolist())):
                raise ValueError("its files do not fit together")
            ledger = Ledger(len(ids), **accounts)
            settings, seconds, interrupted = (about[name] for name in ("settings", "seconds", "interrupted"))
            return cls(samples, ids, trace, ledger, settings, seconds, interrupted, candidates)
        except Exception as error:
            raise RedraftError(f"{folder} does not hold a complete result: {said(error)}") from error


def _packed(trace: Trace) -> bytes:
    file = BytesIO()
    trace.save(file)
    return file.getvalue()


def _unpacked(content: bytes | None) -> Trace:
    return Trace() if content is None else Trace.load(BytesIO(content))


def settings_of(method: Any, model: Model, budget: Budget, seed: int) -> dict[str, Any]:
    """All that a run's outcome depends on besides its problems, as JSON values."""
    return {
        "method": described(method),
        "model": model.name,
        "weights": weights_of(model),
        "budget": asdict(budget),
        "seed": seed,
        "versions": {
            "redraft": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }


def weights_of(model: Model) -> str | None:
    """What tells a model from others of its name: its `digest`, or else its `mark`; None if it has neither."""
    try:
        found: str | None = getattr(model, "digest", None) or getattr(model, "mark", None)
    except RedraftError:  # something in it has no content
        return None
    return found


def described(value: Any) -> Any:
    """A dataclass, or what has no other words for itself, as nested JSON values, each with its `type`."""
    if isinstance(value, int | float | str | bool | None):
        return value
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    says: Any = type(value).__repr__
    if is_dataclass(value) or says is object.__repr__:  # which is an address
        return {"type": type(value).__name__} | {k: described(v) for k, v in getattr(value, "__dict__", {}).items()}
    return repr(value)
