"""The walk of a masked sampler: what it carries over from step to step, by rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from redraft.core.state import Prediction, State
from redraft.samplers.base import Looked


@dataclass(frozen=True, repr=False)
class UnmaskWalk(Looked):
    """A walk from masks to tokens.

    `prediction` is kept after its step if the model has no time input, and is that of the tokens `seen`; `fresh` rows
    were looked at since their last step.

    Attributes:
        region: positions (B, R) that are walked: those whose level was above 0. Of walks with a tail, R counts it here
            and below.
        block: which block each of them belongs to (B, R).
        top: level (B,) at the start.
        step: steps done (B,).
        steps: steps in all (B,), or the most.
        per_block: steps a block (B,), or the most.
        confidence: log probability (B, R) that tokens had when they were revealed, as they were drawn.
        remasked: how many tokens (B,) were masked again or edited.
        settled: rows (B,) that have no mask left before their last step, and will have none.
        editing: steps (B,) that this block may still be edited in once it has no mask.
        left: masks (B,), where the level is their share; None where it follows the steps.
        forced: how many tokens (B,) a cap on the steps revealed that the budget would not have; None without a cap.
        tail: tokens (B, T) that fill the last block up, behind the state's own; None if none are needed.
        seen: the tokens (B, R) that `prediction` is of, -1 where it is of none; None if there is no prediction.
        before: each row's last prediction, if a rule `remembers`; of rows that have none it says nothing.
        remembered: rows (B,) that have one.
    """

    region: Tensor
    block: Tensor
    top: Tensor
    step: Tensor
    steps: Tensor
    per_block: Tensor
    confidence: Tensor
    remasked: Tensor
    settled: Tensor
    editing: Tensor
    left: Tensor | None = None
    forced: Tensor | None = None
    tail: Tensor | None = None
    seen: Tensor | None = None
    before: Prediction | None = None
    remembered: Tensor | None = None

    @property
    def done(self) -> Tensor:
        """Rows (B,) that have arrived."""
        return (self.step >= self.steps) | self.settled

    @property
    def whole(self) -> State:
        """The state with its tail, which the network sees."""
        return self.state if self.tail is None else _extended(self.state, self.tail)

    @property
    def active(self) -> Tensor:
        """Positions (B, R) of the block that is being walked."""
        return self.region & (self.block == (self.step // self.per_block)[:, None])

    def level(self, ahead: int = 0) -> Tensor:
        """Level (B,) now, or `ahead` steps on, in this block; where that is unknown, the walk's share of masks now.

        That share is never 0 as long as a block is edited, so that the level is only where a walk has arrived.
        """
        if self.left is not None:
            return self.left.double().clamp_min(0.5) / self.region.sum(1).clamp_min(1)
        return self.top * (1 - (self.step % self.per_block + ahead) / self.per_block.double())

    def levels(self, step: Tensor) -> Tensor:
        """Levels (B, R) after so many steps (B,): the top in blocks that are not begun, 0 in finished ones."""
        into = (step[:, None] - self.block * self.per_block[:, None]) / self.per_block[:, None].double()
        return self.top[:, None] * (1 - into.clamp(0, 1))

    def holding(self, x: Tensor, t: Tensor) -> UnmaskWalk:
        """The walk with other tokens and levels (B, R)."""
        size = self.state.x.shape[1]
        tail = None if self.tail is None else x[:, size:]
        return replace(self, state=self.state.to(x[:, :size], t[:, :size]), tail=tail)

    def recalled(self, prediction: Prediction) -> tuple[Prediction, Tensor]:
        """Each row's last prediction, `prediction` for rows that have none, and which rows (B,) have one."""
        if self.before is None or self.remembered is None:
            return prediction, torch.zeros_like(self.settled)
        new = ~self.remembered
        return (self.before.put(new, prediction[new]) if new.any() else self.before), self.remembered

    @classmethod
    def cat(cls, parts: Sequence[UnmaskWalk]) -> UnmaskWalk:
        """The rows of all parts, in order; if some have a prediction before, the others have one that is not theirs."""
        known = next((part.before for part in parts if part.before is not None and len(part)), None)
        return super().cat(parts if known is None else [part._blank(known) for part in parts])

    def _blank(self, known: Prediction) -> UnmaskWalk:
        if self.before is not None:
            return self
        rows = torch.zeros_like(self.state.problem)
        return replace(self, before=known[rows], remembered=rows.bool())

    def unseen(self) -> UnmaskWalk:
        """The walk without a prediction."""
        return replace(self, seen=None, prediction=None, fresh=None)

    def _stale(self, known: Prediction) -> UnmaskWalk:
        seen = torch.full_like(self.whole.x, -1) if self.seen is None else self.seen
        return replace(super()._stale(known), seen=seen)


def _extended(state: State, tail: Tensor) -> State:
    """Rows (B, R) with further tokens (B, T) behind them, visible and at the level of the last."""
    like = torch.ones_like(tail)
    t, frozen = state.t[:, -1:] * like, ~like.bool()
    cond = {k: torch.cat([v, like.bool()], 1) if k == "visible" else v for k, v in state.cond.items()}
    parts = {"x": tail, "t": t.to(state.t), "frozen": frozen}
    return replace(state, cond=cond, **{k: torch.cat([getattr(state, k), v], 1) for k, v in parts.items()})
