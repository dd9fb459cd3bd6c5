"""What a method is: hyper-parameters whose `drafts` spend compute on better and better samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any, Protocol, TypeVar

from torch import Tensor

from redraft.core.model import Model
from redraft.core.state import Draft
from redraft.core.streams import Streams
from redraft.core.task import Problems

Verifier = Callable[[Tensor, Tensor], Tensor]  # of samples (B, ...) for problems numbered (B,): scores (B,)


Settled = TypeVar("Settled")


class Method(Protocol):
    """A frozen dataclass of hyper-parameters.

    What a method leaves to the model is None, in a field whose metadata has `suits`, a function of the model: see
    `settled`.

    A method that asks a verifier more than once a draft also has `verifier_calls(model, draft) -> Tensor`, the most
    verifier rows (B,) that the next draft can take; without it, a draft is taken to ask once.

    It never counts, draws no progress bar and measures no time: the run loop does. A draft holds all that is needed to
    go on from it, so the loop may stop after any draft and start again from it, with all of its rows or with some.
    """

    def drafts(self, model: Model, draft: Draft, streams: Streams, verifier: Verifier | None) -> Iterator[Draft]:
        """The drafts that come after `draft`, whose `number` is -1 when nothing has been generated yet."""

    def nfe(self, model: Model, draft: Draft) -> Tensor:
        """The most network rows (B,) that the next draft can take."""

    def total(self) -> int | None:
        """How many drafts there will be in all, if that is known, for the progress bar."""


def settled(method: Settled, model: Model) -> Settled:
    """The method with what suits `model` in place of what was left open."""
    if not is_dataclass(method):
        return method
    left = [f for f in fields(method) if "suits" in f.metadata and getattr(method, f.name) is None]
    found: dict[str, Any] = {f.name: f.metadata["suits"](model) for f in left}
    return replace(method, **found) if found else method  # type: ignore[type-var]


def asks(method: Any, model: Model, problems: Problems) -> bool:
    """Whether a method calls a verifier, by what it says of its first two drafts."""
    calls = getattr(method, "verifier_calls", None)
    states = problems[:1].state()
    return calls is None or any(int(calls(model, Draft(states, number)).max()) > 0 for number in (-1, 0))
