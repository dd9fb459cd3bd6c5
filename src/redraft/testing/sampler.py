"""The contract test of samplers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from redraft.core.content import content
from redraft.core.counting import CountedModel
from redraft.core.ledger import Ledger
from redraft.core.model import Model
from redraft.core.state import State
from redraft.core.streams import Streams
from redraft.core.task import Problems
from redraft.samplers.base import Sampler, advance, descend
from redraft.testing.saying import KEEPS, asked, contract, enough, must, near, of_kind, same_where, shaped

CHAINS = 8
MOST = 10_000  # steps


@contract("sampler")
@torch.no_grad()
def check_sampler(sampler: Sampler, model: Model, problems: Problems, tolerance: float = 1e-4) -> None:
    """Check what methods rely on, on two problems or more, best with different numbers of given regions.

    - a walk is done in the end, after no more steps than rows that `nfe` states and a few, and is then clean: at level
      0, finite, without masks; a row without a noisy region is done at once;
    - regions at level 0 stay as they are, bit for bit, in every step;
    - a row alone ends as in a batch, up to `tolerance`, and the same streams lead to the same end;
    - `nfe`, and `between` of a walk and of its parts, are never less than what is spent;
    - `look` costs what the step after it then saves, and changes nothing;
    - `random_start` and `random_steps`, where they are said, are so;
    - `level` is 0 where a row has arrived and above it elsewhere, and of a sampler that is `by_level` it never rises;
      such a walk, arrived, is noised back up to a level at no cost and comes down again;
    - no global random generator is moved, and its mark, by which a checkpoint knows it, stays what it was.

    Raises:
        AssertionError: it breaks one of these; the sentence says which.
    """
    enough(problems)
    mark, trial = content(sampler), _Trial(sampler, model, problems, tolerance)
    by_level = getattr(sampler, "by_level", None)
    of_kind(by_level, bool, "`by_level`")
    noisy = trial.noisy()
    end = trial.check_walk(noisy)
    trial.check_rows(noisy, end)
    trial.check_look(noisy)
    trial.check_draws(noisy)
    trial.check_parts(noisy)
    if by_level:
        trial.check_rewind(end)
    must(content(sampler) == mark, f"the sampler is changed by a walk: {KEEPS}")


@dataclass(frozen=True)
class _Trial:
    """A sampler that is being tried on problems."""

    sampler: Sampler
    model: Model
    problems: Problems
    tolerance: float

    @property
    def streams(self) -> Streams:
        """Of the problems."""
        return Streams.root(0, self.problems.ids)

    def noisy(self) -> State:
        """The problems at level 1."""
        start = self.problems.state()
        made: State = self.model.process.prior(start, start.free, self.streams.fold("prior"))
        return made

    def counted(self) -> tuple[Any, Ledger]:
        """The model, and what it is charged to."""
        ledger = Ledger(len(self.problems))
        return CountedModel(self.model, ledger, self.problems.ids), ledger

    def stated(self, state: State, high: float = 1.0, low: float = 0.0) -> Tensor:
        """The most network rows (B,) of a part of a walk."""
        most = asked("between", self.sampler.between, self.model, state.free.sum(1), high, low)
        return shaped(most, (len(state),), "what `between` gives") * getattr(self.model, "nfe_per_row", 1)

    def begun(self, model: Any, state: State, streams: Streams) -> Any:
        """The walk at its start."""
        walk = asked("init", self.sampler.init, model, state, streams)
        of_kind(getattr(walk, "state", None), State, "the `state` of what `init` gives")
        self.check_step(walk, state, torch.ones(len(state)))
        return walk

    def check_step(self, walk: Any, start: State, before: Tensor) -> Tensor:
        """The levels (B,) of a walk that began at `start`, and was at the levels `before` (B,) one step ago."""
        done = shaped(walk.done, (len(start),), "`done`")
        same_where(walk.state.x, start.x, start.t == 0, "regions at level 0 change")
        level = shaped(asked("level", self.sampler.level, walk), (len(start),), "what `level` gives")
        must(
            torch.equal(level > 0, ~done),
            "the level is 0 where a row has arrived and above it elsewhere, and this is not",
        )
        if self.sampler.by_level:
            must((level <= before + 1e-6).all(), "the level of a walk rises from step to step")
        return level

    def arrived(self, model: Any, walk: Any, start: State, streams: Streams, least: int = 0) -> State:
        """The state at the end of a walk, which is looked at in every step."""
        most = min(2 * int(self.stated(start).max()) + least + 8, MOST)
        level = torch.ones(len(start))
        for _ in range(most):
            if bool(walk.done.all()):
                break
            walk = asked("step", advance, self.sampler, model, walk, streams)
            level = self.check_step(walk, start, level)
        must(walk.done.all(), f"a walk ends within the steps that `between` states, and this one goes on after {most}")
        end: State = walk.state
        self._check_clean(end)
        return end

    def _check_clean(self, end: State) -> None:
        must(not end.t.any(), "a walk has arrived above level 0")
        must(end.x.isfinite().all(), "a walk ends with NaN or infinity")
        masked = "tokens" in self.model.offers and (end.x == self.model.process.mask)[end.free].any()
        must(not masked, "a walk ends with masks")

    def walked(self, state: State, streams: Streams) -> State:
        """The state at the end of a walk from `state`."""
        return self.arrived(self.model, self.begun(self.model, state, streams), state, streams)

    def check_walk(self, noisy: State) -> State:
        """One walk, from its start to its end."""
        model, ledger = self.counted()
        end = self.arrived(model, self.begun(model, noisy, self.streams), noisy, self.streams)
        nfe = shaped(asked("nfe", self.sampler.nfe, noisy.free.sum(1)), (len(noisy),), "what `nfe` gives")
        must((ledger.nfe <= self.stated(noisy)).all(), "a walk costs more than `between` says")
        must((ledger.nfe <= nfe * getattr(self.model, "nfe_per_row", 1)).all(), "a walk costs more than `nfe` says")
        at_once = self.sampler.init(self.model, end, self.streams)
        must(at_once.done.all(), "a row without a noisy region is done at once, and this one is not")
        return end

    def check_rows(self, noisy: State, end: State) -> None:
        """Rows are alone in any batch."""
        again = self.walked(noisy, self.streams)
        must(torch.equal(again.x, end.x), "the same streams lead to another end")
        for i in range(len(noisy)):
            alone = self.walked(noisy[i : i + 1], self.streams[i : i + 1])
            near(alone.x, end.x[i : i + 1], self.tolerance, "where a row ends depends on its batch")

    def check_look(self, noisy: State) -> None:
        """A look is paid for once."""
        (model, looking), (plain, ledger) = self.counted(), self.counted()
        walk = self.begun(plain, noisy, self.streams)
        looked = asked("look", self.sampler.look, model, self.begun(model, noisy, self.streams))
        must(torch.equal(looked.state.x, walk.state.x), "a look changes the state")
        stepped, other = (
            asked("step", advance, self.sampler, m, w, self.streams) for m, w in ((model, looked), (plain, walk))
        )
        near(stepped.state.x, other.state.x, self.tolerance, "a step after a look leads elsewhere")
        must((looking.nfe <= ledger.nfe).all(), "a look and the step after it cost more than the step alone")

    def check_draws(self, noisy: State) -> None:
        """What the sampler says of its randomness is so."""
        streams = self.streams.split(CHAINS)
        steps = self._differ(noisy.repeat(CHAINS), streams)
        blank = self.problems.state().repeat(CHAINS)
        started = self.model.process.prior(blank, blank.free, streams.fold("prior"))
        start = self._differ(started, self.streams.repeat(CHAINS))
        for name, differ, what in (
            ("random_steps", steps, "from one state"),
            ("random_start", start, "from several priors"),
        ):
            says = getattr(self.sampler, name, None)
            if says is not None:
                said = bool(asked(name, says, self.model))
                ends = "differ" if differ else "are alike"
                must(said == differ, f"`{name}` says {said}, and the ends of {CHAINS} walks {what} {ends}")

    def _differ(self, states: State, streams: Streams) -> bool:
        """Whether the ends of a problem's walks differ."""
        x = self.walked(states, streams).x
        x = x.reshape(len(self.problems), CHAINS, -1)
        return not torch.equal(x, x[:, :1].expand_as(x))

    def check_parts(self, noisy: State) -> None:
        """What the parts of a walk cost."""
        model, ledger = self.counted()
        walk = asked(
            "a walk down to level 0.5",
            descend,
            self.sampler,
            model,
            self.begun(model, noisy, self.streams),
            0.5,
            self.streams,
        )
        must((ledger.nfe <= self.stated(noisy, 1.0, 0.5)).all(), "a walk from 1 to 0.5 costs more than `between` says")
        before = ledger.nfe
        if self.sampler.by_level:
            self.arrived(model, walk, noisy, self.streams)
            spent = ledger.nfe - before
            must((spent <= self.stated(noisy, 0.5, 0.0)).all(), "a walk from 0.5 to 0 costs more than `between` says")

    def check_rewind(self, end: State) -> None:
        """A walk that has arrived is taken up again."""
        model, ledger = self.counted()
        walk = asked("arrived", self.sampler.arrived, model, end)
        must(walk.done.all() and torch.equal(walk.state.x, end.x), "`arrived` gives a walk that is not at its end")
        back = asked("rewind", self.sampler.rewind, model, walk, 0.5, self.streams.fold("back"))
        must(not ledger.nfe.any(), "`rewind` asks the network")
        same_where(back.state.x, end.x, end.frozen, "`rewind` changes given regions")
        risen = (asked("level", self.sampler.level, back) >= 0.5 - 1e-6) | back.done
        must((risen | ~end.free.any(1)).all(), "`rewind` does not reach its level")
        self.arrived(model, back, back.state, self.streams.fold("again"))
        must((ledger.nfe <= self.stated(end, 0.5, 0.0)).all(), "a walk taken up at 0.5 costs more than `between` says")
