"""Samplers of masked diffusion models: reveal some masks, mask some revealed tokens again, until none is left.

A step is

    x^ <- a draw from p(x0 | x_t) at the masks            proposal: `Draw`
    how many tokens to reveal and to mask again           `Rule.budget`
    which of them                                         `Rule.scorer`, `Rule.noise`, `Rule.joint`
    x_s <- x^ where revealed, m where masked, else x_t

on a grid of levels t, with one rule inside a window of levels and another outside it, or until no mask is left where
the budget sets its own pace. presets.py names the published samplers; they are all of this form.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from redraft.core.errors import RedraftError
from redraft.core.fields import Count, Share, checked
from redraft.core.model import Model
from redraft.core.ranking import choose
from redraft.core.state import Prediction, State
from redraft.core.streams import Streams
from redraft.processes.categorical import Draw
from redraft.processes.mask import Linear, Schedule, check_schedule
from redraft.samplers.base import stretch, wanted
from redraft.samplers.budgets import Remask
from redraft.samplers.revising import Corrector, Edit
from redraft.samplers.rules import Choice, Counts, Moment, Rule
from redraft.samplers.unmask_walk import UnmaskWalk

ANCESTRAL = Rule(Remask())


@dataclass(frozen=True)
class Unmask:
    """The general sampler of masked diffusion models.

    Attributes:
        steps: in all, shared out evenly among blocks; the last step of a block reveals what is left of it. None goes on
            until no mask is left, with a budget that reveals at least one in every step (`Threshold`, `Factor`,
            `EntropyBound`): such a walk takes no more evaluations than it has masks, and its level is the share of
            masks in the block. With such a budget `steps` is a cap, and the trace says how many tokens it forced.
        rule: how a step chooses, at levels `off` < t <= `on`.
        outside: how it chooses at other levels.
        on: see `rule`.
        off: see `rule`.
        schedule: how many tokens survive to a level.
        draw: how tokens are drawn.
        block: number of positions that are finished before the next are begun, from the left; None is all at once.
        aligned: blocks are counted from the first token that is no padding, the prompt's included (LLaDA2), and not
            from the first mask; masks so scattered that this would make more blocks are counted from the first. Where
            the network attends in such blocks, a last one that ends behind the row is filled up with masks, which are
            revealed with its others and cut off (LLaDA2).
        edit: how revealed tokens are changed directly.
        stop: a row ends when an end token of the model (`convention.ends`) stands in its region and no mask before it,
            unless tokens behind it are given; masks behind it become that token at no cost. So the text up to its end
            is what it would be otherwise. A block that is edited is finished first, and rules that mask tokens again
            never stop early, as they may take the end token back.
        corrector: steps that leave the law as it is, after each step.
        reuse: rows whose tokens did not change are not evaluated again, if the model has no time input; the last
            logits are kept for it.
    """

    steps: Count | None = 128
    rule: Rule | Choice = ANCESTRAL
    outside: Rule | Choice = ANCESTRAL
    on: Share = 1.0
    off: Share = 0.0
    schedule: Schedule = field(default_factory=Linear)
    draw: Draw = field(default_factory=Draw)
    block: Count | None = None
    aligned: bool = False
    edit: Edit | None = None
    stop: bool = True
    corrector: Corrector | None = None
    reuse: bool = True
    by_level = True

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)
        if not self.off < self.on:
            raise RedraftError(f"off is {self.off} and on {self.on}: the first must be less than the second")
        if self.steps is None and not self._paced:
            raise RedraftError(
                "steps=None needs a budget that reveals a mask in every step, and no corrector: give steps"
            )
        if self.edit and self.steps is not None:
            raise RedraftError(f"a walk that is edited ends by itself, not after {self.steps} steps: set steps=None")
        check_schedule(self.schedule)

    @property
    def needs(self) -> tuple[str, ...]:
        """What the model has to offer."""
        rules = (self.rule, self.outside)
        raw = ("raw logits",) if self.edit else ()
        return ("tokens", *raw, *(need for rule in rules for need in rule.needs))

    def random_start(self, model: Model) -> bool:
        """Masks are always the same."""
        return False

    def random_steps(self, model: Model) -> bool:
        """Whether tokens are drawn, or positions are."""
        drawn = self.draw.temperature > 0 or self.corrector is not None
        return drawn or any(getattr(rule, "random", True) for rule in self._rules)

    def nfe(self, regions: Tensor, level: float = 1.0) -> Tensor:
        """The most network rows (B,) that a walk over `regions` (B,) masks from `level` takes, critics' included."""
        return self._cost(regions, level, (1.0, 0.0))

    def between(self, model: Model, regions: Tensor, high: float = 1.0, low: float = 0.0) -> Tensor:
        """The most network rows (B,) of the part of a walk over `regions` (B,) masks from `high` to `low`."""
        cost = self._cost(regions, 1.0, (high, low))
        if self.steps is None or not self._everywhere or low > 0:
            return cost
        blocks = self._blocks(regions)
        again = self._cost_of(blocks, self._again(self._per_block(blocks), high), high, (1.0, 0.0))
        return torch.maximum(cost, (regions > 0) * again)

    def _cost(self, regions: Tensor, level: float, part: tuple[float, float]) -> Tensor:
        """Network rows (B,) of the part between two shares of `level` of a walk that begins at `level`."""
        if self.steps is None:
            return self._most(regions, *part)
        blocks = self._blocks(regions)
        cost = self._cost_of(blocks, self._per_block(blocks), level, part)
        if self.aligned:  # the first block and the last may be partly given
            cost = torch.maximum(cost, self._cost_of(blocks + 1, self._per_block(blocks + 1), level, part))
        return (regions > 0) * cost

    def _most(self, regions: Tensor, high: float, low: float) -> Tensor:
        """The most network rows (B,) of the part between two shares of masks of a walk until no mask is left."""
        share = (regions * high - 1e-6).ceil() - (regions * low + 1e-6).floor()
        blocks, steps = self._blocks(regions), self._slowest(share.long())
        if self.block:
            unaligned = self.aligned * (self.block - 1)  # given in the first block, or masks of the last one's tail
            blocks = blocks + (unaligned > 0)
            steps = torch.minimum(regions + unaligned, blocks * self._slowest(torch.full_like(regions, self.block)))
        edits = blocks * (self.edit.steps if self.edit else 0)
        return (regions > 0) * (steps * (1 + max(rule.passes for rule in self._rules)) + edits)

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
        region, tail = self._filled_up(model, state)
        block = self._block_of(region, state.origin if self.aligned else None)
        blocks = torch.where(region, block + 1, 1).amax(1)
        per_block, zero = self._per_block(blocks, region), torch.zeros_like(blocks)
        walk = UnmaskWalk(
            state=state,
            region=region,
            block=block,
            top=state.t.amax(1).double(),
            step=zero,
            steps=blocks * per_block * region.any(1),
            per_block=per_block,
            confidence=torch.zeros_like(region, dtype=torch.float64),
            remasked=zero,
            settled=zero.bool(),
            editing=zero,
            left=zero if self.steps is None else None,
            forced=zero if self.steps and self._paced else None,
            tail=tail,
        )
        walk = self._at(model, walk, walk.step)
        return replace(walk, editing=torch.full_like(zero, self.edit.steps)) if self.edit else walk

    def look(self, model: Model, walk: UnmaskWalk) -> UnmaskWalk:
        """The walk with the network's prediction for its state, which its next step then uses."""
        prediction = self._asked(model, walk)
        return replace(walk, seen=walk.whole.x, prediction=prediction, fresh=torch.ones_like(walk.settled))

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
        going = walk.level() if walk.left is not None else walk.top * (1 - walk.step / walk.steps.clamp_min(1).double())
        return torch.where(walk.done, 0.0, going)

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

        Raises:
            RedraftError: a walk in blocks that sets its own pace has not arrived.
        """
        if self.steps is None:
            return self._masked_up_to(model, walk, level, streams, at)
        if self._everywhere and at == 0:
            return self._noised_everywhere(model, walk, level, streams)
        here = (walk.steps * (1 - at / walk.top) - 1e-6).ceil().long()
        # rows without a mask are states of `at` wherever they have arrived, a block ahead of it or at their end
        here = torch.where(walk.settled, torch.maximum(here, walk.step), torch.minimum(here, walk.step))
        step = (walk.steps * (1 - level / walk.top) + 1e-6).floor().long().clamp_min(0)
        before, after = (self.schedule.kept(walk.levels(number)) for number in (here, step))
        # behind an end the tokens are settled, whatever the level: they were never masks that were left
        since = torch.where(self._behind(model, walk), 1.0, before.clamp_min(1e-12))
        return self._noised(model, replace(walk, step=step), after / since, streams)

    @property
    def _everywhere(self) -> bool:
        """Whether finished samples are noised in all blocks alike."""
        return self.block is not None and not self.aligned

    def _noised_everywhere(self, model: Model, walk: UnmaskWalk, level: float, streams: Streams) -> UnmaskWalk:
        """A walk from the left through all blocks, whose positions are noised to `level`, in so large a share of it."""
        blocks = torch.where(walk.region, walk.block + 1, 1).amax(1)
        per_block, top = self._again(self._per_block(blocks), level), torch.full_like(walk.top, level)
        steps = blocks * per_block * walk.region.any(1)
        back = replace(walk, top=top, step=torch.zeros_like(steps), steps=steps, per_block=per_block)
        return self._noised(model, back, self.schedule.kept(top)[:, None], streams)

    def _again(self, steps: Tensor, level: float) -> Tensor:
        """Steps (B,) of a block that is walked again from `level`, of so many; all where they are but a cap."""
        return steps if self._paced else (steps * level - 1e-6).ceil().long().clamp_min(1)

    def _noised(self, model: Model, walk: UnmaskWalk, kept: Tensor, streams: Streams) -> UnmaskWalk:
        """A walk that was sent back, with masks where tokens did not survive, as they do with probability `kept`."""
        lost = walk.region & (streams.at(walk.state.origin).uniform(walk.region.shape[1:]) >= kept)
        walk = self._sent_back(model, walk, lost)
        level = walk.levels(walk.step).masked_fill(walk.done[:, None], 0.0).to(walk.state.t)
        return walk.holding(walk.whole.x, torch.where(walk.region, level, walk.whole.t))

    def _masked_up_to(self, model: Model, walk: UnmaskWalk, level: float, streams: Streams, at: float) -> UnmaskWalk:
        """The walk with as many masks as the share `level` of its region needs.

        Those that are new are drawn at random, of an aligned walk from its last blocks, with all that fills these up.
        """
        if self.block and at > 0:
            raise RedraftError(
                "a walk in blocks that sets its own pace can be taken up at its end only: refine at level 0, or use "
                "block=None"
            )
        own = walk.region[:, : walk.state.x.shape[1]]
        masked = own & (walk.state.x == model.process.mask)
        chance = streams.at(walk.state.origin).uniform(own.shape[1:])
        if self.aligned:
            chance = chance + walk.block[:, : own.shape[1]]
        lost = choose(chance, own & ~masked, (own.sum(1) * level - 1e-6).ceil().long() - masked.sum(1))
        editing = self.edit.steps if self.edit else 0
        step = (walk.steps - editing - self._slowest((masked | lost).sum(1))).clamp_min(0)
        step = torch.zeros_like(step) if self.block else step
        lost = torch.cat([lost, walk.region[:, own.shape[1] :]], 1)
        walk = self._sent_back(model, replace(walk, step=step, editing=walk.editing * 0 + editing), lost)
        t = torch.where(walk.done, 0.0, walk.level())[:, None].to(walk.state.t)
        return walk.holding(walk.whole.x, torch.where(walk.region, t, walk.whole.t))

    def _sent_back(self, model: Model, walk: UnmaskWalk, lost: Tensor) -> UnmaskWalk:
        """The walk with masks at `lost` (B, R), in the first block that has any."""
        walk = walk.holding(walk.whole.x.masked_fill(lost, model.process.mask), walk.whole.t)
        walk = replace(walk, settled=torch.zeros_like(walk.settled), before=None, remembered=None)
        walk = walk if self._revises() else self._onto(model, walk, walk.step)
        return walk if self._reuses(model) else walk.unseen()

    def _advance(self, model: Model, walk: UnmaskWalk, streams: Streams, kind: int) -> UnmaskWalk:
        """One step of rows that are all at their last step (2), inside the window (1) or outside it (0)."""
        rule = (self.outside, self.rule, _everything)[kind]
        streams = streams.at(walk.state.origin).fold("unmask").fold(walk.step)
        walk = self._flip(model, walk, rule, streams, (walk.level(), walk.level(1)))
        if self.corrector and kind < 2:
            for number in range(self.corrector.steps):
                again = streams.fold("corrector").fold(number)
                walk = self._flip(model, walk, Rule(self.corrector), again, (walk.level(1), walk.level(1)))
        return self._at(model, walk, walk.step + 1)

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
        whole, active, mask = walk.whole, walk.active, model.process.mask
        walk = replace(walk, seen=whole.x, prediction=prediction, fresh=torch.zeros_like(walk.settled))
        kept, kept_next = (self.schedule.kept(level)[:, None] for level in levels)
        now = Moment(
            model, whole, prediction, active, active & (whole.x == mask), walk.confidence,
            levels[0][:, None], kept, kept_next, walk.step % walk.per_block, walk.per_block, self.draw, streams,
            *(walk.recalled(prediction) if self._remembers() else ()),
        )  # fmt: skip
        reveal, remask = rule(now)
        change = self.edit(now) if self.edit else torch.zeros_like(reveal)
        tokens, _, confidence = now.drawn(reveal | change)
        x = tokens.masked_fill(remask, mask)
        after = (active & (x == mask)).sum(1) / now.size.clamp_min(1) if self.steps is None else levels[1]
        walk = walk.holding(x, torch.where(active, after[:, None].to(whole.t), whole.t))
        walk = replace(walk, confidence=confidence, remasked=walk.remasked + (remask | change).sum(1))
        walk = self._noted(walk, now, change, rule)
        if self._remembers():
            walk = replace(walk, before=prediction, remembered=torch.ones_like(walk.settled))
        return walk if self._reuses(model) else walk.unseen()

    def _noted(
        self, walk: UnmaskWalk, now: Moment, change: Tensor, rule: Callable[[Moment], tuple[Tensor, Tensor]]
    ) -> UnmaskWalk:
        """The walk that knows how long it may still be edited, and what a cap on the steps forced."""
        masks = now.masked.sum(1)
        if self.edit:
            again = torch.where(change.any(1), walk.editing - 1, 0)
            walk = replace(walk, editing=torch.where(masks > 0, walk.editing, again))
        if walk.forced is not None and rule is _everything:
            due = self.rule.budget(now)  # type: ignore[attr-defined]
            assert isinstance(due, Counts)
            walk = replace(walk, forced=walk.forced + (masks - due.reveal).clamp_min(0))
        return walk

    def _asked(self, model: Model, walk: UnmaskWalk) -> Prediction:
        """The network's prediction for the walk's state; unchanged rows keep theirs, which is credited once."""
        if walk.seen is None or walk.fresh is None:
            return walk.predicted(model)
        changed = (walk.seen != walk.whole.x).any(1)
        getattr(model, "credit", _nothing)(walk.state.problem[~changed & ~walk.fresh])
        return walk.predicted(model, changed)

    def _at(self, model: Model, walk: UnmaskWalk, step: Tensor) -> UnmaskWalk:
        """The walk at `step` (B,), or in the next block if its own has no mask left and is not revised any more."""
        walk = replace(walk, step=step) if self._revises() else self._onto(model, walk, step)
        over = walk.region & (walk.done[:, None] | (walk.block < (walk.step // walk.per_block)[:, None]))
        return walk.holding(walk.whole.x, walk.whole.t.masked_fill(over, 0.0))

    def _onto(self, model: Model, walk: UnmaskWalk, step: Tensor) -> UnmaskWalk:
        """The walk at `step` (B,), or in the block of its first mask if its own is finished; settled if none is left.

        In a tail no mask is left to be revealed, unless its block is edited.
        """
        masked = walk.region & (walk.whole.x == model.process.mask)
        finished = ~(walk.active & masked).any(1) & (walk.editing == 0)
        wanted = masked if self.edit else masked[:, : walk.state.x.shape[1]]
        first = torch.where(masked, walk.block, walk.block.amax()).amin(1)
        onward = finished & masked.any(1)
        editing = walk.editing if self.edit is None else walk.editing.masked_fill(onward, self.edit.steps)
        step = torch.where(onward, torch.maximum(step, first * walk.per_block), step)
        settled = ~wanted.any(1) & (walk.editing == 0)
        walk = self._ended(model, replace(walk, step=step, settled=settled, editing=editing), finished)
        masked = walk.region & (walk.whole.x == model.process.mask)
        return walk if walk.left is None else replace(walk, left=masked.sum(1))

    def _ended(self, model: Model, walk: UnmaskWalk, finished: Tensor) -> UnmaskWalk:
        """The walk with rows settled whose text has come to its end, if they are edited at the end of a block only."""
        behind = self._behind(model, walk)
        ended = behind.any(1) & (finished if self.edit else True)
        x, mask = walk.whole.x, model.process.mask
        end = x.gather(1, (behind.int().argmax(1, keepdim=True) - 1).clamp_min(0))
        x = torch.where(behind & (x == mask) & ended[:, None], end, x)
        return replace(walk.holding(x, walk.whole.t), settled=walk.settled | ended)

    def _behind(self, model: Model, walk: UnmaskWalk) -> Tensor:
        """Positions (B, R) behind the end of rows whose text has come to it."""
        ends = getattr(getattr(model, "convention", None), "ends", ())
        nowhere = torch.zeros_like(walk.region)
        if not self.stop or not ends or self._revises():
            return nowhere
        whole = walk.whole
        over = (walk.region & torch.isin(whole.x, whole.x.new_tensor(ends))).cumsum(1) > 0
        behind = torch.cat([nowhere[:, :1], over[:, :-1]], 1)
        given = (behind & ~walk.region)[:, : walk.state.x.shape[1]].any(1)
        masks: Tensor = (walk.region & (whole.x == model.process.mask) & ~over).any(1)
        return behind & ~(given | masks)[:, None]

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

    def _per_block(self, blocks: Tensor, region: Tensor | None = None) -> Tensor:
        """Steps (B,) of each of so many blocks (B,) of the `region` (B, R), or the most."""
        if self.steps is not None:
            return (self.steps // blocks).clamp_min(1)
        assert region is not None
        largest = region.sum(1).clamp_max(self.block or region.shape[1])
        return (self._slowest(largest) + (self.edit.steps if self.edit else 0)).clamp_min(1)

    @property
    def _rules(self) -> tuple[Rule | Choice, ...]:
        """The rules that are in use at some level."""
        return (self.rule,) if (self.on, self.off) == (1.0, 0.0) else (self.rule, self.outside)

    @property
    def _paced(self) -> bool:
        """Whether all budgets reveal at least one mask in every step, for good, whatever the number of steps."""
        return not self._revises() and all(hasattr(getattr(rule, "budget", None), "slowest") for rule in self._rules)

    def _slowest(self, masks: Tensor) -> Tensor:
        """The most steps (B,) in which so many masks (B,) are revealed by budgets that set their own pace."""
        slowest = [rule.budget.slowest(masks) for rule in self._rules]  # type: ignore[union-attr]
        return torch.stack(slowest).amax(0)

    def _filled_up(self, model: Model, state: State) -> tuple[Tensor, Tensor | None]:
        """The positions (B, R) that are walked, and the tail (B, T) that fills the last block up, if it is needed."""
        region = state.t > 0
        if not (self.aligned and self.block and getattr(model, "block", None) == self.block):
            return region, None
        size = torch.full_like(region[:, 0], region.shape[1], dtype=torch.int64)
        short = -(size if state.origin is None else size - state.origin) % self.block * region[:, -1]
        most = int(short.max())
        if not most:
            return region, None
        within = torch.arange(most, device=short.device) < short[:, None]
        return torch.cat([region, within], 1), torch.full_like(within, model.process.mask, dtype=torch.int64)

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
