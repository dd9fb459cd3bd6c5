"""How a contract test complains: by an AssertionError with a sentence, whatever the part does."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

import numpy as np
import torch
from torch import Tensor

from redraft.core.errors import RedraftError, said, shown
from redraft.core.task import Problems

P = ParamSpec("P")
KEEPS = "give it an attribute `mark`, a text that tells it from others, or no checkpoint would be its own"


class Complaint(AssertionError):
    """A promise that a part does not keep, in one sentence."""


def contract(part: str) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Make a contract test of a function: what it meets beside complaints becomes one, as does a moved generator."""

    def wrap(check: Callable[P, None]) -> Callable[P, None]:
        @wraps(check)
        def checked(*args: P.args, **kwargs: P.kwargs) -> None:
            for _ in range(2):  # a library may draw a number where it is first imported
                before = _generators()
                asked(f"the {part}", check, *args, **kwargs)
                if _generators() == before:
                    return
            raise Complaint("a global random generator was moved")

        return checked

    return wrap


def must(condition: bool | Tensor, sentence: str) -> None:
    """Complain unless the condition holds."""
    if not bool(condition):
        raise Complaint(sentence)


def asked(what: str, call: Callable[..., Any], *given: Any, **more: Any) -> Any:
    """What `call` gives; an error in it becomes a complaint about `what`, or its own sentence if it is for users."""
    try:
        return _called(what, call, *given, **more)
    except RedraftError as error:
        raise Complaint(str(error)) from error


def unless_refused(what: str, call: Callable[..., Any], *given: Any) -> Any:
    """As `asked`, but None where a RedraftError refuses."""
    try:
        return _called(what, call, *given)
    except RedraftError:
        return None


def _called(what: str, call: Callable[..., Any], *given: Any, **more: Any) -> Any:
    try:
        return call(*given, **more)
    except (Complaint, RedraftError):
        raise
    except Exception as error:
        raise Complaint(f"{what} raised {type(error).__name__}: {said(error)}") from error


def of_kind(value: Any, kind: type | tuple[type, ...], what: str) -> None:
    """Complain unless `value` is of the kind, which is not a truth unless that is asked for."""
    kinds = kind if isinstance(kind, tuple) else (kind,)
    sound = isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
    must(sound, f"{what} is {shown(value)}, where {' or '.join(each.__name__ for each in kinds)} is asked for")


def shaped(value: Any, shape: tuple[int, ...], what: str) -> Tensor:
    """The value, if it is a tensor of that shape."""
    of_kind(value, Tensor, what)
    found: Tensor = value
    must(found.shape == shape, f"{what} is of shape {tuple(found.shape)}, where {tuple(shape)} is asked for")
    return found


def near(one: Tensor, other: Tensor, tolerance: float, sentence: str) -> None:
    """Complain unless two tensors are equal up to the tolerance, of large numbers a share; NaN is equal to NaN."""
    both = one.double(), other.double()
    must(one.shape == other.shape and torch.allclose(*both, tolerance, tolerance, equal_nan=True), sentence)


def same_where(one: Tensor, other: Tensor, where: Tensor, sentence: str) -> None:
    """Complain unless two tensors are equal bit for bit in the regions `where` (B, R)."""
    must(torch.equal(one[where], other[where]), sentence)


def enough(problems: Any) -> None:
    """Complain unless there are two problems or more, as rows are compared with each other."""
    of_kind(problems, Problems, "`problems`")
    must(len(problems) >= 2, "one problem shows nothing of batches: give two or more")


def backwards(problems: Problems) -> Tensor:
    """The numbers of the rows, the last first."""
    return torch.arange(len(problems)).flip(0)


def _generators() -> tuple[bytes, str, str]:
    """The states of torch's, numpy's and Python's global generators."""
    return torch.get_rng_state().numpy().tobytes(), str(np.random.get_state()), str(random.getstate())  # noqa: NPY002
