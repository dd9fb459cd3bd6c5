"""One draft by one sampler: the plain baseline, and the way to use a sampler that revises its own tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from redraft.core.errors import RedraftError
from redraft.core.fields import checked
from redraft.core.method import Verifier
from redraft.core.model import Model
from redraft.core.state import Draft
from redraft.core.streams import Streams
from redraft.samplers import AnySampler, for_samples, sample, sampler_for


@dataclass(frozen=True)
class Generate:
    """Sample once.

    Attributes:
        sampler: how; one that suits the model if not given.
    """

    sampler: AnySampler | None = field(default=None, metadata={"suits": for_samples})

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)

    def drafts(self, model: Model, draft: Draft, streams: Streams, verifier: Verifier | None = None) -> Iterator[Draft]:
        """The one draft; of masked models with its `redraws`, how often a free token was masked again or edited.

        Where a cap on the steps ended a walk that sets its own pace, `forced` tells how many tokens it revealed.
        """
        if verifier is not None:
            raise RedraftError("Generate takes no verifier: leave verifier=None")
        if draft.number < 0:
            noisy = model.process.prior(draft.state, draft.state.free, streams.fold("prior"))
            scores: dict[str, Tensor] = {}
            free = draft.state.free.sum(1).double().clamp_min(1)

            def note(rows: Tensor, walk: Any) -> None:
                if hasattr(walk, "remasked"):
                    scores.setdefault("redraws", torch.zeros_like(free))[rows] = walk.remasked / free[rows]
                if getattr(walk, "forced", None) is not None:
                    scores.setdefault("forced", torch.zeros_like(free))[rows] = walk.forced.double()

            state = sample(sampler_for(self, model), model, noisy, streams.fold("initial"), note)
            yield replace(draft, state=state, number=0, scores=scores)

    def nfe(self, model: Model, draft: Draft) -> Tensor:
        """The most network rows (B,) that the draft can take."""
        return sampler_for(self, model).between(model, draft.state.free.sum(1))

    def verifier_calls(self, model: Model, draft: Draft) -> Tensor:
        """None."""
        return torch.zeros(len(draft), dtype=torch.int64)

    def total(self) -> int:
        """Drafts in all."""
        return 1
