"""Metrics against compute, as SVG: inline in the colours of the page, or a file of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

import numpy as np
from numpy.typing import NDArray

from redraft.core.errors import RedraftError
from redraft.report.looks import look

Floats = NDArray[np.float64]

WIDTH, HEIGHT = 620, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 14, 44
ROW, COLUMNS = 20, 3  # of the legend of a file
STYLE = """
.grid { stroke: var(--line); stroke-width: 1; }
.first { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 4 4; }
.curve { fill: none; stroke: var(--own, var(--accent)); stroke-width: 2; stroke-linejoin: round;
  stroke-dasharray: var(--dash, none); }
.dot { fill: var(--own, var(--accent)); }
.band { fill: var(--own, var(--accent)); opacity: .16; }
"""
LEGEND_STYLE = """
.legend span { white-space: nowrap; margin-right: 1.1em; cursor: default; }
.legend svg { display: inline-block; width: 2.6em; height: 1em; margin-right: .4em; vertical-align: -.1em; }
"""
PAPER = "svg { --line: #dfe3e8; --accent: #2467ab; font: 12px system-ui, sans-serif; } text { fill: #4d5663; }\n"


@dataclass(frozen=True)
class Line:
    """A mean (K,) at budgets x (K,).

    Attributes:
        name: in the legend.
        x: budgets, NaN and 0 not shown.
        mean: at each.
        low: end of its band (K,); NaN, or the mean itself, where there is none.
        high: other end.
    """

    name: str
    x: Floats
    mean: Floats
    low: Floats
    high: Floats

    @classmethod
    def bare(cls, name: str, points: Sequence[tuple[float, float]]) -> Line:
        """Points without a band."""
        x, mean = np.array(points, dtype=float).reshape(-1, 2).T
        return cls(name, x, mean, mean, mean)


def chart(lines: Sequence[Line], label: str, across: str, first: bool = False) -> str:
    """An `<svg>` with all lines, the budget on a logarithmic axis, and a legend if there are two lines or more.

    Pointing at a name in the legend fades the other lines, where the page has the style of `fading`.

    Args:
        lines: what to draw; those without a point are left out.
        label: of the values.
        across: what budgets are.
        first: dash the first value of each line, to see what is above it.
    """
    drawn = _drawn(lines)
    if not drawn:
        return '<p class="soft">No draft of every unit is within any budget.</p>'
    box = f'viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)} against {across}"'
    parts = [f"<svg {box}>", *_inside(drawn, across, first), "</svg>"]
    if len(lines) > 1:
        legend = (f'<span class="s{i}">{_inline_key(i)}{escape(line.name)}</span>' for i, line in drawn)
        parts = ['<div class="chart">', *parts, '<p class="legend soft">', *legend, "</p></div>"]
    return "\n".join(parts)


def fading(count: int) -> str:
    """Style of a page whose charts have at most `count` lines: a name in the legend fades all but its own line."""
    rules = (f".chart:has(.legend .s{i}:hover) g:not(.s{i}) {{ opacity: .1; }}\n" for i in range(count))
    return "".join(rules)


def figure(lines: Sequence[Line], label: str, across: str) -> str:
    """An SVG file on white paper: the label above, what `chart` draws, and a legend below.

    Raises:
        RedraftError: no line has a point.
    """
    drawn = _drawn(lines)
    if not drawn:
        raise RedraftError(f"nothing to draw: no line has a value of {label} at a budget above 0")
    height = HEIGHT + ROW * (2 + ceil(len(drawn) / COLUMNS))
    legend = [
        f'<g style="{look(i).style}" transform="translate({LEFT + k % COLUMNS * (WIDTH - LEFT) // COLUMNS} '
        f'{HEIGHT + ROW * (1 + k // COLUMNS) - 4})">{_key(i)}<text x="36" y="4">{escape(line.name)}</text></g>'
        for k, (i, line) in enumerate(drawn)
    ]
    box = f'viewBox="0 {-ROW} {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {box}>',
        f"<style>\n{PAPER}{STYLE.strip()}\n</style>",
        f'<rect y="{-ROW}" width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="-4">{escape(label)}</text>',
        *_inside(drawn, across),
        *legend,
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


Place = Callable[[float, float], tuple[float, float]]


def _drawn(lines: Sequence[Line]) -> list[tuple[int, Line]]:
    """The known points of each line that has some, with the number of its look."""
    known = [_known(line) for line in lines]
    return [(i, line) for i, line in enumerate(known) if len(line.x)]


def _known(line: Line) -> Line:
    keep = ~np.isnan(line.mean) & (line.x > 0)
    return Line(line.name, *(values[keep] for values in (line.x, line.mean, line.low, line.high)))


def _inside(drawn: list[tuple[int, Line]], across: str, first: bool = False) -> list[str]:
    """Axes and lines."""
    x = np.concatenate([line.x for _, line in drawn])
    y = np.concatenate([part for _, line in drawn for part in (line.mean, line.low, line.high)])
    place = _scales(x, y)
    return [
        *_axes(x, y, place, across),
        *(_dashed(line, x, place) for _, line in drawn if first),
        *(_curve(line, i, place) for i, line in drawn),
    ]


def _scales(x: Floats, y: Floats) -> Place:
    """Where a value lies in the picture."""
    left, right = log10(x.min()), log10(x.max())
    right = right if right > left else left + 1
    low, high = _ends(y)

    def place(a: float, b: float) -> tuple[float, float]:
        across = (log10(a) - left) / (right - left)
        up = (b - low) / (high - low)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    return place


def _ends(y: Floats) -> tuple[float, float]:
    low, high = float(np.nanmin(y)), float(np.nanmax(y))
    spare = (high - low) * 0.04 or abs(high) * 0.1 or 1.0
    return low - spare, high + spare


def _curve(line: Line, number: int, place: Place) -> str:
    here = look(number)
    middle = [_at(place(a, b)) for a, b in zip(line.x, line.mean, strict=True)]
    dots = "".join(
        f'<path class="dot" transform="translate({point})" d="{here.marker}">'
        f"<title>{escape(line.name)}: {b:.4g} at {a:.4g}</title></path>"
        for point, a, b in zip(middle, line.x, line.mean, strict=True)
    )
    drawn = f'{_band(line, place)}<polyline class="curve" points="{" ".join(middle)}"/>{dots}'
    return f'<g class="s{number}" style="{here.style}">{drawn}</g>'


def _band(line: Line, place: Place) -> str:
    """Where both ends are known."""
    known = ~np.isnan(line.low) & ~np.isnan(line.high)
    low, high = ([_at(place(a, b)) for a, b in zip(line.x[known], values[known], strict=True)]
                 for values in (line.low, line.high))  # fmt: skip
    return f'<polygon class="band" points="{" ".join(low + high[::-1])}"/>' if low else ""


def _key(number: int) -> str:
    """A line's look for the legend, from (0, 0) to (30, 0)."""
    return f'<path class="curve" d="M0 0H30"/><path class="dot" transform="translate(15)" d="{look(number).marker}"/>'


def _inline_key(number: int) -> str:
    return f'<svg viewBox="0 -6 30 12" style="{look(number).style}" aria-hidden="true">{_key(number)}</svg>'


def _dashed(line: Line, x: Floats, place: Place) -> str:
    ends = " ".join(_at(place(end, line.mean[0])) for end in (x.min(), x.max()))
    return f'<polyline class="first" points="{ends}"/>'


def _axes(x: Floats, y: Floats, place: Place, across: str) -> list[str]:
    low, high = _ends(y)
    left, right = float(x.min()), float(x.max())
    parts = []
    for level in _round(low, high):
        at = place(left, level)[1]
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{LEFT - 7}" y="{at + 4:.1f}" text-anchor="end">{level:g}</text>')
    for tick in _powers(left, right):
        at = place(tick, low)[0]
        parts.append(f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{tick:g}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    return [*parts, f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(across)}</text>']


def _round(low: float, high: float) -> list[float]:
    """Round numbers in [low, high], three to six of them."""
    power = 10.0 ** floor(log10(high - low))
    step = next(s for s in (power / 5, power / 2, power, 2 * power) if (high - low) / s <= 6)
    return [round(k * step, 12) for k in range(ceil(low / step), floor(high / step) + 1)]


def _powers(left: float, right: float) -> list[float]:
    """1, 2 and 5 times powers of ten in [left, right]; where they are few, round numbers, or else the ends."""
    found = [m * 10.0**p for p in range(floor(log10(left)), ceil(log10(right)) + 1) for m in (1, 2, 5)]
    found = [tick for tick in found if left * 0.999 <= tick <= right * 1.001]
    if len(found) > 9:
        return [tick for tick in found if f"{tick:e}".startswith("1.0")]
    if len(found) < 3 and left < right:
        found = _round(left, right)
    return found if len(found) > 1 else sorted({left, right})


def _at(point: tuple[float, float]) -> str:
    return f"{point[0]:.1f},{point[1]:.1f}"
