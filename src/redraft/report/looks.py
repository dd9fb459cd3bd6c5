"""Looks of lines in a chart: as many as are asked for, no two with the same dashes and markers; colours come beside."""

from __future__ import annotations

from dataclasses import dataclass

COLOURS = ("#2467ab", "#c4572b", "#2f8f5b", "#8a53b5", "#b38a12", "#c23b74", "#3a9ba5", "#6d7480")
MARKERS = {
    "circle": "M-2.6 0a2.6 2.6 0 1 0 5.2 0a2.6 2.6 0 1 0-5.2 0z",
    "square": "M-2.5-2.5h5v5h-5z",
    "triangle": "M0-3.4L3.2 2.4H-3.2z",
    "diamond": "M0-3.8L3.4 0L0 3.8L-3.4 0z",
    "down": "M0 3.4L3.2-2.4H-3.2z",
    "plus": "M-1-3.6h2v2.6h2.6v2h-2.6v2.6h-2v-2.6h-2.6v-2h2.6z",
    "cross": "M-3.2-1.8l1.4-1.4l1.8 1.8l1.8-1.8l1.4 1.4l-1.8 1.8l1.8 1.8l-1.4 1.4l-1.8-1.8l-1.8 1.8l-1.4-1.4l1.8-1.8z",
    "ring": "M-3.4 0a3.4 3.4 0 1 0 6.8 0a3.4 3.4 0 1 0-6.8 0zM-1.8 0a1.8 1.8 0 1 1 3.6 0a1.8 1.8 0 1 1-3.6 0z",
}
"""Paths around the origin."""


@dataclass(frozen=True)
class Look:
    """How a line is drawn.

    Attributes:
        colour: of line, markers and band.
        dash: its `stroke-dasharray`.
        marker: a path of `MARKERS`.
    """

    colour: str
    dash: str
    marker: str

    @property
    def style(self) -> str:
        """CSS of an element within which it holds."""
        return f"--own: {self.colour}; --dash: {self.dash}"


def look(number: int) -> Look:
    """The look of line `number`, from 0: each dash takes all markers before the next one.

    A marker has another colour with every dash, so that lines of one point, which show no dash, differ too.
    """
    again, place = divmod(number, len(MARKERS))
    return Look(COLOURS[(place + again) % len(COLOURS)], dash(again), [*MARKERS.values()][place])


def dash(number: int) -> str:
    """Solid, dashed, dotted, and then a dash with one dot, two dots, ..."""
    return ("none", "7 4", "2 3")[number] if number < 3 else "9 3" + " 2 3" * (number - 2)
