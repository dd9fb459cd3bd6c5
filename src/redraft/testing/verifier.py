"""The contract test of verifiers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from redraft.core.batched import Batched
from redraft.core.content import content
from redraft.core.task import Problems
from redraft.core.verifier import Verifier, blames, trait
from redraft.testing.saying import KEEPS, asked, backwards, contract, enough, must, near, of_kind


@contract("verifier")
@torch.no_grad()
def check_verifier(verifier: Verifier, samples: Tensor, problems: Problems, tolerance: float = 1e-4) -> None:
    """Check what methods rely on, on two samples (P, ...) or more that differ, one for each problem.

    - a score for each sample, finite, and the same when asked again;
    - a sample's score follows it when the order changes; unless the verifier is `relative` it is the same alone, and if
      the verifier is `blind` the same for another problem, up to `tolerance`;
    - samples and problems stay as they are;
    - what it says of itself by the attributes of `redraft.core.verifier.TRAITS` can be so;
    - blame, where it is given, is one number a region, 0 or more, of which the same holds;
    - no global random generator is moved;
    - its mark, by which a checkpoint knows it, stays what it was.

    Raises:
        AssertionError: it breaks one of these; the sentence says which.
    """
    enough(problems)
    of_kind(samples, Tensor, "`samples`")
    must(len(samples) == len(problems), "give one sample for each problem")
    must(callable(verifier), "the verifier cannot be called")
    _check_traits(verifier)
    kept, mark, given = samples.clone(), content(verifier), content(problems)
    asked("the verifier", verifier, samples, problems)
    must(torch.equal(samples, kept), "the verifier changes its samples")
    must(content(problems) == given, "the verifier changes its problems")
    calls = Batched(verifier, unique=False)
    _check_answers(calls, calls, "score", samples, problems, tolerance)
    if blames(verifier):
        must(callable(getattr(verifier, "blame", None)), "the verifier says that it `blames`, and has no `blame`")
        _check_answers(calls, calls.blame, "blame", samples, problems, tolerance)
    must(torch.equal(samples, kept), "the verifier changes its samples")
    must(content(verifier) == mark, f"the verifier is changed by being called: {KEEPS}")


def _check_traits(verifier: Verifier) -> None:
    for name in ("blind", "relative"):
        of_kind(trait(verifier, name), bool, f"`{name}`")
    calls, rows = trait(verifier, "calls_per_row"), trait(verifier, "rows")
    of_kind(calls, int, "`calls_per_row`")
    must(calls >= 1, f"`calls_per_row` is {calls}: a sample costs one call or more")
    of_kind(rows, (int, type(None)), "`rows`")
    must(rows is None or rows >= 1, f"`rows` is {rows}: a call takes one sample or more")
    must(
        rows is None or not trait(verifier, "relative"), "a `relative` verifier compares all samples: leave `rows` None"
    )


def _check_answers(calls: Batched, ask: Any, what: str, samples: Tensor, problems: Problems, tolerance: float) -> None:
    """What is said of a sample is its own."""
    answers, back = asked("the verifier", ask, samples, problems), backwards(problems)
    again = asked("the verifier, asked again,", ask, samples, problems)
    near(again, answers, tolerance, f"a sample's {what} changes when asked again")
    turned = asked("the verifier", ask, samples[back], problems[back]).flip(0)
    near(turned, answers, tolerance, f"{what}s are out of order")
    if not calls.relative:
        rows = range(len(samples))
        alone = [asked("the verifier, of one sample,", ask, samples[i : i + 1], problems[i : i + 1]) for i in rows]
        near(torch.cat(alone), answers, tolerance, f"a sample's {what} depends on its batch")
    if calls.blind:
        others = asked("the verifier", ask, samples, problems[back])
        near(others, answers, tolerance, f"the verifier is not blind: a {what} depends on the problem")
