"""What a method is: hyper-parameters whose `drafts` spend compute on better and better samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from torch import Tensor

from redraft.core.model import Model
from redraft.core.state import Draft
from redraft.core.streams import Streams

Verifier = Callable[[Tensor, Tensor], Tensor]  # of samples (B, ...) for problems numbered (B,): scores (B,)


class Method(Protocol):
    """A frozen dataclass of hyper-parameters.

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
