"""How many of the candidates that a method compares differ: copies of one sample are no choice."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from redraft.core.rows import bytes_of
from redraft.core.trace import Trace


def prints(x: Tensor) -> Tensor:
    """A number (B,) for each row of `x` (B, ...) that equal rows share and others do not, int64."""
    found = [hashlib.blake2b(row, digest_size=8).digest() for row in bytes_of(x)]
    return torch.tensor([int.from_bytes(each, "little", signed=True) for each in found], device=x.device)


def distinct(known: Tensor) -> dict[str, Tensor]:
    """What a trace says of K candidates with the `prints` (P, K): how many there are, and how many of them differ."""
    ordered = known.sort(1).values
    differ = 1 + (ordered.diff(dim=1) != 0).sum(1)
    return {"candidates": torch.full_like(differ, known.shape[1]).double(), "distinct": differ.double()}


def among(x: Tensor, problems: int) -> dict[str, Tensor]:
    """The same of candidates `x` (P * K, ...) of P problems, those of a problem side by side."""
    return distinct(prints(x).view(problems, -1))


@dataclass(frozen=True)
class Differing:
    """How many candidates of each of P problems differed, over the moments at which they were compared.

    Attributes:
        total: (P,) summed over these moments.
        moments: (P,) how many there were.
    """

    total: Tensor
    moments: Tensor

    @classmethod
    def of(cls, problems: int, device: torch.device) -> Differing:
        """Before the first moment."""
        zero = torch.zeros(problems, dtype=torch.float64, device=device)
        return cls(zero, zero)

    def and_of(self, x: Tensor, going: Tensor) -> Differing:
        """With the candidates `x` (A * K, ...) of the A problems that are `going` (P,), side by side."""
        if not going.any():
            return self
        now = among(x, int(going.sum()))["distinct"]
        return Differing(self.total.masked_scatter(going, self.total[going] + now), self.moments + going)

    def scores(self, candidates: int) -> dict[str, Tensor]:
        """What the trace says: how many candidates there were at each moment, and the mean number that differed."""
        mean = self.total / self.moments.clamp_min(1)
        return {"candidates": torch.full_like(mean, candidates), "distinct": mean}


def warn_of_copies(trace: Trace, method: str) -> None:
    """Warn if the last draft of every problem was chosen from several candidates that were all the same."""
    if "distinct" not in trace or "candidates" not in trace:
        return
    rows = trace.last_rows()
    candidates, differ = trace["candidates"][rows], trace["distinct"][rows]
    if bool(((candidates > 1) & (differ == 1)).all()):
        warnings.warn(
            f"{method} ended with one distinct candidate of {int(candidates.max())} for every problem, so that "
            "there was nothing to choose from: give its sampler more randomness, such as a higher temperature or top_p",
            stacklevel=3,
        )
