"""What a verifier is, what it may say of itself, and the error that names the sample that it failed on."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from redraft.core.errors import RedraftError
from redraft.core.task import Problems

TRAITS = {"blind": False, "relative": False, "calls_per_row": 1, "rows": None}
"""What a verifier may state by attributes, and what is taken for granted if it does not.

blind: a score depends on the sample alone, so that equal samples of different problems are scored once;
relative: a score depends on the other samples of the call, which must not be split into batches;
calls_per_row: what the ledger charges for a sample; more than 1 where several verifiers are asked;
rows: most samples that it wants at once.
"""


class Verifier(Protocol):
    """Scores samples; any Python callable of this form is one.

    It may have attributes of the names in `TRAITS`, and a method `blame(samples, problems)` that gives (B, R), how much
    each region is at fault, 0 or more, for methods that redraw where fault is found.
    """

    def __call__(self, samples: Tensor, problems: Problems, /) -> Tensor:
        """Scores (B,) of samples (B, ...), one for each of `problems`; the higher the better, and always finite."""


def trait(verifier: Verifier, name: str) -> Any:
    """What a verifier states of itself by the attribute `name`, one of `TRAITS`."""
    return getattr(verifier, name, TRAITS[name])


def blames(verifier: Verifier) -> bool:
    """Whether it says which regions are at fault; one that wraps others says so by an attribute `blames`."""
    return bool(getattr(verifier, "blames", hasattr(verifier, "blame")))


class VerifierError(RedraftError):
    """A verifier failed on a sample.

    Attributes:
        what: what it did.
        row: number of the sample in the call.
        problem: id of the sample's problem.
        sample: the sample itself (...).
        verifier: which, among several.
        result: what the run had when it failed, if it had a draft.
    """

    result: Any = None

    def __init__(self, what: str, row: int, problem: int, sample: Tensor, verifier: str | None = None) -> None:
        """Say that sample number `row`, for the problem with the id `problem`, made the verifier do `what`."""
        self.what, self.row, self.problem, self.sample, self.verifier = what, row, problem, sample, verifier
        subject = f"the verifier {verifier!r}" if verifier else "the verifier"
        super().__init__(f"{subject} {what} (sample number {row}, for problem {problem})")

    def moved(self, row: int) -> VerifierError:
        """The same, of a call in which the sample is number `row`."""
        return VerifierError(self.what, row, self.problem, self.sample, self.verifier)

    def of(self, verifier: str) -> VerifierError:
        """The same, of one verifier among several."""
        name = f"{verifier}.{self.verifier}" if self.verifier else verifier
        return VerifierError(self.what, self.row, self.problem, self.sample, name)
