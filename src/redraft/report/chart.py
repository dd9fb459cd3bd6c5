"""Metrics against compute, as inline SVG in the colours of the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

WIDTH, HEIGHT = 620, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 14, 44
COLOURS = ("#2467ab", "#c4572b", "#2f8f5b", "#8a53b5", "#b38a12", "#c23b74", "#3a9ba5", "#6d7480")
STYLE = (
    "\n".join(f".s{i} {{ --own: {colour}; }}" for i, colour in enumerate(COLOURS))
    + """
.grid { stroke: var(--line); stroke-width: 1; }
.first { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 4 4; }
.curve { fill: none; stroke: var(--own, var(--accent)); stroke-width: 2; stroke-linejoin: round; }
.dot { fill: var(--own, var(--accent)); }
.band { fill: var(--own, var(--accent)); opacity: .16; }
.legend span { white-space: nowrap; margin-right: 1.1em; }
.legend i { display: inline-block; width: 1.1em; height: .22em; margin-right: .4em; vertical-align: .2em;
  background: var(--own); }
"""
)


@dataclass(frozen=True)
class Line:
    """A mean (K,) at budgets x (K,).

    Attributes:
        name: in the legend.
        x: budgets, NaN and 0 not shown.
        mean: at each.
        low: end of its band (K,); the mean itself if there is none.
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

    Args:
        lines: what to draw; those without a point are left out.
        label: of the values.
        across: what budgets are.
        first: dash the first value of each line, to see what is above it.
    """
    known = [line for line in (_known(line) for line in lines) if len(line.x)]
    if not known:
        return '<p class="soft">No draft of every unit is within any budget.</p>'
    x = np.concatenate([line.x for line in known])
    y = np.concatenate([part for line in known for part in (line.low, line.high)])
    place = _scales(x, y)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)} against {across}">',
        *_axes(x, y, place, across),
        *(_dashed(line, x, place) for line in known if first),
        *(_drawn(line, _number(lines, line.name), place) for line in known),
        "</svg>",
    ]
    if len(lines) > 1:
        legend = (f'<span class="s{_number(lines, line.name)}"><i></i>{escape(line.name)}</span>' for line in known)
        parts += ['<p class="legend soft">', *legend, "</p>"]
    return "\n".join(parts)


Place = Callable[[float, float], tuple[float, float]]


def _known(line: Line) -> Line:
    keep = ~np.isnan(line.mean) & (line.x > 0)
    return Line(line.name, *(values[keep] for values in (line.x, line.mean, line.low, line.high)))


def _number(lines: Sequence[Line], name: str) -> int:
    return [line.name for line in lines].index(name) % len(COLOURS)


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


def _drawn(line: Line, number: int, place: Place) -> str:
    middle, low, high = ([_at(place(a, b)) for a, b in zip(line.x, values, strict=True)]
                         for values in (line.mean, line.low, line.high))  # fmt: skip
    dots = "".join(
        f'<circle class="dot" cx="{point.split(",")[0]}" cy="{point.split(",")[1]}" r="2.6">'
        f"<title>{escape(line.name)}: {b:.4g} at {a:.4g}</title></circle>"
        for point, a, b in zip(middle, line.x, line.mean, strict=True)
    )
    band = f'<polygon class="band" points="{" ".join(low + high[::-1])}"/>'
    return f'<g class="s{number}">{band}<polyline class="curve" points="{" ".join(middle)}"/>{dots}</g>'


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
