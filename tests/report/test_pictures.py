import io
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from redraft.core.trace import Trace
from redraft.report.chart import Line, _powers, _round, chart, figure
from redraft.report.page import page
from redraft.report.pictures import CELL, FRAME, PAPER, _start, board_picture, frames, overview, png, snapshots
from redraft.report.story import Story
from redraft.tasks.sudoku import Sudoku

SIZE = _start(8) + CELL + 3
NONE = np.zeros(81, dtype=bool)


def only(cell):
    return np.arange(81) == cell


def at(picture, cell):
    top, left = _start(cell // 9), _start(cell % 9)
    return picture[top : top + CELL, left : left + CELL]


def story_of(task, problems, *drafts):
    story, trace = Story(task, problems, planned=len(drafts)), Trace()
    for number, samples in enumerate(drafts):
        n = len(problems)
        columns = {"draft": torch.full((n,), number), "nfe": torch.full((n,), 10 * number + 20)}
        metrics = task.evaluate(samples, problems)
        trace.append(**columns, seconds=torch.full((n,), float(number), dtype=torch.float64), **metrics)
        story.add(samples, trace)
    return story


@pytest.fixture(scope="module")
def story():
    """Two full boards: the first with two cells exchanged, then right; the second right throughout."""
    task = Sudoku()
    right = task.problems(2, difficulty="corrupted", swaps=0)
    wrong = right.x.clone()
    wrong[0, [0, 40]] = wrong[0, [40, 0]]
    boards, _ = task.read(right.x)
    assert boards[0, 0] != boards[0, 40]
    return story_of(task, right, wrong, right.x)


@pytest.mark.parametrize("side", [8, 28])
def test_a_picture_is_a_square_of_bytes(side):
    picture = board_picture(np.full((81, side, side), -1.0), NONE, NONE)
    assert picture.shape == (SIZE, SIZE, 3)
    assert picture.dtype == np.uint8
    assert (at(picture, 80) == PAPER).all()
    assert np.asarray(Image.open(io.BytesIO(png(picture))).convert("RGB")).shape == picture.shape


@pytest.mark.parametrize("mark", ["given", "wrong", "redrawn"])
@pytest.mark.parametrize("cell", [0, 13, 80])
def test_a_mark_changes_its_cell_and_no_other(mark, cell):
    board = np.random.default_rng(0).uniform(-1, 1, (81, 8, 8))
    plain = {"given": NONE, "wrong": NONE, "redrawn": NONE}
    before, after = board_picture(board, **plain), board_picture(board, **plain | {mark: only(cell)})
    changed = [i for i in range(81) if (at(before, i) != at(after, i)).any()]
    assert changed == [cell]
    at(after, cell)[:] = at(before, cell)
    assert (before == after).all()


def test_only_conflicts_are_red(story):
    conflicts = story.conflicts(0)[0]
    assert conflicts[[0, 40]].all()
    picture = next(snapshots(story, 0, [0])).astype(int)
    red = [bool((at(picture, i)[..., 0] > at(picture, i)[..., 1] + 20).any()) for i in range(81)]
    assert red == conflicts.tolist()
    for number in (0, 1):  # negative control: nothing is red where nothing is wrong
        picture = next(snapshots(story, 1, [number])).astype(int)
        assert not (picture[..., 0] > picture[..., 1] + 20).any()


def test_frames_outline_what_was_redrawn(story):
    first, second = frames(story, 0)
    assert story.redrawn(1)[0].nonzero()[:, 0].tolist() == [0, 40]
    outlined = [i for i in range(81) if (at(second, i)[0] == FRAME).all()]
    assert outlined == [0, 40]
    assert not (first == FRAME).all(-1).any()


def test_the_storys_figures(story):
    assert story.headline == "invalid boards: 50 % -> 0 %"
    assert (story.gained, story.lost, story.hero) == (1, 0, 0)
    assert story.shown(6) == [0, 1]
    assert [step.nfe for step in story.steps] == [20, 30]


def test_the_curve_has_a_dot_for_each_draft(story):
    found = page(story)
    assert found.count('class="dot"') == 2
    assert "valid: 100 at 30" in found


@pytest.mark.parametrize("most", [1.1, 3, 9, 24.9, 85, 213, 720, 2400, 99_999])
def test_ticks_are_few_and_round(most):
    budgets, values = _powers(1.0, most), _round(0.0, most)
    assert 2 <= len(budgets) <= 9
    assert 2 <= len(values) <= 8
    assert budgets[-1] <= most * 1.001
    assert values[-1] <= most
    assert np.allclose(np.diff(values), values[1] - values[0])


def test_a_chart_leaves_out_what_is_unknown_and_dashes_what_comes_first():
    bare = Line.bare("a", [(0.0, 9.0), (10.0, 1.0), (100.0, 3.0)])
    lone = chart([bare], "value", "NFE", first=True)
    assert lone.count('class="dot"') == 2
    assert "legend" not in lone
    dashed = lone.split('class="first" points="')[1].split('"')[0].split()
    across, down = lone.split('class="dot" transform="translate(')[1].split(")")[0].split(",")
    assert dashed[0] == f"{across},{down}"
    assert dashed[1].split(",")[1] == down
    two = chart([bare, Line.bare("<b>", [(10.0, np.nan)]), Line.bare("c", [(10.0, 2.0)])], "value", "NFE")
    assert two.count("<span") == 2
    assert "first" not in two
    assert "No draft" in chart([Line.bare("b", [(10.0, np.nan)])], "value", "NFE")


def test_overview_is_a_wide_picture(story):
    width, height = Image.open(io.BytesIO(overview(story))).size
    assert width > 2 * height > 800


def test_the_page_escapes_what_it_is_told(story):
    story.about = "<script>alert(1)</script>"
    assert story.about not in page(story)


def test_a_figure_is_a_file_of_its_own_with_all_within_its_paper():
    lines = [Line.bare(f"method <{i}>", [(10.0, i), (100.0, i + 1.0)]) for i in range(5)]
    root = ElementTree.fromstring(figure(lines, "valid", "NFE"))
    name = "{http://www.w3.org/2000/svg}"
    paper = root.find(f"{name}rect").attrib
    assert root.attrib["viewBox"] == f"0 {paper['y']} {paper['width']} {paper['height']}"
    bottom = int(paper["y"]) + int(paper["height"])
    keys = [group for group in root.iter(f"{name}g") if "transform" in group.attrib]
    assert [key.find(f"{name}text").text for key in keys] == [line.name for line in lines]
    for key in keys:
        across, down = key.attrib["transform"].removeprefix("translate(").rstrip(")").split()
        assert 0 < int(across) < int(paper["width"])
        assert 300 < int(down) < bottom
    assert len([path for path in root.iter(f"{name}path") if path.attrib["class"] == "dot"]) == 10 + 5
    with pytest.raises(ElementTree.ParseError):  # negative control: names are escaped
        ElementTree.fromstring(figure(lines, "valid", "NFE").replace("&lt;", "<"))


def test_forty_methods_are_told_apart_without_colour_and_each_by_its_name_in_the_legend():
    drawn = chart([Line.bare(f"m{i}", [(10.0, i), (20.0, i)]) for i in range(40)], "valid", "NFE")
    root = ElementTree.fromstring(drawn.split("<p ")[0] + "</div>")
    lines = [group for group in root.iter("g") if "class" in group.attrib]
    looks = [(line.attrib["style"], {path.attrib["d"] for path in line.iter("path")}) for line in lines]
    assert all(len(markers) == 1 for _, markers in looks)
    apart = {(style.split("--dash:")[1], *markers) for style, markers in looks}
    assert len(apart) == len(lines) == 40
    colours = {(style.split(";")[0], *markers) for style, markers in looks}
    assert len(colours) == 40  # where a line is a single point there are no dashes to see
    legend = ElementTree.fromstring("<p " + drawn.split("<p ")[1].removesuffix("</div>"))
    for key, line, (style, (marker,)) in zip(legend, lines, looks, strict=True):
        svg = key.find("svg")
        assert key.attrib["class"] == line.attrib["class"]
        assert svg.attrib["style"] == style
        assert svg.findall("path")[1].attrib["d"] == marker


def test_where_there_is_no_interval_no_band_is_drawn():
    x, none = np.array([1.0, 10.0, 100.0]), np.full(3, np.nan)
    assert "band" not in chart([Line("a", x, x, none, none)], "value", "NFE")
    some = chart([Line("a", x, x, np.array([np.nan, 9.0, 90.0]), np.array([np.nan, 11.0, 110.0]))], "value", "NFE")
    (band,) = some.split('class="band" points="')[1:]
    assert len(band.split('"')[0].split()) == 4
    assert "nan" not in some
