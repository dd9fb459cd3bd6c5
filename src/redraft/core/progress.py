"""How far a run is, for whoever looks on: a bar in a terminal, a line now and then in a pipe or a file."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import Any, Protocol

from tqdm.auto import tqdm

EVERY = 30.0  # seconds from line to line


def interval() -> float:
    """Seconds between changes of a bar: where no person looks each is a line of its own."""
    return 0.1 if sys.stderr.isatty() else EVERY


class Progress(Protocol):
    """Is told of every draft."""

    def tell(self, done: int, total: int | None, nfe: float) -> None:
        """`done` drafts of `total`, if that is known, for `nfe` evaluations of each problem."""

    def close(self) -> None:
        """The run has ended."""


@dataclass
class Bar:
    """A bar whose end moves as more is known of it, and is where the run ended when it has.

    Attributes:
        bar: of tqdm.
    """

    bar: Any

    def tell(self, done: int, total: int | None, nfe: float) -> None:
        """Move the bar and its end."""
        self.bar.total = total
        self.bar.set_postfix(nfe=f"{nfe:.0f}", refresh=False)
        self.bar.update(done - self.bar.n)

    def close(self) -> None:
        """Leave the bar as it is in the end."""
        self.bar.total = self.bar.n
        self.bar.close()


@dataclass
class Lines:
    """Plain lines, the first after `EVERY` seconds: a short run says nothing, a long one also how it ended."""

    began: float = field(default_factory=time.monotonic)
    said: float | None = None
    last: str = ""

    def tell(self, done: int, total: int | None, nfe: float) -> None:
        """Write a line if it is time for one."""
        of = "" if total is None else f" of {total}"
        self.last, now = f"{done}{of} drafts, {nfe:.0f} NFE a problem", time.monotonic()
        if now - (self.began if self.said is None else self.said) >= EVERY:
            self.said = now
            self._write("")

    def close(self) -> None:
        """Write the last line, if there was one before."""
        if self.said is not None:
            self._write("ended after ")

    def _write(self, before: str) -> None:
        seconds = time.monotonic() - self.began
        print(f"redraft: {before}{self.last}, {seconds:.0f} seconds", file=sys.stderr, flush=True)


class Silence:
    """Says nothing."""

    def tell(self, done: int, total: int | None, nfe: float) -> None:
        """Say nothing."""

    def close(self) -> None:
        """Say nothing."""


def progress(wanted: bool | None, done: int, total: int | None) -> Progress:
    """What shows a run that begins after `done` of `total` drafts: a bar if `wanted`, nothing if not.

    If neither is said, a bar where a person looks at the terminal, and else lines.
    """
    if wanted is False:
        return Silence()
    if wanted or sys.stderr.isatty():
        return Bar(tqdm(total=total, initial=done, unit="draft", dynamic_ncols=True))
    return Lines()
