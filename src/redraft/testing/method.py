"""The contract test of methods."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from redraft.core.content import content
from redraft.core.counting import CountedModel, CountedVerifier
from redraft.core.ledger import Ledger
from redraft.core.method import Method
from redraft.core.model import Model
from redraft.core.result import Result
from redraft.core.run import Scores, run
from redraft.core.state import Draft
from redraft.core.streams import Streams
from redraft.core.task import Problems
from redraft.testing.saying import (
    KEEPS,
    asked,
    contract,
    enough,
    must,
    near,
    of_kind,
    same_where,
    shaped,
    unless_refused,
)

UNTOLD, MOST = 20, 1000  # drafts that are looked at, of a method that does not say how many there are, and of others
ANEW = "a method begun anew after its last draft yields nothing"


@contract("method")
def check_method(
    method: Method,
    model: Model,
    problems: Problems,
    verifier: Scores | None = None,
    tolerance: float = 1e-4,
) -> None:
    """Check what the run loop relies on, on two problems or more, with the verifier if the method takes one.

    - drafts are numbered from 0, and as many as `total` says; of a method that does not say, the first 20 are looked
      at;
    - `nfe`, and `verifier_calls` if there is a verifier, are never less than what a draft costs;
    - drafts are clean and finite, and given regions bit for bit as given;
    - a draft holds all that is needed to go on from it: begun anew after every draft, with all problems or with some,
      a method ends with the same samples, up to `tolerance`, and begun anew after its last draft it yields nothing;
    - samples from elsewhere are gone on from within the same costs, or refused by a RedraftError;
    - a problem alone ends as in a batch, up to `tolerance`, and the same seed gives the same samples;
    - no global random generator is moved, and its mark, by which a checkpoint knows it, stays what it was.

    Raises:
        AssertionError: it breaks one of these; the sentence says which.
    """
    enough(problems)
    for name in ("drafts", "nfe", "total"):
        must(callable(getattr(method, name, None)), f"the method has no `{name}`")
    mark, trial = content(method), _Trial(method, model, problems, verifier, tolerance)
    with torch.no_grad():
        trial.check()
    must(content(method) == mark, f"the method is changed by a run: {KEEPS}")


@dataclass
class _Trial:
    """A method that is being tried on problems."""

    method: Method
    model: Model
    problems: Problems
    verifier: Scores | None
    tolerance: float
    most: int = field(init=False)
    told: int | None = field(init=False)

    def check(self) -> None:
        """Everything, in the order of how much else would follow from it."""
        self.told = asked("total", self.method.total)
        of_kind(self.told, (int, type(None)), "what `total` gives")
        must(self.told is None or self.told >= 1, f"`total` says {self.told} drafts: a method gives one or more")
        self.most = UNTOLD if self.told is None else min(self.told, MOST)
        whole = self.run(self.problems)
        number = self._check_numbers(whole)
        alone = self.run(self.problems[:1]).samples
        near(alone, whole.samples[:1], self.tolerance, "a problem's result depends on its batch")
        again = self.run(self.problems).samples
        must(torch.equal(again, whole.samples), "the same seed gives other samples")
        self._check_anew(whole, number)
        self._check_start(whole.samples)

    def run(self, problems: Problems) -> Result:
        """A run that is stopped one draft after the last there can be."""
        given, drafts = problems.state(), [0]

        def looked(samples: Tensor, trace: Any) -> bool:
            x = unless_refused("encode", self.model.encode, samples)
            if x is not None:
                same_where(x.to(given.x), given.x, given.frozen, "given regions change")
            drafts[0] += 1
            return drafts[0] > self.most

        settings = {"verifier": self.verifier, "progress": False, "on_draft": looked}
        made: Result = asked("a run of the method", run, self.method, self.model, problems, **settings)
        return made

    def _check_numbers(self, whole: Result) -> int:
        """How many drafts a run has, without the one that shows that there are more."""
        rows = len(self.problems)
        numbers = whole.trace["draft"].reshape(-1, rows)[:, 0].tolist()
        right = numbers == list(range(len(numbers)))
        must(right, f"drafts are numbered 0, 1, 2, ..., and these are numbered {', '.join(map(str, numbers[:8]))}")
        if self.told is not None and self.told <= MOST:
            more = "more" if len(numbers) > self.told else len(numbers)
            must(len(numbers) == self.told, f"`total` says {self.told} drafts, and there are {more}")
        return min(len(numbers), self.most)

    def _check_anew(self, whole: Result, number: int) -> None:
        """Begun anew after every draft, with all rows and with some."""
        blank, stated = Draft(self.problems.state()), []
        walk, some = (_Anew(self, self.problems, blank) for _ in range(2))
        for _ in range(number):
            stated.append(walk.go_on())
        self._check_costs(whole, torch.stack([nfe for nfe, _ in stated]), torch.stack([calls for _, calls in stated]))
        if whole.trace["draft"].max() < self.most:
            must(walk.following() is None, f"{ANEW}, and this one goes on")
            same = self.model.decode(walk.draft.state.x)
            near(same, whole.samples, self.tolerance, "begun anew after every draft, it ends with other samples")
        some.go_on()
        some.draft = some.draft[1:]
        for _ in range(number - 1):
            some.go_on()
        kept, same = (self.model.decode(each.draft.state.x) for each in (walk, some))
        near(same, kept[1:], self.tolerance, "begun anew with some problems, it ends with other samples")

    def _check_costs(self, whole: Result, nfe: Tensor, calls: Tensor) -> None:
        """What the drafts (D,) of an uninterrupted run cost, of each problem, is stated (D, P)."""
        for name, stated in (("nfe", nfe), ("verifier_calls", calls)):
            spent = whole.trace[name].reshape(-1, len(self.problems))[: len(stated)]
            each = spent.diff(dim=0, prepend=torch.zeros_like(spent[:1]))
            must((each <= stated).all(), f"a draft costs more than `{name}` says")

    def _check_start(self, samples: Tensor) -> None:
        """From samples from elsewhere, without what a method remembers."""
        start, x = self.problems.state(), unless_refused("encode", self.model.encode, samples)
        if x is None:
            return
        given = Draft(start.to(x.to(start.x), torch.zeros_like(start.t)), 0)
        if unless_refused("drafts", _Anew(self, self.problems, given).following) is not None:
            _Anew(self, self.problems, given).go_on()


@dataclass
class _Anew:
    """A method that is begun anew after every draft, and what it has spent."""

    trial: _Trial
    problems: Problems
    draft: Draft
    ledger: Ledger = field(init=False)

    def __post_init__(self) -> None:
        """Nothing is spent yet."""
        self.ledger = Ledger(len(self.problems))

    def following(self) -> Draft | None:
        """The next draft of the method, begun anew after this one."""
        trial, state = self.trial, self.draft.state
        model: Any = CountedModel(trial.model, self.ledger, self.problems.ids)
        verifier = CountedVerifier(trial.verifier, self.problems, self.ledger) if trial.verifier else None
        streams = Streams.root(0, self.problems.ids)[state.problem]
        return next(iter(trial.method.drafts(model, self.draft, streams, verifier)), None)

    def go_on(self) -> tuple[Tensor, Tensor]:
        """Take the next draft; what it may cost in network and in verifier rows, (P,) each."""
        before, stated = self.ledger.copy(), self._stated()
        draft = asked("drafts", self.following)
        must(draft is not None, "a method begun anew after a draft goes on as it would have, and this one ends")
        _check_draft(draft, self.draft, self.trial.model)
        spent = self.ledger.nfe - before.nfe, self.ledger.verifier_calls - before.verifier_calls
        for name, cost, most in zip(("nfe", "verifier_calls"), spent, stated, strict=True):
            must((cost <= most).all(), f"a draft costs more than `{name}` says")
        self.draft = draft
        return stated

    def _stated(self) -> tuple[Tensor, Tensor]:
        """What the method says of the next draft, of all problems."""
        trial, rows = self.trial, self.draft.state.problem
        ones, asks = torch.ones(len(rows), dtype=torch.int64), getattr(trial.method, "verifier_calls", None)
        nfe = asked("nfe", trial.method.nfe, trial.model, self.draft)
        calls = ones if asks is None else asked("verifier_calls", asks, trial.model, self.draft)
        each = getattr(trial.model, "nfe_per_row", 1), getattr(trial.verifier, "calls_per_row", 1)
        made = []
        for name, value, times in zip(("nfe", "verifier_calls"), (nfe, calls), each, strict=True):
            whole = torch.zeros(len(self.problems), dtype=torch.int64)
            whole[rows] = shaped(value, (len(rows),), f"what `{name}` gives").to(whole) * times
            made.append(whole)
        return made[0], made[1]


def _check_draft(draft: Any, before: Draft, model: Model) -> None:
    """A draft is a clean row of each problem."""
    of_kind(draft, Draft, "what `drafts` yields")
    state = draft.state
    must(state.x.shape == before.state.x.shape, f"a draft is of shape {tuple(state.x.shape)}")
    must(torch.equal(state.problem, before.state.problem), "the rows of a draft are not those of the one before")
    must(state.x.isfinite().all(), "a draft holds NaN or infinity")
    must(not state.t.any(), "a draft is clean, and this one has regions above level 0")
    must("tokens" not in model.offers or not (state.x == model.process.mask)[state.free].any(), "a draft holds masks")
    must(draft.number == before.number + 1, f"draft number {draft.number} comes after number {before.number}")
    for name, value in (draft.scores | draft.carry).items():
        must(len(value) == len(state), f"{name!r} has {len(value)} entries in a draft of {len(state)} rows")
