"""Samplers of masked diffusion models: reveal some masks, mask some revealed tokens again, until none is left.

A step is

    x^ <- a draw from p(x0 | x_t) at the masks            proposal: `Draw`
    how many tokens to reveal and to mask again           `Rule.budget`
    which of them                                         `Rule.scorer`, `Rule.noise`, `Rule.joint`
    x_s <- x^ where revealed, m where masked, else x_t

on a grid of levels t, with one rule inside a window of levels and another outside it. presets.py names the published
samplers; they are all of this form.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from redraft.core.errors import RedraftError
from redraft.core.model import Model
from redraft.core.state import Prediction, State
from redraft.core.streams import Streams
from redraft.processes.categorical import Draw
from redraft.processes.mask import Linear, Schedule, check_schedule
from redraft.samplers.base import Looked, stretch, wanted
from redraft.samplers.budgets import Remask
from redraft.samplers.rules import Choice, Moment, Rates, Rule

ANCESTRAL = Rule(Remask())


@dataclass(frozen=True)
class UnmaskWalk(Looked):
    """A walk from masks to tokens.

    `prediction` is kept after its step if the model has no time input, and is that of the tokens `seen`; `fresh` rows
    were looked at since their last step.

    Attributes:
        region: positions (B, R) that are walked: those whose level was above 0.
        block: which block each of them belongs to (B, R).
        top: level (B,) at the start.
        step: steps done (B,).
        steps: steps in all (B,).
        per_block: steps a block (B,).
        confidence: log probability (B, R) that tokens had when they were revealed, as they were drawn.
        remasked: how many tokens (B,) were masked again.
        settled: rows (B,) that have no mask left before their last step, and will have none.
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
    seen: Tensor | None = None
    before: Prediction | None = None
    remembered: Tensor | None = None

    @property
    def done(self) -> Tensor:
        """Rows (B,) that have arrived."""
        return (self.step >= self.steps) | self.settled

    @property
    def active(self) -> Tensor:
        """Positions (B, R) of the block that is being walked."""
        return self.region & (self.block == (self.step // self.per_block)[:, None])

    def level(self, ahead: int = 0) -> Tensor:
        """Level (B,) now, or `ahead` steps on, in this block."""
        return self.top * (1 - (self.step % self.per_block + ahead) / self.per_block.double())

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
        seen = torch.full_like(self.state.x, -1) if self.seen is None else self.seen
        return replace(super()._stale(known), seen=seen)


@dataclass(frozen=True)
class Corrector:
    """Steps that leave the law of x_s as it is: tokens are masked and masks revealed at rates that balance.

    The uninformed corrector of Campbell et al., "A continuous time framework for discrete denoising models", 2022:
    with a kept, a token is masked at rate 1 and a mask revealed at rate a / (1 - a), here for a time `size`, solved
    exactly for each position alone.

    Attributes:
        size: of a step, in units of the mean time until a token is masked.
        steps: after each step of the sampler; each costs a network evaluation.
    """

    size: float = 0.1
    steps: int = 1
    revises = True
    random = True

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        if self.size <= 0 or self.steps < 1:
            given = f"size={self.size} and steps={self.steps}"
            raise RedraftError(f"a corrector needs a size above 0 and 1 step or more, not {given}")

    def __call__(self, now: Moment) -> Rates:
        """Probabilities (B, 1) of the two flips within `size`, in the two-state chain of a position."""
        moved = 1 - (-self.size / (1 - now.kept).clamp_min(1e-12)).exp()
        return Rates(now.kept * moved, (1 - now.kept) * moved)


@dataclass(frozen=True)
class Unmask:
    """The general sampler of masked diffusion models.

    Attributes:
        steps: in all.
        rule: how a step chooses, at levels `off` < t <= `on`.
        outside: how it chooses at other levels.
        on: see `rule`.
        off: see `rule`.
        schedule: how many tokens survive to a level.
        draw: how tokens are drawn.
        block: number of positions that are finished before the next are begun, from the left; None is all at once.
        aligned: blocks are counted from the first token that is no padding, the prompt's included (LLaDA2), and not
            from the first mask; masks so scattered that this would make more blocks are counted from the first.
        corrector: steps that leave the law as it is, after each step.
        reuse: rows whose tokens did not change are not evaluated again, if the model has no time input; the last
            logits are kept for it.
    """

    steps: int = 128
    rule: Rule | Choice = ANCESTRAL
    outside: Rule | Choice = ANCESTRAL
    on: float = 1.0
    off: float = 0.0
    schedule: Schedule = field(default_factory=Linear)
    draw: Draw = field(default_factory=Draw)
    block: int | None = None
    aligned: bool = False
    corrector: Corrector | None = None
    reuse: bool = True
    by_level = True

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        if self.steps < 1:
            raise RedraftError(f"steps is {self.steps}: it must be 1 or more")
        if not 0 <= self.off < self.on <= 1:
            raise RedraftError(f"the window of levels from off={self.off} to on={self.on} must lie in [0, 1]")
        if self.block is not None and self.block < 1:
            raise RedraftError(f"block is {self.block}: it must be 1 or more, or None")
        check_schedule(self.schedule)

    @property
    def needs(self) -> tuple[str, ...]:
        """What the model has to offer."""
        rules = (self.rule, self.outside)
        return ("tokens", *(need for rule in rules for need in rule.needs))

    def random_start(self, model: Model) -> bool:
        """Masks are always the same."""
        return False

    def random_steps(self, model: Model) -> bool:
        """Whether tokens are drawn, or positions are."""
        rules = (self.rule,) if (self.on, self.off) == (1.0, 0.0) else (self.rule, self.outside)
        return (
            self.draw.temperature > 0
            or self.corrector is not None
            or any(getattr(rule, "random", True) for rule in rules)
        )

    def nfe(self, regions: Tensor, level: float = 1.0) -> Tensor:
        """The most network rows (B,) that a walk over `regions` (B,) masks from `level` takes, critics' included."""
        return self._cost(regions, level, (1.0, 0.0))

    def between(self, model: Model, regions: Tensor, high: float = 1.0, low: float = 0.0) -> Tensor:
        """The most network rows (B,) of the part of a walk over `regions` (B,) masks from `high` to `low`.

        Of a walk in blocks it is the whole.
        """
        return self._cost(regions, 1.0, (1.0, 0.0) if self.block else (high, low))

    def _cost(self, regions: Tensor, level: float, part: tuple[float, float]) -> Tensor:
        """Network rows (B,) of the part between two shares of `level` of a walk that begins at `level`."""
        blocks = self._blocks(regions)
        cost = self._cost_of(blocks, level, part)
        if self.aligned:  # the first block and the last may be partly given
            cost = torch.maximum(cost, self._cost_of(blocks + 1, level, part))
        return (regions > 0) * cost

    def _cost_of(self, blocks: Tensor, level: float, part: tuple[float, float]) -> Tensor:
        """The same of walks through so many blocks (B,)."""
        per_block = self._per_block(blocks)
        first, last = stretch(per_block, *part)
        step = torch.arange(int(per_block.max()), device=blocks.device)
        taken = (step >= first[:, None]) & (step < last[:, None])
        before_last = taken & (step < per_block[:, None] - 1)
        inside = self._inside(level * (1 - step / per_block[:, None].double()))
        judged = before_last * torch.where(inside, self.rule.passes, self.outside.passes)
        corrected = before_last.sum(1) * (self.corrector.steps if self.corrector else 0)
        return blocks * (taken.sum(1) + judged.sum(1) + corrected)

    def init(self, model: Model, state: State, streams: Streams) -> UnmaskWalk:
        """The walk at its start; rows without a position above level 0 have arrived."""
        for need in self.needs:
            wanted(model, need, "this sampler")
        if (state.t == 1).any() and not (state.x == model.process.mask).any():
            raise RedraftError(
                f"there is no mask (id {model.process.mask}) in the state, though it has positions at level 1: "
                "begin with model.process.prior(state, state.free, streams)"
            )
        region = state.t > 0
        block = self._block_of(region, state.origin if self.aligned else None)
        blocks = torch.where(region, block + 1, 1).amax(1)
        per_block = self._per_block(blocks)
        return UnmaskWalk(
            state=state,
            region=region,
            block=block,
            top=state.t.amax(1).double(),
            step=torch.zeros_like(blocks),
            steps=blocks * per_block * region.any(1),
            per_block=per_block,
            confidence=torch.zeros_like(state.t, dtype=torch.float64),
            remasked=torch.zeros_like(blocks),
            settled=torch.zeros_like(blocks, dtype=torch.bool),
        )

    def look(self, model: Model, walk: UnmaskWalk) -> UnmaskWalk:
        """The walk with the network's prediction for its state, which its next step then uses."""
        prediction = self._asked(model, walk)
        return replace(walk, seen=walk.state.x, prediction=prediction, fresh=torch.ones_like(walk.settled))

    def step(self, model: Model, walk: UnmaskWalk, streams: Streams) -> UnmaskWalk:
        """One step of every row: the rows at their block's last step, inside the window and outside it in turn."""
        last = (walk.step + 1) % walk.per_block == 0
        kind = torch.where(last, 2, self._inside(walk.level()).long())
        kinds = torch.unique(kind).tolist()
        parts = [self._advance(model, walk[kind == k], streams[kind == k], k) for k in kinds] if len(kinds) > 1 else []
        if not parts:
            return self._advance(model, walk, streams, kinds[0])
        order = torch.cat([(kind == k).nonzero()[:, 0] for k in kinds]).argsort()
        return UnmaskWalk.cat(parts)[order]

    def level(self, walk: UnmaskWalk) -> Tensor:
        """Level of noise (B,) that each row has come down to."""
        return torch.where(walk.done, 0.0, walk.level())

    def arrived(self, model: Model, state: State) -> UnmaskWalk:
        """The walk at its end, of a clean state whose free positions may be walked again from level 1."""
        walk = self.init(model, state.to(state.x, state.free.to(state.t) / 2), Streams.root(0, state.problem))
        clean = state.to(state.x, torch.zeros_like(state.t))
        return replace(walk, state=clean, step=walk.steps, top=torch.ones_like(walk.top))

    def rewind(self, model: Model, walk: UnmaskWalk, level: float, streams: Streams, at: float = 0.0) -> UnmaskWalk:
        """The walk noised back up to `level`, or to the next level of its grid above."""
        if self.block:
            raise RedraftError("a walk in blocks cannot be taken up on its way: use block=None")
        here = (walk.steps * (1 - at / walk.top) - 1e-6).ceil().long()
        here = torch.where(walk.settled, torch.maximum(here, walk.step), walk.step)
        before = self.schedule.kept(walk.top * (1 - here / walk.steps.clamp_min(1)))
        step = (walk.steps * (1 - level / walk.top) + 1e-6).floor().long().clamp_min(0)
        back = replace(walk, step=step, settled=torch.zeros_like(walk.settled), before=None, remembered=None)
        kept = self.schedule.kept(back.level()) / before.clamp_min(1e-12)
        lost = walk.region & (streams.at(walk.state.origin).uniform(walk.region.shape[1:]) >= kept[:, None])
        x = walk.state.x.masked_fill(lost, model.process.mask)
        if not self._revises():
            back = replace(back, settled=~(walk.region & (x == model.process.mask)).any(1))
        t = torch.where(back.done, 0.0, back.level())[:, None].to(walk.state.t)
        back = replace(back, state=walk.state.to(x, torch.where(walk.region, t, walk.state.t)))
        return back if self._reuses(model) else back.unseen()

    def _advance(self, model: Model, walk: UnmaskWalk, streams: Streams, kind: int) -> UnmaskWalk:
        """One step of rows that are all at their last step (2), inside the window (1) or outside it (0)."""
        rule = (self.outside, self.rule, _everything)[kind]
        streams = streams.at(walk.state.origin).fold("unmask").fold(walk.step)
        walk = self._flip(model, walk, rule, streams, (walk.level(), walk.level(1)))
        if self.corrector and kind < 2:
            for number in range(self.corrector.steps):
                again = streams.fold("corrector").fold(number)
                walk = self._flip(model, walk, Rule(self.corrector), again, (walk.level(1), walk.level(1)))
        return self._onward(model, walk)

    def _flip(
        self,
        model: Model,
        walk: UnmaskWalk,
        rule: Callable[[Moment], tuple[Tensor, Tensor]],
        streams: Streams,
        levels: tuple[Tensor, Tensor],
    ) -> UnmaskWalk:
        """Evaluate, choose, reveal and mask again, between two levels (B,)."""
        prediction = self._asked(model, walk)
        walk = replace(walk, seen=walk.state.x, prediction=prediction, fresh=torch.zeros_like(walk.settled))
        kept, kept_next = (self.schedule.kept(level)[:, None] for level in levels)
        active, mask = walk.active, model.process.mask
        now = Moment(
            model, walk.state, prediction, active, active & (walk.state.x == mask), walk.confidence,
            levels[0][:, None], kept, kept_next, walk.step % walk.per_block, walk.per_block, self.draw, streams,
            *(walk.recalled(prediction) if self._remembers() else ()),
        )  # fmt: skip
        reveal, remask = rule(now)
        tokens, _, confidence = now.drawn(reveal)
        x = tokens.masked_fill(remask, mask)
        state = walk.state.to(x, torch.where(active, levels[1][:, None].to(walk.state.t), walk.state.t))
        walk = replace(walk, state=state, confidence=confidence, remasked=walk.remasked + remask.sum(1))
        if self._remembers():
            walk = replace(walk, before=prediction, remembered=torch.ones_like(walk.settled))
        return walk if self._reuses(model) else walk.unseen()

    def _asked(self, model: Model, walk: UnmaskWalk) -> Prediction:
        """The network's prediction for the walk's state; unchanged rows keep theirs, which is credited once."""
        if walk.seen is None or walk.fresh is None:
            return walk.predicted(model)
        changed = (walk.seen != walk.state.x).any(1)
        getattr(model, "credit", _nothing)(walk.state.problem[~changed & ~walk.fresh])
        return walk.predicted(model, changed)

    def _onward(self, model: Model, walk: UnmaskWalk) -> UnmaskWalk:
        """One step on, or to the next block if this one has no mask left and is not revised any more."""
        masked = walk.state.x == model.process.mask
        step, settled = walk.step + 1, walk.settled
        if not self._revises():
            settled = ~(walk.region & masked).any(1)
            finished = ~(walk.active & masked).any(1) & ~settled
            step = torch.where(finished, (walk.step // walk.per_block + 1) * walk.per_block, step)
        left = walk.active
        walk = replace(walk, step=step, settled=settled)
        left = (walk.region & walk.done[:, None]) | (left & ~walk.active)  # a block that ended early too
        return replace(walk, state=walk.state.to(walk.state.x, walk.state.t.masked_fill(left, 0.0)))

    def _revises(self) -> bool:
        return bool(self.corrector) or self.rule.revises or self.outside.revises

    def _remembers(self) -> bool:
        return self.rule.remembers or self.outside.remembers

    def _reuses(self, model: Model) -> bool:
        return self.reuse and "timeless" in model.offers

    def _inside(self, level: Tensor) -> Tensor:
        """Whether levels lie in the window, both as exact as a state's levels in float32 are."""
        return (level <= self.on + 1e-6) & (level > self.off + 1e-6)

    def _blocks(self, regions: Tensor) -> Tensor:
        """Number of blocks (B,) of `regions` (B,) masks."""
        return (-(-regions // self.block) if self.block else torch.ones_like(regions)).clamp_min(1)

    def _per_block(self, blocks: Tensor) -> Tensor:
        """Steps (B,) of each of so many blocks (B,)."""
        return (self.steps // blocks).clamp_min(1)

    def _block_of(self, region: Tensor, origin: Tensor | None) -> Tensor:
        """The block (B, R) of each position that is walked, from 0."""
        size = self.block or region.shape[1] + 1
        from_first = (region.cumsum(1) - 1) // size
        if not self.aligned:
            return from_first
        place = torch.arange(region.shape[1], device=region.device) - (0 if origin is None else origin[:, None])
        block = (place // size).expand(region.shape)
        block = block - torch.where(region, block, block.amax()).amin(1, keepdim=True)
        scattered = torch.where(region, block, 0).amax(1) > self._blocks(region.sum(1))
        return torch.where(scattered[:, None], from_first, block)


def _everything(now: Moment) -> tuple[Tensor, Tensor]:
    """The last step: all masks are revealed."""
    return now.masked, torch.zeros_like(now.masked)


def _nothing(problem: Tensor) -> None:
    """Counts no saved evaluation where nothing is counted."""
