"""Names are found lazily, and the nearest is suggested for those that are not."""

import sys

import pytest

from redraft import RedraftError, load_model, load_task
from redraft.core import registry
from redraft.core.registry import METHODS, MODELS, TASKS, Registry


def test_an_unknown_name_suggests_the_nearest():
    for load in (load_model, load_task):
        with pytest.raises(RedraftError, match="unknown (model|task) 'sodoku'; did you mean 'sudoku'"):
            load("sodoku")
    with pytest.raises(RedraftError, match="unknown method 'ip'; did you mean 'ipr'"):
        METHODS["ip"]


def test_a_name_like_no_other_lists_the_known_ones():
    known = Registry("model", {"b": "m:b", "a": "m:a"})
    with pytest.raises(RedraftError, match="unknown model 'zzzz'; known: a, b"):
        known["zzzz"]
    assert list(known) == ["a", "b"]
    assert len(known) == 2


def test_every_shipped_name_can_be_imported():
    for names in (MODELS, TASKS, METHODS):
        for name in names:
            assert callable(names[name])


def test_nothing_is_imported_before_it_is_asked_for():
    lazy = Registry("method", {"zen": "colorsys:hls_to_rgb"})
    sys.modules.pop("colorsys", None)
    assert "zen" in list(lazy)
    assert "colorsys" not in sys.modules
    assert lazy["zen"](0, 0, 0) == (0, 0, 0)


def test_entry_points_add_names_but_replace_none(monkeypatch):
    class Point:
        def __init__(self, name):
            self.name, self.value = name, "math:pi"

    asked = []

    def points(group):
        asked.append(group)
        return [Point("extra"), Point("own")]

    monkeypatch.setattr(registry, "entry_points", points)
    names = Registry("task", {"own": "math:e"})
    assert list(names) == ["extra", "own"]
    assert names["extra"] == pytest.approx(3.14159, abs=1e-5)
    assert names["own"] == pytest.approx(2.71828, abs=1e-5)
    assert set(asked) == {"redraft.tasks"}
