"""Batches that fit into memory: halved where they do not, and no larger afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

from redraft.core.errors import RedraftError, said

Answer = TypeVar("Answer")
SIGNS = ("out of memory", "not enough memory", "can't allocate memory")
"""What errors of a full memory say, on GPUs and on CPUs."""


class Fitting:
    """Asks about rows in batches, and about half as many at a time where memory runs out.

    Attributes:
        size: most rows at a time; falls when memory runs out. None is as many as there are.
    """

    def __init__(self, size: int | None = None) -> None:
        """Begin with batches of `size`."""
        self.size = size

    def __call__(self, ask: Callable[[Any], Answer], rows: Any, who: str) -> list[Answer]:
        """The answers on the parts of `rows`, in order.

        Args:
            ask: about some of the rows; tried again with fewer of them where memory runs out.
            rows: whatever has a length and can be sliced.
            who: how the error calls what does not fit.

        Raises:
            RedraftError: one row alone does not fit.
        """
        found: list[Answer] = []
        start = 0
        while start < len(rows):
            size = self.size or len(rows)
            part = rows[start : start + size] if size < len(rows) else rows
            answer, full = self._tried(ask, part)
            if full is None:
                found.append(answer)  # type: ignore[arg-type]
                start += len(part)
            elif len(part) == 1:
                raise RedraftError(
                    f"one row of {who} does not fit into memory ({full}): make it smaller, take fewer bits by "
                    "dtype=..., or another device"
                )
            else:
                self.size = (len(part) + 1) // 2
                release()
        return found

    @staticmethod
    def _tried(ask: Callable[[Any], Answer], part: Any) -> tuple[Answer | None, str | None]:
        """The answer, or what the error of a full memory says; the error itself would hold on to that memory."""
        try:
            return ask(part), None
        except Exception as error:
            if not out_of_memory(error):
                raise
            return None, said(error)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is full, on a GPU or on a CPU."""
    told = isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in SIGNS)
    return told or isinstance(error, torch.OutOfMemoryError | MemoryError)


def release() -> None:
    """Give the GPU memory that nothing uses back."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
