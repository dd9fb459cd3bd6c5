"""What a run gives back, and how it is kept: safetensors, JSON and Parquet."""

from __future__ import annotations

import platform
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from html import escape
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
from redraft.core.pictures import drawn, png, shrunk, tiled
from redraft.core.reading import reader
from redraft.core.task import Problems
from redraft.core.trace import OWN, Trace

MOST = 16  # samples that a notebook shows


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
        texts: the samples as texts, up to the end of each, of models that write text.
        shows: 'pictures' or 'boards' if that is what the samples are; see `redraft.core.pictures`.
    """

    samples: Tensor
    ids: Tensor
    trace: Trace
    ledger: Ledger
    settings: dict[str, Any]
    seconds: float
    interrupted: bool = False
    candidates: Trace = field(default_factory=Trace)
    texts: list[str] | None = None
    shows: str | None = None

    def __repr__(self) -> str:
        """What was done and what came of it, in a line or two."""
        drafts = len(set(self.trace["draft"].tolist())) if len(self.trace) else 0
        words = [_counted(len(self.ids), "problem"), _counted(drafts, "draft")]
        words += [f"{self.ledger.nfe.double().mean():.4g} NFE each"]
        if bool(self.ledger.verifier_calls.any()):
            words.append(f"{self.ledger.verifier_calls.double().mean():.4g} verifier calls each")
        words += [f"{self.seconds:.3g} seconds"] + ["interrupted"] * self.interrupted
        means = ", ".join(f"{name} {mean:.4g}" for name, mean in self.means().items())
        return f"Result: {', '.join(words)}" + (f"\n  {means}" if means else "")

    def _repr_html_(self) -> str:
        """The same for a notebook, with the first samples: pictures, or texts."""
        if self.shows:
            sheet = b64encode(png(tiled([*map(shrunk, drawn(self.samples[:MOST], self.shows))], 4))).decode()
            below = f'<img alt="the first samples" src="data:image/png;base64,{sheet}">'
        else:
            below = "".join(f"<pre>{escape(text)}</pre>" for text in (self.texts or [])[:MOST])
        return f"<pre>{escape(repr(self))}</pre>{below}"

    def means(self) -> dict[str, float]:
        """The mean over the problems' last drafts of what was scored or evaluated, NaN left out."""
        rows = self.trace.last_rows()
        return means_of({name: self.trace[name][rows] for name in self.trace if name not in OWN})

    def save(self, folder: str | Path) -> None:
        """Write samples.safetensors, trace.parquet, candidates.parquet if there are any, and result.json into `folder`.

        A result that is there already is replaced as a whole: a kill leaves the old one or the new one.

        Raises:
            RedraftError: the folder cannot be written.
        """
        tensors = {"samples": self.samples.contiguous().cpu(), "ids": self.ids.cpu()}
        for account in ("spent", "saved"):
            tensors |= {f"{account}.{kind}": rows for kind, rows in getattr(self.ledger, account).items()}
        about = {
            "settings": self.settings,
            "seconds": self.seconds,
            "interrupted": self.interrupted,
            "shows": self.shows,
            "texts": self.texts,
        }
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
            more = about.get("texts"), about.get("shows")
            return cls(samples, ids, trace, ledger, settings, seconds, interrupted, candidates, *more)
        except Exception as error:
            raise RedraftError(f"{folder} does not hold a complete result: {said(error)}") from error


def _packed(trace: Trace) -> bytes:
    file = BytesIO()
    trace.save(file)
    return file.getvalue()


def _unpacked(content: bytes | None) -> Trace:
    return Trace() if content is None else Trace.load(BytesIO(content))


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'s' * (number != 1)}"


def means_of(columns: Mapping[str, Tensor]) -> dict[str, float]:
    """The mean of each column (P,), NaN left out; none of a column without a number."""
    known = {name: values.double()[~values.isnan()] for name, values in columns.items()}
    return {name: float(values.mean()) for name, values in known.items() if len(values)}


def texts_of(model: Any, samples: Tensor, problems: Problems) -> list[str] | None:
    """Texts of samples (P, ...), up to the end of each, if the model writes text."""
    if not hasattr(model, "text"):
        return None
    try:
        return reader(model, "all")(samples, problems)
    except Exception:  # its samples are pictures, or what reads them fails: no reason to lose a run
        return None


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
