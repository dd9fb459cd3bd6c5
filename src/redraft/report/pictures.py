"""Boards as pictures: red where a rule is broken, tinted where a cell was given, framed where it was just redrawn."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from redraft.core.errors import require

if TYPE_CHECKING:
    from redraft.report.story import Story

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

CELL, MARGIN = 36, 3  # pixels of a cell, and of them around its digit
THIN, THICK = 1, 3  # pixels of the lines between cells and around boxes
PAPER, GIVEN, WRONG = (255, 255, 255), (229, 234, 241), (252, 217, 212)  # backgrounds
INK, RED = (24, 30, 40), (190, 30, 25)
FRAME = (46, 125, 200)  # around cells that were just redrawn
LINE, BOX = (205, 211, 219), (60, 68, 80)


def board_picture(board: Floats, given: Mask, wrong: Mask, redrawn: Mask | None = None) -> Pixels:
    """A board's picture (H, W, 3).

    Args:
        board: cells (81, side, side) in [-1, 1], -1 the background.
        given: cells (81,) to tint.
        wrong: cells (81,) to mark red.
        redrawn: cells (81,) to frame.
    """
    ink = _ink(board)[..., None]
    cells = ink * _colours(wrong, RED, INK) + (1 - ink) * _paper(given, wrong)
    if redrawn is not None:
        _frame(cells, redrawn)
    return _assembled(cells.round().astype(np.uint8))


def frames(story: Story, number: int) -> Iterator[Pixels]:
    """Board `number` in every draft of the story, with what each refinement redrew framed."""
    given = story.problems.frozen[number].numpy()
    for i, step in enumerate(story.steps):
        wrong, redrawn = story.conflicts(i)[number], story.redrawn(i)[number]
        yield board_picture(step.samples[number].numpy(), given, wrong.numpy(), redrawn.numpy())


def snapshots(story: Story, step: int, numbers: list[int]) -> Iterator[Pixels]:
    """The boards `numbers` in one draft."""
    wrong = story.conflicts(step)
    for number in numbers:
        board, given = story.steps[step].samples[number], story.problems.frozen[number]
        yield board_picture(board.numpy(), given.numpy(), wrong[number].numpy())


def png(picture: Pixels, colours: int | None = 64) -> bytes:
    """A PNG file of a picture (H, W, 3), in a few colours or, for None, in all of them."""
    pil = require("PIL.Image", extra="plot")
    image = pil.fromarray(picture)
    if colours:
        image = image.quantize(colours, pil.Quantize.MAXCOVERAGE, dither=pil.Dither.NONE)
    file = io.BytesIO()
    image.save(file, "PNG", optimize=bool(colours))
    return file.getvalue()


def inline(picture: Pixels) -> str:
    """The picture as an address that holds it."""
    return "data:image/png;base64," + base64.b64encode(png(picture)).decode()


def _ink(board: Floats) -> Floats:
    """How dark each pixel of the enlarged cells is, (81, CELL, CELL) in [0, 1]."""
    image = require("PIL.Image", extra="plot")
    size = (CELL - 2 * MARGIN,) * 2
    cells = [image.fromarray(cell).resize(size, image.Resampling.BICUBIC) for cell in board.astype(np.float32)]
    ink: Floats = np.clip((np.stack(cells) + 1) / 2, 0, 1)
    return np.pad(ink, ((0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN)))


def _colours(where: Mask, yes: tuple[int, ...], no: tuple[int, ...]) -> Floats:
    """A colour for each cell, (81, 1, 1, 3)."""
    colours: Floats = np.where(where[:, None, None, None], np.array(yes, np.float32), np.array(no, np.float32))
    return colours


def _paper(given: Mask, wrong: Mask) -> Floats:
    """Backgrounds (81, 1, 1, 3); a given cell that clashes has both tints."""
    marked = _colours(wrong, WRONG, PAPER)
    return marked * _colours(given, GIVEN, PAPER) / np.float32(255)


def _frame(cells: Floats, redrawn: Mask, width: int = 2) -> None:
    """Frame the cells (81, CELL, CELL, 3) that were redrawn, in place."""
    edge = np.ones((CELL, CELL), dtype=bool)
    edge[width:-width, width:-width] = False
    cells[redrawn[:, None, None] & edge] = FRAME


def _start(line: int) -> int:
    """The pixel at which a row or column of cells starts."""
    return THICK + line * (CELL + THIN) + line // 3 * (THICK - THIN)


def _assembled(cells: Pixels) -> Pixels:
    """The board (H, W, 3) of cells (81, CELL, CELL, 3) between their lines."""
    size = _start(8) + CELL + THICK
    picture = np.full((size, size, 3), BOX, dtype=np.uint8)
    for top in map(_start, (0, 3, 6)):
        for left in map(_start, (0, 3, 6)):
            picture[top : top + 3 * CELL + 2 * THIN, left : left + 3 * CELL + 2 * THIN] = LINE
    for i, cell in enumerate(cells):
        top, left = _start(i // 9), _start(i % 9)
        picture[top : top + CELL, left : left + CELL] = cell
    return picture


# --- One picture of it all ----------------------------------------------------------------------


def overview(story: Story) -> bytes:
    """A PNG file: one board before and after, and the curve of all boards."""
    figure = require("matplotlib.figure", extra="plot").Figure(figsize=(11, 3.9), dpi=160, layout="constrained")
    before, after, curve = figure.subplots(1, 3, width_ratios=(1, 1, 1.25))
    for axes, step in ((before, 0), (after, len(story.steps) - 1)):
        _show(axes, story, step)
    _curve(curve, story)
    canvas = require("matplotlib.backends.backend_agg", extra="plot").FigureCanvasAgg(figure)
    canvas.draw()
    return png(np.asarray(canvas.buffer_rgba())[..., :3].copy(), colours=128)


def _show(axes: Any, story: Story, step: int) -> None:
    axes.imshow(next(snapshots(story, step, [story.hero])), interpolation="antialiased")
    number = int(story.conflicts(step)[story.hero].sum())
    refinements = story.steps[step].number
    title = f"after {refinements} refinements" if refinements else "first draft"
    axes.set_title(title, fontsize=12)
    axes.set_xlabel(f"{number} cells break a rule" if number else "every rule holds", fontsize=11)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _curve(axes: Any, story: Story) -> None:
    nfe, shares = [step.nfe for step in story.steps], [100 * step.share for step in story.steps]
    low, high = zip(*([100 * end for end in step.interval] for step in story.steps), strict=True)
    colour = tuple(value / 255 for value in FRAME)
    axes.fill_between(nfe, low, high, color=colour, alpha=0.18, linewidth=0)
    axes.plot(nfe, shares, color=colour, marker="o", markersize=3.5, clip_on=False, zorder=3)
    axes.set(xlim=(0, None), ylim=(0, 100))
    axes.set_xlabel("network evaluations per board", fontsize=11)
    axes.set_title(f"valid boards in %, of {len(story.problems)} (95 % interval)", fontsize=12)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)
