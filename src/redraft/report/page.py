"""The demo's page: one HTML file that needs nothing else, in light and dark, on a phone too."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np

from redraft.report.chart import STYLE as CHART_STYLE
from redraft.report.chart import Line, chart
from redraft.report.pictures import frames, inline, snapshots
from redraft.report.story import percent

if TYPE_CHECKING:
    from redraft.report.story import Step, Story

GALLERY = 6

STYLE = """
:root { color-scheme: light dark; --back: #fbfbfa; --text: #1d232c; --soft: #667080; --line: #dfe3e8;
  --accent: #2467ab; }
@media (prefers-color-scheme: dark) { :root { --back: #14171b; --text: #e4e7eb; --soft: #98a1ad;
  --line: #2d333b; --accent: #6fb1f2; } img.board { filter: brightness(.9); } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.15rem 3rem; max-width: 50rem; background: var(--back); color: var(--text);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.75rem; line-height: 1.2; font-weight: 650; letter-spacing: -.015em; margin: 0 0 .75rem; }
h2 { font-size: 1.1rem; font-weight: 650; margin: 2.75rem 0 .6rem; }
p { margin: .5rem 0; max-width: 40rem; }
.soft, figcaption, footer { color: var(--soft); font-size: .9rem; }
svg { display: block; width: 100%; max-width: 40rem; height: auto; }
svg text { fill: var(--soft); font-size: 12px; }
.key { display: inline-block; width: .95em; height: .95em; margin: 0 .3em 0 .1em; vertical-align: -.12em;
  border: 1px solid #b9c0ca; }
img.board { display: block; width: 100%; height: auto; border-radius: 3px; }
.player { max-width: 22rem; }
.stack { display: grid; }
.stack img { grid-area: 1 / 1; visibility: hidden; }
.stack img.on { visibility: visible; }
.controls { display: flex; gap: .75rem; align-items: center; margin-top: .6rem; }
.controls input { flex: 1; min-width: 0; accent-color: var(--accent); }
button { font: inherit; font-size: .9rem; min-width: 4.5rem; padding: .3rem .6rem; color: var(--text);
  background: none; border: 1px solid var(--line); border-radius: 6px; cursor: pointer; }
.gallery { display: grid; gap: 1.5rem 2rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); }
figure { margin: 0; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: .6rem; }
figcaption { margin-top: .35rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }
th, td { text-align: right; padding: .3rem 1rem .3rem 0; white-space: nowrap; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 500; }
@media (max-width: 30rem) {
  svg text { font-size: 16px; } table { font-size: .8rem; }
  th, td { padding-right: .55rem; } }
footer { margin-top: 3rem; padding-top: 1rem; border-top: 1px solid var(--line); overflow-wrap: anywhere; }
"""

SCRIPT = """
const pictures = [...document.querySelectorAll('.stack img')];
const [slider, caption, play] = ['slider', 'caption', 'play'].map(id => document.getElementById(id));
let timer = null;
function show(i) {
  pictures.forEach((picture, k) => picture.classList.toggle('on', k === i));
  slider.value = i; caption.textContent = pictures[i].alt;
}
function stop() { clearInterval(timer); timer = null; play.textContent = 'Play'; }
function start() {
  if (+slider.value === pictures.length - 1) show(0);
  play.textContent = 'Pause';
  timer = setInterval(() => {
    if (+slider.value < pictures.length - 1) show(+slider.value + 1);
    if (+slider.value === pictures.length - 1) stop();
  }, 900);
}
slider.addEventListener('input', () => { stop(); show(+slider.value); });
play.addEventListener('click', () => timer ? stop() : start());
document.querySelector('.controls').hidden = false;
show(0);
"""


def page(story: Story) -> str:
    """The HTML of a story with at least one draft."""
    parts = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Redraft: {escape(story.headline)}</title>",
        f"<style>{STYLE}{CHART_STYLE}</style>\n</head>\n<body>",
        *_opening(story),
        "<h2>Valid boards against compute</h2>",
        _curve(story.steps),
        '<p class="soft">Share of boards that break no rule, with its 95&nbsp;% interval (Wilson); dashed: the first '
        "draft. Every evaluation of the network is counted.</p>",
        *_player(story),
        *_gallery(story),
        *_table(story.steps),
        f"<footer>{escape(story.about)}</footer>",
        f"<script>{SCRIPT}</script>\n</body>\n</html>\n",
    ]
    return "\n".join(parts)


def _curve(steps: list[Step]) -> str:
    """The share of valid boards in per cent against compute, from the first draft that cost any."""
    low, high = zip(*(step.interval for step in steps), strict=True)
    x, share = np.array([step.nfe for step in steps]), np.array([step.share for step in steps])
    line = Line("valid", x, 100 * share, 100 * np.array(low), 100 * np.array(high))
    return chart([line], "share of valid boards in per cent", "network evaluations per board", first=True)


def _opening(story: Story) -> list[str]:
    headline = (
        escape(story.headline[0].upper() + story.headline[1:])
        .replace(" -&gt; ", "&nbsp;→&nbsp;")
        .replace(" %", "&nbsp;%")
    )
    boards, refinements = len(story.problems), story.steps[-1].number
    drafts = len(story.steps)
    early = "" if drafts == story.planned else f" Stopped early, after {drafts} of {story.planned} drafts."
    return [
        f"<h1>{headline}</h1>",
        f"<p>A diffusion model completed {boards} Sudoku boards in handwriting, then refined them "
        f"{refinements}&nbsp;times. A refinement redraws a quarter of the cells that the model drew, given all others "
        "(iterative partial refinement, arXiv&nbsp;2605.19317). Nothing tells it which cells are wrong.</p>",
        f"<p>Boards that became valid: {story.gained}. "
        f"Boards that were valid and no longer are: {story.lost}.{early}</p>",
    ]


def _key(background: str, border: str = "") -> str:
    return f'<span class="key" style="background:{background}{";border:2px solid " + border if border else ""}"></span>'


def _player(story: Story) -> list[str]:
    last, wrong = len(story.steps) - 1, [int(story.conflicts(i)[story.hero].sum()) for i in range(len(story.steps))]
    captions = [_caption(step, number) for step, number in zip(story.steps, wrong, strict=True)]
    pictures = zip(frames(story, story.hero), captions, strict=True)
    return [
        "<h2>One board, draft by draft</h2>",
        f'<p class="soft">{_key("#e5eaf1")}given {_key("#fcd9d4")}breaks a rule '
        f"{_key('#fff', '#2e7dc8')}redrawn in this refinement</p>",
        '<div class="player"><div class="stack">',
        *(_image(inline(p), c, "board on" if i == last else "board") for i, (p, c) in enumerate(pictures)),
        '</div><div class="controls" hidden><button id="play" type="button">Play</button>',
        f'<input id="slider" type="range" min="0" max="{last}" value="{last}" aria-label="draft"></div>',
        f'<p id="caption" class="soft">{captions[-1]}</p></div>',
    ]


def _image(source: str, alt: str, kind: str = "board") -> str:
    return f'<img class="{kind}" src="{source}" alt="{alt}">'


def _caption(step: Step, wrong: int) -> str:
    name = f"Refinement {step.number}" if step.number else "First draft"
    return f"{name}: {_wrong(wrong)}"


def _wrong(number: int) -> str:
    return f"{number} cells break a rule" if number else "every rule holds"


def _gallery(story: Story) -> list[str]:
    numbers, last = story.shown(GALLERY), len(story.steps) - 1
    pairs = zip(numbers, snapshots(story, 0, numbers), snapshots(story, last, numbers), strict=True)
    wrong = story.conflicts(0).sum(1).tolist(), story.conflicts(last).sum(1).tolist()
    return [
        "<h2>Before and after</h2>",
        '<p class="soft">Boards whose first draft broke a rule come first, in the order they were made, not picked by '
        "outcome.</p>",
        '<div class="gallery">',
        *(
            f'<figure><div class="pair">{_image(inline(a), "first draft")}{_image(inline(b), "last draft")}</div>'
            f"<figcaption>Board {i + 1}: {wrong[0][i]} cells that break a rule → {wrong[1][i]}</figcaption></figure>"
            for i, a, b in pairs
        ),
        "</div>",
    ]


def _table(steps: list[Step]) -> list[str]:
    names = ("draft", "valid", "95&nbsp;% interval", "violations", "NFE", "seconds")
    return [
        '<h2>All drafts</h2>\n<div class="scroll"><table><thead><tr>',
        *(f"<th>{name}</th>" for name in names),
        "</tr></thead><tbody>",
        *(_row(step) for step in steps),
        "</tbody></table></div>",
        '<p class="soft">Violations: over rows, columns, boxes and digits, the sum of |count − 1|, mean over boards. '
        "NFE: network evaluations per board. Seconds: all boards together.</p>",
    ]


def _row(step: Step) -> str:
    low, high = (100 * end for end in step.interval)
    violations = float(step.violations.double().mean())
    cells = (step.number, percent(step.share), f"{low:.0f}–{high:.0f} %", f"{violations:.1f}", f"{step.nfe:.0f}")
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in (*cells, f"{step.seconds:.1f}")) + "</tr>"
