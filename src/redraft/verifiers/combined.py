"""Several verifiers as one, and verifiers that are only looked at beside the one that guides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from redraft.core.batched import Batched
from redraft.core.errors import RedraftError
from redraft.core.fields import checks, taken
from redraft.core.task import Problems
from redraft.core.trace import OWN
from redraft.core.verifier import Verifier, VerifierError

Evaluate = Callable[[Tensor, Problems], dict[str, Tensor]]


class _Members:
    """Verifiers by name; each is called on its own terms, and its name is in its errors."""

    def __init__(self, verifiers: Mapping[str, Verifier]) -> None:
        if not verifiers:
            raise RedraftError("there are no verifiers to combine")
        for name, verifier in verifiers.items():
            taken(f"verifier {name!r}", verifier, Verifier)
        self.all = {name: v if isinstance(v, Batched) else Batched(v) for name, v in verifiers.items()}
        self.calls = sum(v.calls_per_row for v in self.all.values())

    def scores(self, samples: Tensor, problems: Problems) -> dict[str, Tensor]:
        """Scores (B,) by name."""
        return {name: _named(name, verifier, samples, problems) for name, verifier in self.all.items()}


def _named(name: str, ask: Verifier, samples: Tensor, problems: Problems) -> Tensor:
    """What `ask` says; the name is in the error if it fails."""
    try:
        return ask(samples, problems)
    except VerifierError as error:
        raise error.of(name) from error


def _pair(name: str, part: Any) -> tuple[Verifier, float]:
    verifier, weight = taken(f"part {name!r}", part, tuple[Any, Any])
    return verifier, taken(f"the weight of verifier {name!r}", weight, float)


class WeightedSum:
    """The sum of verifiers' scores, each times its weight; a call costs one for every verifier in it.

    Blame is the weighted sum of the blame of those verifiers that give any and weigh more than 0.
    """

    @checks
    def __init__(self, parts: Mapping[str, tuple[Verifier, float]]) -> None:
        """Combine `parts`, verifiers and weights by name.

        Raises:
            RedraftError: there are none, or a weight is no finite number.
        """
        held = {name: _pair(name, part) for name, part in parts.items()}
        self._members = _Members({name: verifier for name, (verifier, _) in held.items()})
        self.weights = {name: weight for name, (_, weight) in held.items()}
        members = self._members.all
        self._blaming = {name: v for name, v in members.items() if v.blames and self.weights[name] > 0}
        self.blind = all(v.blind for v in members.values())
        self.relative = any(v.relative for v in members.values())
        self.calls_per_row, self.blames = self._members.calls, bool(self._blaming)

    def __call__(self, samples: Tensor, problems: Problems) -> Tensor:
        """Scores (B,)."""
        return torch.stack([self.weights[name] * s for name, s in self.parts(samples, problems).items()]).sum(0)

    def parts(self, samples: Tensor, problems: Problems) -> dict[str, Tensor]:
        """Each verifier's own scores (B,), by name, without weights."""
        return self._members.scores(samples, problems)

    def blame(self, samples: Tensor, problems: Problems) -> Tensor:
        """How much each region (B, R) is at fault.

        Raises:
            RedraftError: no part with a weight above 0 gives blame.
        """
        if not self._blaming:
            raise RedraftError("no verifier of the sum that weighs more than 0 gives blame")
        found = {name: _named(name, v.blame, samples, problems) for name, v in self._blaming.items()}
        return torch.stack([self.weights[name] * blame for name, blame in found.items()]).sum(0)


class MeanRank:
    """The mean over verifiers of a sample's rank among the samples of its problem, whatever scale each verifier has.

    Among n samples of a problem (of equal id) in a call, the one that a verifier likes r-th least gets (r - 1/2) / n,
    samples of equal score the mean of theirs, and a sample on its own 1/2. The score is for choosing among the samples
    of one call and means nothing beside that of another; under `run` it ranks the different samples. It gives no blame.
    """

    relative = True

    @checks
    def __init__(self, verifiers: Mapping[str, Verifier]) -> None:
        """Combine `verifiers`, by name.

        Raises:
            RedraftError: there are none.
        """
        self._members = _Members(verifiers)
        self.calls_per_row = self._members.calls

    def __call__(self, samples: Tensor, problems: Problems) -> Tensor:
        """Scores (B,) in (0, 1)."""
        scores = self._members.scores(samples, problems).values()
        return torch.stack([ranks(each, problems.ids) for each in scores]).mean(0)


def ranks(scores: Tensor, group: Tensor) -> Tensor:
    """Ranks (B,) in (0, 1) of `scores` (B,) within each `group` (B,): (r - 1/2) / n, the mean of r for equal scores."""
    group = group.to(scores.device)
    companions = group[:, None] == group
    below = (companions & (scores < scores[:, None])).sum(1)
    equal = (companions & (scores == scores[:, None])).sum(1)
    return (below + equal / 2).double() / companions.sum(1)


@checks
def held_out(verifiers: Mapping[str, Verifier], *others: Evaluate) -> Evaluate:
    """Metrics for `run(..., evaluate=...)`: what verifiers that do not guide say of every draft; not counted.

        run(method, model, problems, verifier=toxicity, evaluate=held_out({"fluency": fluency}, task.evaluate))

    Args:
        verifiers: each gives the trace a column of its name.
        others: further metrics, such as `task.evaluate`.

    Raises:
        RedraftError: no verifiers, or a name that the trace has already; when called, two metrics of one name, or a
            verifier that failed.
    """
    members = _Members(verifiers)
    for name in verifiers:
        if name in OWN:
            raise RedraftError(f"the trace has a column {name!r} of its own: call the verifier something else")

    def evaluate(samples: Tensor, problems: Problems) -> dict[str, Tensor]:
        metrics = members.scores(samples, problems)
        for other in others:
            found = other(samples, problems)
            if twice := sorted(found.keys() & metrics.keys()):
                raise RedraftError(f"two metrics are called {twice[0]!r}")
            metrics |= found
        return metrics

    return evaluate
