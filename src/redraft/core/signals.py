"""SIGTERM, which clusters send, and SIGHUP, of a terminal that closes, taken as Ctrl-C; and interrupts held back."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

NAMES = ("SIGTERM", "SIGHUP")  # there is no SIGHUP on Windows


class _Ending:
    """A handler that notes its signal and raises as Ctrl-C does; the next of the same kind ends the program at once."""

    def __init__(self, came: list[int]) -> None:
        self.came = came

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.came.append(number)
        signal.signal(number, signal.SIG_DFL)
        raise KeyboardInterrupt


@contextmanager
def ending() -> Iterator[list[int]]:
    """Take SIGTERM and SIGHUP as Ctrl-C: what runs keeps all that is finished, and ends its workers.

    A second signal of the same kind ends the program at once. Signals that are ignored, as SIGHUP under nohup, or
    handled by another stay so, and outside the main thread all do.

    Yields:
        The numbers of the signals that came: a command that was ended exits with 128 plus the first.
    """
    came: list[int] = []
    known = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
    mine = [number for number in known if _in_main() and signal.getsignal(number) is signal.SIG_DFL]
    for number in mine:
        signal.signal(number, _Ending(came))
    try:
        yield came
    finally:
        _restore({n: signal.SIG_DFL for n in mine if isinstance(signal.getsignal(n), _Ending)})


@contextmanager
def held(worth: Callable[[], bool]) -> Iterator[list[int]]:
    """Hold back what would interrupt, Ctrl-C and under `ending` its like, until what is under way is saved.

    The first that comes while there is something `worth` saving only goes to the list that is yielded, and whoever
    holds raises KeyboardInterrupt when it is saved; the next interrupts at once. Where Ctrl-C is ignored or another's
    to handle, and outside the main thread, it stays so.
    """
    asked: list[int] = []
    before = {number: signal.getsignal(number) for number in _interrupting()}

    def note(number: int, frame: FrameType | None) -> None:
        handler: Any = before[number]
        _restore(before)
        before.clear()
        if not worth():
            handler(number, frame)
        with suppress(KeyboardInterrupt):
            handler(number, frame)
        asked.append(number)

    for number in before:
        signal.signal(number, note)
    try:
        yield asked
    finally:
        _restore(before)
    if asked:
        raise KeyboardInterrupt  # it came after the last step


@contextmanager
def kept() -> Iterator[None]:
    """Keep handlers from a library that sets its own."""
    known = ("SIGINT", *NAMES) if _in_main() else ()
    numbers = [number for name in known if (number := getattr(signal, name, None))]
    before = {number: handler for number in numbers if (handler := signal.getsignal(number)) is not None}
    try:
        yield
    finally:
        _restore(before)


def _in_main() -> bool:
    return threading.current_thread() is threading.main_thread()


def _interrupting() -> list[int]:
    """Signals that raise KeyboardInterrupt now."""
    known = [getattr(signal, name) for name in ("SIGINT", *NAMES) if _in_main() and hasattr(signal, name)]
    handlers = {number: signal.getsignal(number) for number in known}
    return [n for n, how in handlers.items() if how is signal.default_int_handler or isinstance(how, _Ending)]


def _restore(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
