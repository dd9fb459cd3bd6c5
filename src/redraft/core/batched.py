"""Calls to verifiers that may not fit into memory, may fail, may hang, and may be asked the same thing twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent import futures
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from redraft.core.content import content
from redraft.core.errors import RedraftError, said
from redraft.core.fields import AtLeast0, Count, Number, Positive, checks, taken
from redraft.core.memory import out_of_memory, release
from redraft.core.rows import bytes_of
from redraft.core.task import Problems, check_paired
from redraft.core.verifier import Verifier, VerifierError, blames, trait

Ask = Callable[[Tensor, Problems], Tensor]
LONGEST_WAIT = 60.0  # seconds
ELSEWHERE = ("same device", "expected device", "weight type")  # what torch says of tensors on different devices


class Batched:
    """A verifier called in batches, in order, for each different sample once, and again where it fails.

    A batch that does not fit into memory is halved, and all later batches are no larger. A batch that raises is tried
    again, then halved until the sample that makes it raise is found, or no half raises any more. A call that takes too
    long is given up; as Python cannot end a thread, it may go on in the background. Of what the verifier is given it
    may change everything: samples are copies.

    `run` wraps every verifier that is not `Batched` yet, with these defaults.

    Attributes:
        size: most samples a call; falls when memory runs out. None is as many as there are.
        retries: how often a call that failed is tried again.
        wait: seconds before the first of these, twice as many before each further one, 60 at most.
        timeout: seconds that a call may take, or None.
        unique: samples that are equal, for problems with equal ids or for a blind verifier, are scored once.
    """

    @checks
    def __init__(
        self,
        verifier: Verifier,
        size: Count | None = None,
        retries: Number = 0,
        wait: AtLeast0 = 1.0,
        timeout: Positive | None = None,
        unique: bool = True,
    ) -> None:
        """Call `verifier` so; see the attributes.

        Raises:
            RedraftError: a setting without a meaning, or batches of a verifier that compares all samples of a call.
        """
        self.verifier, self.retries, self.wait, self.timeout, self.unique = verifier, retries, wait, timeout, unique
        self.size = taken("rows", trait(verifier, "rows"), Count | None) if size is None else size
        self.blind, self.relative = bool(trait(verifier, "blind")), bool(trait(verifier, "relative"))
        self.calls_per_row, self.blames = int(trait(verifier, "calls_per_row")), blames(verifier)
        if self.relative and self.size is not None:
            raise RedraftError("a verifier that compares the samples of a call cannot be called in batches: leave size")

    def __call__(self, samples: Tensor, problems: Problems) -> Tensor:
        """Scores (B,), float64 on the samples' device.

        Raises:
            VerifierError: the verifier failed on a sample, or gave NaN or infinity.
            RedraftError: it gave another shape, or no numbers.
        """
        return self._asked(self.verifier, samples, problems, ())

    def blame(self, samples: Tensor, problems: Problems) -> Tensor:
        """How much each region is at fault (B, R), 0 or more.

        Raises:
            RedraftError: as for scores; or the verifier gives no blame.
        """
        if not self.blames:
            raise RedraftError(
                f"the verifier gives no blame: {type(self.verifier).__name__} has no method of that name"
            )
        return self._asked(self.verifier.blame, samples, problems, problems.frozen.shape[1:])  # type: ignore[attr-defined]

    @property
    def mark(self) -> str:
        """That of the verifier: how it is called changes no score."""
        return content(self.verifier)

    def distinct(self, samples: Tensor, problem: Tensor) -> tuple[Tensor, Tensor]:
        """The rows (U,) that are the first of their sample and `problem` (B,), and which of these each row is (B,).

        All rows if equal samples are not to be scored once.
        """
        if not self.unique:
            return torch.arange(len(samples)), torch.arange(len(samples))
        return _firsts([*zip(problem.tolist(), bytes_of(samples), strict=True)])

    def _asked(self, ask: Ask, samples: Tensor, problems: Problems, shape: tuple[int, ...]) -> Tensor:
        """What `ask` says of the samples, of the shape (B, *shape)."""
        check_paired(samples, problems)
        if not len(samples):
            return torch.zeros(0, *shape, dtype=torch.float64, device=samples.device)
        who = torch.zeros_like(problems.ids) if self.blind else problems.ids
        first, place = self.distinct(samples, who)
        parts = _Call(self, ask, samples, problems, shape).answers(first)
        return torch.cat(parts)[place.to(samples.device)]


@dataclass(frozen=True)
class _Call:
    """One question about samples (B, ...) to a verifier, which is to be answered in the shape (B, *shape)."""

    batched: Batched
    ask: Ask
    samples: Tensor
    problems: Problems
    shape: tuple[int, ...]

    def answers(self, rows: Tensor) -> list[Tensor]:
        """The answers, in order, on the samples number `rows`."""
        found, pending = [], [(rows, self.batched.retries + 1)]
        while pending:
            rows, tries = pending.pop()
            size = self.batched.size or len(rows)
            if len(rows) > size:
                pending.append((rows[size:], tries))
            answer, smaller = self._answer(rows[:size], tries)
            found += [answer] if answer is not None else []
            pending += smaller
        return found

    def _answer(self, rows: Tensor, tries: int) -> tuple[Tensor | None, list[tuple[Tensor, int]]]:
        """The answer on a batch, or the parts of it to ask about instead, the last first."""
        try:
            given = self._retried(rows, tries)
        except VerifierError as error:  # of a verifier that is made of others
            raise error.moved(int(rows[error.row])) from error
        except RedraftError:
            raise
        except _Hung as error:
            raise self._error(f"took more than {self.batched.timeout:g} seconds", rows) from error
        except Exception as error:
            full = out_of_memory(error)
            failure = error.with_traceback(None) if full else error  # its frames hold the memory
        else:
            return self._checked(given, rows), []
        if len(rows) == 1 or self.batched.relative:
            raise self._error(
                f"raised {type(failure).__name__}: {said(failure)}{self._hint(failure)}", rows
            ) from failure
        half = (len(rows) + 1) // 2
        if full:
            self._shrink(half)
        left = tries if full else 1
        return None, [(rows[half:], left), (rows[:half], left)]

    def _hint(self, error: Exception) -> str:
        """What to do about a verifier whose weights are elsewhere than the samples."""
        elsewhere = isinstance(error, RuntimeError) and any(sign in str(error) for sign in ELSEWHERE)
        return f"; move the verifier to the samples' device, {self.samples.device}" if elsewhere else ""

    def _shrink(self, size: int) -> None:
        self.batched.size = size
        release()

    def _retried(self, rows: Tensor, tries: int) -> Any:
        """What the verifier gives, at last."""
        for number in range(tries):
            try:
                return self._timed(self.samples[rows.to(self.samples.device)], self.problems[rows])
            except Exception as error:
                if number == tries - 1 or not _may_pass(error):
                    raise
            time.sleep(min(self.batched.wait * 2**number, LONGEST_WAIT))
        raise AssertionError("there is one try or more")

    def _timed(self, samples: Tensor, problems: Problems) -> Any:
        if self.batched.timeout is None:
            return self.ask(samples, problems)
        outcome: futures.Future[Any] = futures.Future()
        graded = torch.is_grad_enabled()  # each thread has its own mode

        def work() -> None:
            try:
                with torch.set_grad_enabled(graded):
                    outcome.set_result(self.ask(samples, problems))
            except BaseException as error:
                outcome.set_exception(error)

        threading.Thread(target=work, daemon=True).start()  # no exit waits for a daemon
        if not futures.wait([outcome], self.batched.timeout).done:
            raise _Hung
        return outcome.result()

    def _checked(self, given: Any, rows: Tensor) -> Tensor:
        """The answer as float64, if it is one."""
        if _is_complex(given):
            raise RedraftError(f"the verifier gave a complex {type(given).__name__}, where numbers are asked for")
        try:
            answer = torch.as_tensor(given, dtype=torch.float64, device=self.samples.device)
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise RedraftError(f"the verifier gave a {type(given).__name__}, where numbers are asked for") from error
        wanted = (len(rows), *self.shape)
        if answer.shape != wanted:
            raise RedraftError(
                f"the verifier gave shape {tuple(answer.shape)} for {len(rows)} samples: {wanted} is asked for"
            )
        each = answer.reshape(len(rows), -1)
        self._refuse("gave NaN or infinity", rows[~each.isfinite().all(1).cpu()])
        if self.shape:
            self._refuse("blamed a region by less than 0", rows[(each < 0).any(1).cpu()])
        return answer

    def _refuse(self, what: str, rows: Tensor) -> None:
        if len(rows):
            raise self._error(what, rows[:1])

    def _error(self, what: str, rows: Tensor) -> VerifierError:
        row = int(rows[0])
        several = f" on {len(rows)} samples from this one on" if len(rows) > 1 else ""
        return VerifierError(what + several, row, int(self.problems.ids[row]), self.samples[row])


def _is_complex(given: Any) -> bool:
    """Whether it has, or holds, complex numbers, of which torch would keep the real part."""
    if isinstance(given, list | tuple):
        return any(map(_is_complex, given))
    return "complex" in str(getattr(given, "dtype", type(given).__name__))


class _Hung(Exception):
    """A call took too long."""


def _may_pass(error: Exception) -> bool:
    """Whether the same call may succeed another time."""
    for_users = isinstance(error, RedraftError) and not isinstance(error, VerifierError)
    return not for_users and not out_of_memory(error)


def _firsts(keys: Sequence[Hashable]) -> tuple[Tensor, Tensor]:
    """Where each different one of B keys stands first (U,), in order, and which of these each key is (B,)."""
    first: dict[Hashable, int] = {}
    for i, key in enumerate(keys):
        first.setdefault(key, i)
    number = {key: n for n, key in enumerate(first)}
    return torch.tensor([*first.values()]), torch.tensor([number[key] for key in keys])
