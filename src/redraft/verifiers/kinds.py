"""A learned classifier of Python lines as a verifier."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from redraft.core.content import content
from redraft.core.errors import unknown
from redraft.core.fields import checked
from redraft.core.task import Problems
from redraft.models.nets.kinds import LineKinds
from redraft.models.reference import load_reference
from redraft.models.weights import SHIPPED, load_network


@dataclass(frozen=True)
class LineKind:
    """Log-probability that a line of Python is of a kind, by a linear classifier.

    With `Reward(alpha=1)` methods aim at p(x | kind).

    Attributes:
        kind: one of `redraft.tasks.python.LINE_KINDS`.
        folder: that `redraft train python-kinds` wrote; the classifier that ships if not given.
    """

    kind: str = "raise"
    folder: str | None = None
    blind = True

    def __post_init__(self) -> None:
        """Reject a kind that the classifier does not know."""
        checked(self)
        if self.kind not in self._kinds():
            raise unknown("kind of line", self.kind, self._kinds())

    @property
    def mark(self) -> str:
        """Tells the classifier and the kind apart."""
        return content(_classifier(self.folder), self.kind)

    def __call__(self, samples: Tensor, problems: Problems) -> Tensor:
        """Scores (B,), float64, of lines (B, 64)."""
        with torch.no_grad():
            logits: Tensor = _classifier(self.folder)(load_reference(None, "cpu").features(samples.cpu()))
        return logits.double().log_softmax(-1)[:, self._kinds().index(self.kind)]

    def _kinds(self) -> list[str]:
        return list(_classifier(self.folder).config["kinds"])


@cache
def _classifier(folder: str | None) -> LineKinds:
    return load_network(LineKinds, Path(folder) if folder else SHIPPED / "python-kinds")
