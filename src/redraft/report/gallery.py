"""What a search for pictures found: picture files, a sheet of candidates, and one HTML page that needs nothing else."""

from __future__ import annotations

import json
from dataclasses import dataclass
from html import escape
from math import ceil, isfinite
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from redraft.core.errors import require
from redraft.report.chart import STYLE as CHART_STYLE
from redraft.report.chart import Line, chart
from redraft.report.found import NFE, WHICH, Found
from redraft.report.page import STYLE
from redraft.report.pictures import Pixels, png
from redraft.report.statistics import FEWEST, mean_interval

Rows = list[list[str]]

SIDE, COLUMNS, MOST, LINE = 128, 8, 64, 14  # of a sheet: pixels of a cell, cells in a row and in all, pixels of a label
PICTURE = "img.picture { display: block; width: 100%; border-radius: 3px; } summary { margin: .6rem 0; }"
SHEETS = 8  # prompts whose sheet is in the page
FRAMES = 4  # of a video

# --- Pictures -----------------------------------------------------------------------------------


def pixels(picture: Tensor) -> Pixels:
    """Pixels (H, W, 3) of a picture (C, H, W) in [0, 1] with 1 or 3 channels; of a video (F, C, H, W) a few frames."""
    if picture.ndim == 4:
        frames = torch.linspace(0, len(picture) - 1, min(FRAMES, len(picture))).round().long()
        picture = torch.cat(list(picture[frames]), -1)
    colours = picture.detach().cpu().float().clamp(0, 1).expand(3, -1, -1)
    return (colours.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()


def small(picture: Tensor) -> Tensor:
    """A picture or video shrunk until its longer side is that of a sheet's cell."""
    frames = picture.float() if picture.ndim == 4 else picture.float()[None]
    scale = min(1.0, SIDE / max(frames.shape[-2:]))
    size = [max(1, round(scale * side)) for side in frames.shape[-2:]]
    shrunk = interpolate(frames, size, mode="bilinear", antialias=True, align_corners=False)
    return shrunk if picture.ndim == 4 else shrunk[0]


def sheet(pictures: list[Pixels], labels: list[str]) -> bytes:
    """A PNG file of small pictures in rows, each with its label; of many the first."""
    pil, draw = require("PIL.Image", "plot"), require("PIL.ImageDraw", "plot")
    number = min(len(pictures), MOST)
    columns, high = min(COLUMNS, number), SIDE + LINE
    page = pil.new("RGB", (columns * SIDE, ceil(number / columns) * high), "white")
    write = draw.Draw(page)
    for place, (picture, label) in enumerate(zip(pictures[:number], labels, strict=False)):
        image = _fitted(pil, pil.fromarray(picture))
        left, top = place % columns * SIDE, place // columns * high
        page.paste(image, (left + 2, top + 2))
        write.text((left + 4, top + SIDE - 1), label, fill="black")
    return png(np.asarray(page), colours=None)


def _fitted(pil: Any, image: Any) -> Any:
    """The image as large as fits into a cell; pixels stay squares where it is enlarged."""
    scale = (SIDE - 4) / max(image.size)
    size = [max(1, round(scale * side)) for side in image.size]
    return image.resize(size, pil.Resampling.NEAREST if scale > 1 else pil.Resampling.LANCZOS)


# --- The page -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gallery:
    """All that the page shows, of one prompt or more.

    Attributes:
        found: of each prompt that was searched, in order.
        planned: prompts in all.
        roles: of each verifier, 'guide' or 'held out'.
        settings: of the search.
    """

    found: list[Found]
    planned: int
    roles: dict[str, str]
    settings: dict[str, Any]

    def page(self) -> str:
        """The HTML."""
        parts = [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>Redraft: {escape(self._title())}</title>",
            f"<style>{STYLE}{CHART_STYLE}{PICTURE}</style>\n</head>\n<body>",
            *self._opening(),
            *self._scores(),
            *self._categories(),
            *self._charts(),
            *self._pictures(),
            f"<footer>{escape(json.dumps(self.settings))}</footer>\n</body>\n</html>\n",
        ]
        return "\n".join(parts)

    def _title(self) -> str:
        return f"{self.settings['method']['type']} on {self.settings['model']}"

    def _opening(self) -> list[str]:
        done = sum(not found.interrupted for found in self.found)
        early = "" if done == self.planned else f" Stopped early: {done} of {self.planned} prompts are done."
        nfe, base = (max(image[name] for found in self.found for image in found.images) for name in NFE)
        plain = f"The baseline is a plain sample, at {base} of these, and the answer where the guide likes it best."
        if self.settings["method"]["type"] in ("BestOfN", "ZeroOrder"):
            plain = f"The baseline is the first candidate, a plain sample at {base}."
        return [
            f"<h1>{escape(self._title())}</h1>",
            f"<p>{_count(self.planned, 'prompt')}, each searched with {nfe} network evaluations an image. "
            f"{plain}{early}</p>",
        ]

    def _scores(self) -> list[str]:
        head = ["verifier", "", "baseline", "winner", "difference", "95&nbsp;% interval"]
        rows = [
            [escape(name), role, *(f"{fmean(f.mean(which, name) for f in self.found):.4g}" for which in WHICH)]
            + _difference([found.gain(name) for found in self.found])
            for name, role in self.roles.items()
        ]
        note = (
            f"Means over prompts; the difference&rsquo;s interval is bootstrapped, over {FEWEST} prompts or more. A "
            "held-out verifier has no say in the search: where the guide rises and it falls, the search exploits the "
            "guide."
        )
        return ["<h2>Scores</h2>", *_table(head, rows), f'<p class="soft">{note}</p>']

    def _categories(self) -> list[str]:
        categories = sorted({found.category for found in self.found})
        if len(categories) < 2:
            return []
        head = ["category", "prompts", *(f"{escape(name)} ({role})" for name, role in self.roles.items())]
        rows = []
        for category in categories:
            here = [found for found in self.found if found.category == category]
            cells = [
                f"{fmean(f.mean('winner', name) for f in here):.4g} ({fmean(f.gain(name) for f in here):+.3g})"
                for name in self.roles
            ]
            rows.append([escape(category or "(none)"), str(len(here)), *cells])
        note = '<p class="soft">The winners&rsquo; mean, and how much it is above the baselines&rsquo;.</p>'
        return ["<h2>By category</h2>", *_table(head, rows), note]

    def _charts(self) -> list[str]:
        lines = [Line.bare(name, curve_of(self.found, name)) for name in self.roles]
        figures = [
            f"<figure>{chart([line], line.name, 'network evaluations', first=True)}"
            f"<figcaption>{escape(line.name)} ({self.roles[line.name]})</figcaption></figure>"
            for line in lines
        ]
        return ["<h2>Against compute</h2>", *figures]

    def _pictures(self) -> list[str]:
        parts = ["<h2>Pictures</h2>"]
        for place, found in enumerate(self.found):
            unfinished = " (unfinished)" if found.interrupted else ""
            parts.append(f"<h3>{escape(found.prompt)}{unfinished}</h3>")
            parts.append('<div class="gallery">')
            parts += [self._pair(found, number) for number in range(len(found.images))]
            parts.append("</div>")
            if place < SHEETS:
                parts += self._sheets(found)
        return parts

    def _pair(self, found: Found, number: int) -> str:
        image = found.images[number]
        pictures = "".join(
            f'<img class="picture" src="{found.picture(which, number)}" alt="{which}: {called(image, which)}">'
            for which in WHICH
        )
        scores = "; ".join(
            f"{escape(name)} {image['baseline'][name]:.4g} → {image['winner'][name]:.4g}" for name in self.roles
        )
        names = " → ".join(called(image, which) for which in WHICH)
        return f'<figure><div class="pair">{pictures}</div><figcaption>{names}: {scores}</figcaption></figure>'

    @staticmethod
    def _sheets(found: Found) -> list[str]:
        pictures = [
            f'<img class="picture" src="{found.sheet(number)}" alt="candidates: {escape(", ".join(image["sheet"]))}">'
            for number, image in enumerate(found.images)
            if image["sheet"]
        ]
        return ["<details><summary>What the guide was shown</summary>", *pictures, "</details>"] if pictures else []


def called(image: dict[str, Any], which: str) -> str:
    """The baseline or the winner of an image by its number among the candidates, if it has one."""
    number = image["baseline_candidate" if which == "baseline" or image["baseline_won"] else "candidate"]
    if number is not None:
        return f"candidate {number}"
    return "plain sample" if which == "baseline" or image["baseline_won"] else "best found"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _difference(gains: list[float]) -> list[str]:
    """A mean and its interval, as cells."""
    if not gains:
        return ["", ""]
    low, high = mean_interval(gains)
    return [f"{fmean(gains):+.3g}", f"{low:+.3g} to {high:+.3g}" if isfinite(low) else ""]


def _table(head: list[str], rows: Rows) -> list[str]:
    return [
        f'<div class="scroll"><table><thead>{_row("th", head)}</thead><tbody>',
        *(_row("td", row) for row in rows),
        "</tbody></table></div>",
    ]


def _row(kind: str, cells: list[str]) -> str:
    return "<tr>" + "".join(f"<{kind}>{cell}</{kind}>" for cell in cells) + "</tr>"


def curve_of(found: list[Found], verifier: str) -> list[tuple[float, float]]:
    """Mean score of the best so far by mean NFE, from the baseline on, over the drafts that all prompts have."""
    traces = [each.trace([verifier]) for each in found]
    base = fmean(image["baseline_nfe"] for each in found for image in each.images)
    points = [(base, fmean(each.mean("baseline", verifier) for each in found))]
    nfe, scores = ([trace.by_draft(name) for trace in traces] for name in ("nfe", verifier))
    for draft in sorted(set.intersection(*(set(each) for each in scores))):
        x, y = (torch.cat([each[draft].double() for each in column]).mean() for column in (nfe, scores))
        points.append((float(x), float(y)))
    return points
