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

from collections.abc import Callable
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
from redraft.samplers.rules import Moment, Rates, Rule

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
        confidence: log probability (B, R) that tokens had when they were revealed.
        remasked: how many tokens (B,) were masked again.
        settled: rows (B,) that have no mask left before their last step, and will have none.
        seen: the tokens (B, R) that `prediction` is of, -1 where it is of none; None if there is no prediction.
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

    def levels(self, step: Tensor) -> Tensor:
        """Levels (B, R) after so many steps (B,): the top in blocks that are not begun, 0 in finished ones."""
        into = (step[:, None] - self.block * self.per_block[:, None]) / self.per_block[:, None].double()
        return self.top[:, None] * (1 - into.clamp(0, 1))

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
    rule: Rule = ANCESTRAL
    outside: Rule = ANCESTRAL
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
        return ("tokens", *(need for rule in rules if rule.scorer for need in rule.scorer.needs))

    def nfe(self, regions: Tensor, level: float = 1.0) -> Tensor:
        """The most network rows (B,) that a walk over `regions` (B,) masks from `level` takes, critics' included."""
        return self._cost(regions, level, (1.0, 0.0))

    def between(self, model: Model, regions: Tensor, high: float = 1.0, low: float = 0.0) -> Tensor:
        """The most network rows (B,) of the part of a walk over `regions` (B,) masks from `high` to `low`."""
        cost = self._cost(regions, 1.0, (high, low))
        if not self._everywhere or low > 0:
            return cost
        blocks = self._blocks(regions)
        again = self._cost_of(blocks, _share(self._per_block(blocks), high), high, (1.0, 0.0))
        return torch.maximum(cost, (regions > 0) * again)

    def _cost(self, regions: Tensor, level: float, part: tuple[float, float]) -> Tensor:
        """Network rows (B,) of the part between two shares of `level` of a walk that begins at `level`."""
        blocks = self._blocks(regions)
        cost = self._cost_of(blocks, self._per_block(blocks), level, part)
        if self.aligned:  # the first block and the last may be partly given
            cost = torch.maximum(cost, self._cost_of(blocks + 1, self._per_block(blocks + 1), level, part))
        return (regions > 0) * cost

    def _cost_of(self, blocks: Tensor, per_block: Tensor, level: float, part: tuple[float, float]) -> Tensor:
        """The same of walks through so many blocks (B,) in so many steps each (B,)."""
        first, last = stretch(blocks * per_block, *part)
        step = torch.arange(int((blocks * per_block).max()), device=blocks.device)
        taken = (step >= first[:, None]) & (step < last[:, None])
        within = step % per_block[:, None]
        before_last = taken & (within < per_block[:, None] - 1)
        inside = self._inside(level * (1 - within / per_block[:, None].double()))
        judged = before_last * torch.where(inside, self.rule.passes, self.outside.passes)
        corrected = before_last.sum(1) * (self.corrector.steps if self.corrector else 0)
        return taken.sum(1) + judged.sum(1) + corrected

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
        """Level of noise (B,) that each row has come down to: of walks in blocks, the share that is to be walked."""
        return torch.where(walk.done, 0.0, walk.top * (1 - walk.step / walk.steps.clamp_min(1).double()))

    def arrived(self, model: Model, state: State) -> UnmaskWalk:
        """The walk at its end, of a clean state whose free positions may be walked again from level 1."""
        walk = self.init(model, state.to(state.x, state.free.to(state.t) / 2), Streams.root(0, state.problem))
        clean = state.to(state.x, torch.zeros_like(state.t))
        return replace(walk, state=clean, step=walk.steps, top=torch.ones_like(walk.top))

    def rewind(self, model: Model, walk: UnmaskWalk, level: float, streams: Streams, at: float = 0.0) -> UnmaskWalk:
        """The walk noised back up to `level`, or to the next level of its grid above.

        In blocks, noise comes the way that the walk went, from its last block back: what leads down again then draws
        from the same conditionals, so that noising and walking are reversible if they are exact. By that the end of a
        finished sample alone would ever change; so its positions are noised to `level` in every block, and the masks
        walked again from the left, in a share of the steps. An `aligned` sampler's network does not see later blocks,
        and could not draw an earlier token given them: there the finished sample, too, is noised from its end.
        """
        if self._everywhere and at == 0:
            return self._noised_everywhere(model, walk, level, streams)
        here = (walk.steps * (1 - at / walk.top) - 1e-6).ceil().long()
        # rows without a mask are states of `at` wherever they have arrived, a block ahead of it or at their end
        here = torch.where(walk.settled, torch.maximum(here, walk.step), torch.minimum(here, walk.step))
        step = (walk.steps * (1 - level / walk.top) + 1e-6).floor().long().clamp_min(0)
        before, after = (self.schedule.kept(walk.levels(number)) for number in (here, step))
        return self._noised(model, replace(walk, step=step), after / before.clamp_min(1e-12), streams)

    @property
    def _everywhere(self) -> bool:
        """Whether finished samples are noised in all blocks alike."""
        return self.block is not None and not self.aligned

    def _noised_everywhere(self, model: Model, walk: UnmaskWalk, level: float, streams: Streams) -> UnmaskWalk:
        """A walk from the left through all blocks, whose positions are noised to `level`, in so large a share of it."""
        blocks = torch.where(walk.region, walk.block + 1, 1).amax(1)
        per_block, top = _share(self._per_block(blocks), level), torch.full_like(walk.top, level)
        steps = blocks * per_block * walk.region.any(1)
        back = replace(walk, top=top, step=torch.zeros_like(steps), steps=steps, per_block=per_block)
        return self._noised(model, back, self.schedule.kept(top)[:, None], streams)

    def _noised(self, model: Model, walk: UnmaskWalk, kept: Tensor, streams: Streams) -> UnmaskWalk:
        """A walk that was sent back, with masks where tokens did not survive, as they do with probability `kept`."""
        lost = walk.region & (streams.at(walk.state.origin).uniform(walk.region.shape[1:]) >= kept)
        x, t = walk.state.x.masked_fill(lost, model.process.mask), walk.state.t
        back = replace(walk, state=walk.state.to(x, t), settled=torch.zeros_like(walk.settled))
        back = self._skipped(model, back)
        level = back.levels(back.step).masked_fill(back.done[:, None], 0.0).to(t)
        back = replace(back, state=back.state.to(x, torch.where(walk.region, level, t)))
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
        )  # fmt: skip
        reveal, remask = rule(now)
        tokens, confidence = now.drawn(reveal)
        x = tokens.masked_fill(remask, mask)
        state = walk.state.to(x, torch.where(active, levels[1][:, None].to(walk.state.t), walk.state.t))
        walk = replace(walk, state=state, confidence=confidence, remasked=walk.remasked + remask.sum(1))
        return walk if self._reuses(model) else walk.unseen()

    def _asked(self, model: Model, walk: UnmaskWalk) -> Prediction:
        """The network's prediction for the walk's state; unchanged rows keep theirs, which is credited once."""
        if walk.seen is None or walk.fresh is None:
            return walk.predicted(model)
        changed = (walk.seen != walk.state.x).any(1)
        getattr(model, "credit", _nothing)(walk.state.problem[~changed & ~walk.fresh])
        return walk.predicted(model, changed)

    def _onward(self, model: Model, walk: UnmaskWalk) -> UnmaskWalk:
        """One step on; what lies in blocks that are left is clean."""
        walk = self._skipped(model, replace(walk, step=walk.step + 1))
        finished = walk.block < (walk.step // walk.per_block)[:, None]
        left = walk.region & (finished | walk.done[:, None])
        return replace(walk, state=walk.state.to(walk.state.x, walk.state.t.masked_fill(left, 0.0)))

    def _skipped(self, model: Model, walk: UnmaskWalk) -> UnmaskWalk:
        """The walk at the first block with a mask, or settled if there is none, unless it revises what is revealed."""
        if self._revises():
            return walk
        masked = walk.region & (walk.state.x == model.process.mask)
        some = masked.any(1)
        first = walk.block.masked_fill(~masked, walk.region.shape[1]).amin(1) * walk.per_block
        return replace(walk, step=torch.where(some, torch.maximum(walk.step, first), walk.step), settled=~some)

    def _revises(self) -> bool:
        return bool(self.corrector) or self.rule.revises or self.outside.revises

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


def _share(steps: Tensor, level: float) -> Tensor:
    """The share `level` of so many steps (B,), 1 at least."""
    return (steps * level - 1e-6).ceil().long().clamp_min(1)


def _everything(now: Moment) -> tuple[Tensor, Tensor]:
    """The last step: all masks are revealed."""
    return now.masked, torch.zeros_like(now.masked)


def _nothing(problem: Tensor) -> None:
    """Counts no saved evaluation where nothing is counted."""
