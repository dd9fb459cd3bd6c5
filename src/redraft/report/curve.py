"""The share of valid boards against compute, as inline SVG in the page's colours."""

from __future__ import annotations

from math import floor, log10
from typing import TYPE_CHECKING

from redraft.report.story import percent

if TYPE_CHECKING:
    from redraft.report.story import Step

WIDTH, HEIGHT = 460, 280
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 14, 44


def curve(steps: list[Step]) -> str:
    """An `<svg>`: the share with its 95 % band, and the first draft's share dashed."""
    most = 1.04 * max(step.nfe for step in steps)
    middle = [_point(step.nfe / most, step.share) for step in steps]
    low, high = ([_point(step.nfe / most, step.interval[end]) for step in steps] for end in (0, 1))
    label = f"share of valid boards against network evaluations per board, 0 to {steps[-1].nfe:.0f}"
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">',
        *_axes(most),
        _line([_point(0, steps[0].share), _point(1, steps[0].share)], "first"),
        f'<polygon class="band" points="{" ".join(low + high[::-1])}"/>',
        _line(middle, "curve"),
        *(_dot(point, step) for point, step in zip(middle, steps, strict=True)),
        "</svg>",
    ]
    return "\n".join(parts)


def _point(x: float, y: float) -> str:
    """Where (x, y) in the unit square lies in the picture."""
    return f"{LEFT + x * (WIDTH - LEFT - RIGHT):.1f},{HEIGHT - BOTTOM - y * (HEIGHT - TOP - BOTTOM):.1f}"


def _line(points: list[str], kind: str) -> str:
    return f'<polyline class="{kind}" points="{" ".join(points)}"/>'


def _dot(point: str, step: Step) -> str:
    x, y = point.split(",")
    title = f"draft {step.number}: {percent(step.share)} valid at {step.nfe:.0f} NFE"
    return f'<circle class="dot" cx="{x}" cy="{y}" r="3.2"><title>{title}</title></circle>'


def _text(point: str, text: str, anchor: str, down: int, right: int = 0) -> str:
    x, y = point.split(",")
    return f'<text x="{float(x) + right:.1f}" y="{float(y) + down:.1f}" text-anchor="{anchor}">{text}</text>'


def _axes(most: float) -> list[str]:
    """Grid lines and labels; the horizontal axis goes from 0 to `most` NFE."""
    levels, ticks = (0.0, 0.25, 0.5, 0.75, 1.0), _ticks(most)
    return [
        *(_line([_point(0, level), _point(1, level)], "grid") for level in levels),
        *(_text(_point(0, level), percent(level), "end", 4, -7) for level in levels),
        *(_text(_point(tick / most, 0), str(tick), "middle", 18) for tick in ticks),
        _text(_point(0.5, 0), "network evaluations per board", "middle", 38),
    ]


def _ticks(most: float) -> list[int]:
    """Round numbers from 0 to `most`, four to eight of them."""
    power = 10 ** floor(log10(max(most, 1)))
    step = next(s for s in (power / 5, power / 2, power, 2 * power) if most / s <= 7.5)
    step = max(1, round(step))
    return list(range(0, int(most) + 1, step))
