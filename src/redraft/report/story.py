"""What the demo saw: every draft of every board, and the figures that its page and pictures show."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from redraft.report.statistics import wilson

if TYPE_CHECKING:
    from torch import Tensor

    from redraft.core.task import Problems
    from redraft.core.trace import Trace


@dataclass(frozen=True)
class Step:
    """One draft of all boards.

    Attributes:
        number: refinements so far.
        nfe: mean network evaluations for a board so far.
        seconds: spent so far on all boards.
        valid: boards (P,) that break no rule.
        violations: broken constraints (P,) of each board.
        samples: the boards (P, 81, side, side).
    """

    number: int
    nfe: float
    seconds: float
    valid: Tensor
    violations: Tensor
    samples: Tensor

    @property
    def share(self) -> float:
        """Share of the boards that are valid."""
        return float(self.valid.double().mean())

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95 % interval."""
        return wilson(int(self.valid.sum()), len(self.valid))


@dataclass
class Story:
    """All drafts of a run, in order.

    Attributes:
        task: reads boards.
        problems: what was asked for.
        planned: drafts that there are to be.
        about: settings in words, for the foot of the page.
        steps: the drafts so far.
    """

    task: Any
    problems: Problems
    planned: int
    about: str = ""
    steps: list[Step] = field(default_factory=list)

    def add(self, samples: Tensor, trace: Trace) -> Step:
        """Take in the run's last draft."""
        number = int(trace["draft"][-1])
        last = trace["draft"] == number
        nfe, seconds = (float(trace[name][last].double().mean()) for name in ("nfe", "seconds"))
        valid, violations = trace["valid"][last].bool(), trace["violations"][last]
        self.steps.append(Step(number, nfe, seconds, valid, violations, samples.clone().cpu()))
        return self.steps[-1]

    @property
    def headline(self) -> str:
        """The outcome in one sentence."""
        before, after = (1 - self.steps[i].share for i in (0, -1))
        return f"invalid boards: {percent(before)} -> {percent(after)}"

    @property
    def gained(self) -> int:
        """Boards that became valid."""
        return int((~self.steps[0].valid & self.steps[-1].valid).sum())

    @property
    def lost(self) -> int:
        """Boards that were valid and are no longer."""
        return int((self.steps[0].valid & ~self.steps[-1].valid).sum())

    def shown(self, most: int) -> list[int]:
        """Boards for the gallery, not picked by outcome: those invalid at first, in order, then the others."""
        return self.steps[0].valid.int().argsort(stable=True)[:most].tolist()

    @property
    def hero(self) -> int:
        """The board to animate: the worst at first of those that became valid, else the one that gained most."""
        first, last = self.steps[0], self.steps[-1]
        became_valid = (~first.valid & last.valid) * 10_000
        return int((became_valid + first.violations - last.violations).argmax())

    def conflicts(self, step: int) -> Tensor:
        """Cells (P, 81) that break a rule in a draft."""
        cells: Tensor = self.task.conflicts(self.steps[step].samples)
        return cells

    def redrawn(self, step: int) -> Tensor:
        """Cells (P, 81) that differ from the draft before; none in the first."""
        new, old = (self.steps[max(i, 0)].samples for i in (step, step - 1))
        return (new != old).flatten(2).any(2)


def percent(share: float) -> str:
    """A share in whole percent."""
    return f"{100 * share:.0f} %"
