"""Names are found lazily, and the nearest is suggested for those that are not."""

import sys

import pytest
import torch

from redraft import Preset, RedraftError, Unmask, load_model, load_task, load_verifier, preset
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


PACKAGE = """
import redraft
from toys import Toy


class Named(Toy):
    name = "named"

    def __init__(self, regions=6, device="cpu"):
        super().__init__(regions)
        self.device = device

    @classmethod
    def load(cls, folder, device, compile):
        return cls(regions=5)


def needy(width):
    return Named(width)


def nothing():
    return None


class Tens:
    name = "tens"

    def __init__(self, most):
        self.most = most


def least(task, scale=1.0):
    return lambda samples, problems: scale * samples.flatten(1).amin(1)


class Methods:
    class Again(redraft.Generate):
        pass


def slow(steps=9):
    return redraft.Unmask(steps)


def wrong(steps=9):
    return redraft.Parallel(steps)
"""
POINTS = """
[redraft.models]
named = added_parts:Named
needy = added_parts:needy
nothing = added_parts:nothing
sudoku = added_parts:Named
broken = added_parts:absent
[redraft.tasks]
tens = added_parts:Tens
[redraft.verifiers]
least = added_parts:least [extra]
[redraft.methods]
again = added_parts:Methods.Again
[redraft.samplers]
slow = added_parts:slow
wrong = added_parts:wrong
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Another package whose entry points add parts."""

    def install(name, points):
        folder = tmp_path / f"{name}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(points)

    (tmp_path / "added_parts.py").write_text(PACKAGE)
    install("added", POINTS)
    monkeypatch.syspath_prepend(tmp_path)
    yield install
    sys.modules.pop("added_parts", None)


def test_parts_of_another_package_are_loaded_by_their_names(installed, tmp_path):
    model = load_model("named")
    assert (type(model).__name__, model.shape, model.device) == ("Named", (6, 2), "cpu")
    assert load_model("named", device="meta", regions=4).device == "meta"
    (tmp_path / "config.json").write_text('{"model": "named"}')
    assert load_model(tmp_path).shape == (5, 2)
    assert load_task("tens", most=10).most == 10
    samples = torch.tensor([[1.0, 2.0], [4.0, 3.0]])
    assert load_verifier("least", task="any", scale=2.0)(samples, None).tolist() == [2, 6]
    assert METHODS["again"]().total() == 1
    assert preset("slow", steps=4) == Unmask(4)
    assert Preset("slow", 5).nfe(torch.tensor([3])) == 5
    assert {"named", "sudoku"} < set(MODELS)


@pytest.mark.parametrize(
    ("load", "sentence"),
    [
        (lambda: load_model("needy"), "model 'needy' needs width: give load_model.'needy', width=...."),
        (lambda: load_model("needy", wide=3), "unknown setting of model 'needy' 'wide'; did you mean 'width'"),
        (
            lambda: load_model("needy", width=3, compile=True),
            "model 'needy' 'compile'; known: width",
        ),
        (lambda: load_model("nothing"), "'nothing' gave None, where a model is asked for"),
        (lambda: load_model("broken"), "the model 'broken', added_parts:absent of another package, cannot be imported"),
        (lambda: load_model("name"), "unknown model 'name'; did you mean 'named'"),
        (lambda: load_task("tens"), "task 'tens' needs most: give load_task.'tens', most=..."),
        (lambda: preset("wrong"), "the sampler 'wrong' gave a value of type Parallel, where an Unmask is asked for"),
        (lambda: Preset("wrong"), "the sampler 'wrong' gave a value of type Parallel, where an Unmask is asked for"),
    ],
)
def test_parts_of_another_package_that_cannot_be_made_are_one_sentence(installed, load, sentence):
    with pytest.raises(RedraftError, match=sentence):
        load()


def test_a_name_that_ships_stays_ours(installed):
    assert MODELS["sudoku"].__module__ == "redraft.models.sudoku"
    assert load_model("sudoku", device="cpu").shape != (6, 2)


def test_a_name_that_two_packages_give_is_refused_and_one_that_is_found_twice_is_not(installed):
    installed("twin", "[redraft.models]\nnamed = twin:Named\n[redraft.tasks]\ntens = added_parts:Tens\n")
    with pytest.raises(RedraftError, match="several packages give a model 'named': (twin:|added_parts:)Named and "):
        load_model("named")
    assert load_task("tens", most=3).most == 3


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
