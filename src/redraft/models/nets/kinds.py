"""A linear classifier of lines on the features of a frozen network."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from redraft.models.nets.base import Net


class LineKinds(Net):
    """Logits (B, K) of `kinds` from features (B, D)."""

    def __init__(self, features: int, kinds: list[str]) -> None:
        """Build one layer over D `features`."""
        super().__init__()
        self.config: dict[str, Any] = {"features": features, "kinds": kinds}
        self.norm = nn.BatchNorm1d(features, affine=False)
        self.layer = nn.Linear(features, len(kinds))

    def forward(self, features: Tensor) -> Tensor:
        """Logits (B, K)."""
        logits: Tensor = self.layer(self.norm(features))
        return logits
