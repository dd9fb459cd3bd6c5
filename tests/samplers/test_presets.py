"""A published sampler by name: every setting of it, in Python, on the command line and in YAML."""

import re
from dataclasses import replace
from inspect import signature
from pathlib import Path

import pytest

import redraft
from redraft import Preset, RedraftError, preset
from redraft.bench.experiment import read
from redraft.cli import main
from redraft.core.build import Map, assigned, call
from redraft.core.registry import SAMPLERS
from redraft.methods.generate import Generate
from redraft.processes.categorical import Draw
from redraft.samplers.presets import sampler_of
from redraft.samplers.scorers import Confidence, Margin


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        (
            Preset("g-star+", 32, settings=("on=0.5", "critic=star-blocks")),
            preset("g-star+", steps=32, on=0.5, critic="star-blocks"),
        ),
        (Preset("llada", settings=("block=null", "ends_last=true")), preset("llada", block=None, ends_last=True)),
        (Preset("llada", settings=("block=16", "steps=8")), preset("llada", block=16, steps=8)),
        (Preset("remdm-cap", settings=("eta=1",)), preset("remdm-cap", eta=1.0)),
        (Preset("halton", settings=("height=4",)), preset("halton", height=4)),
        (Preset("dream", settings=("scorer=margin", "scorer.shaped=true")), preset("dream", scorer=Margin(True))),
        (
            Preset("dream", settings=("scorer.log=false", "scorer=confidence")),
            preset("dream", scorer=Confidence(log=False)),
        ),
        (
            Preset("remdm-cap", 8, 0.5, settings=("draw.nucleus=keep",)),
            preset("remdm-cap", steps=8, draw=Draw(0.5, 0.9)),
        ),
        (Preset("maskgit"), preset("maskgit")),  # its own 16 steps
    ],
)
def test_settings_are_the_preset_s_own(named, expected):
    assert sampler_of(named) == expected
    assert hash(named) == hash(Preset(named.name, named.steps, named.temperature, named.top_p, named.settings))


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_setting_can_be_said(name):
    """The default of each, spelled out, changes nothing."""
    spelled = []
    for setting, given in signature(SAMPLERS[name]).parameters.items():
        if isinstance(given.default, int | float | str | None):
            spelled.append(f"{setting}={'null' if given.default is None else given.default}")
    assert sampler_of(Preset(name, settings=tuple(spelled))) == preset(name)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (("blok=4",), "preset 'llada': 'blok'; did you mean 'block'\\? There are steps, draw, block"),
        (("confidence=4",), "preset 'llada': 'confidence'; known: block, draw, ends_last, steps"),
        (("block=wide",), "block is 'wide': it must be a whole number"),
        (("block=0",), "block is 0"),
        (("block",), "'block' is no setting: write name=value, such as block=32"),
        (("block=4", "block=8"), "'block=8' is a second value of block"),
        (("draw.nucleos=drop",), "unknown setting of Draw 'nucleos'; did you mean 'nucleus'"),
        (("draw=0.5",), "draw is 0.5: name what is to change of it"),
        (("steps=8",), "steps is given twice, as 4 and among the settings as 8"),
    ],
)
def test_what_is_no_setting_is_told(settings, words):
    with pytest.raises(RedraftError, match=words):
        Preset("llada", 4, settings=settings)
    assert Preset("llada", 4).steps == 4


def test_python_s_own_way_refuses_alike():
    with pytest.raises(RedraftError, match="unknown setting of the preset 'p2': 'etta'; did you mean 'eta'"):
        preset("p2", etta=2.0)
    with pytest.raises(RedraftError, match="unknown type 'margn'; did you mean 'Margin'"):
        Preset("dream", settings=("scorer=margn",))


def test_on_the_command_line(monkeypatch):
    asked = []
    monkeypatch.setattr(redraft, "run", lambda method, *rest, **more: asked.append(method))
    options = ["--sampler.name", "llada", "--sampler.steps", "4", "--sampler.settings", "block=8", "ends_last=true"]
    with pytest.raises(AttributeError):  # there is no result
        main(["sample", "--model", "python", "--n", "1", "generate", "sampler:preset", *options])
    assert asked == [Generate(Preset("llada", 4, settings=("block=8", "ends_last=true")))]


def test_on_the_command_line_a_wrong_one_is_one_sentence(capsys):
    options = ["sampler:preset", "--sampler.name", "threshold", "--sampler.settings", "confidense=0.9"]
    assert main(["sample", "--model", "python", "--n", "1", "generate", *options]) == 2
    assert "did you mean 'confidence'?" in " ".join(capsys.readouterr().err.split())


def test_in_yaml(tmp_path):
    (tmp_path / "one.yaml").write_text("sampler: {type: preset, name: llada, settings: [block=8, steps=4]}\n")
    assert call(Generate, read(tmp_path / "one.yaml")) == Generate(Preset("llada", settings=("block=8", "steps=4")))
    assert call(Generate, Map({"sampler": {"preset": "dream", "scorer": "margin"}}, {})) == Generate(
        preset("dream", scorer=Margin())
    )


def test_assigned_values_are_numbers_truths_nothing_or_words():
    texts = ["a=1", "b=0.5", "c=true", "d=null", "e=word", "f.g=1e-3", "f=kind"]
    assert assigned(texts) == {"a": 1, "b": 0.5, "c": True, "d": None, "e": "word", "f": {"g": 1e-3, "type": "kind"}}


def test_whether_rows_end_at_an_end_token_is_a_setting_of_every_preset():
    for name in SAMPLERS:
        assert [sampler_of(Preset(name, stop=stop)).stop for stop in (True, False)] == [True, False]
        assert preset(name).stop
        assert not preset(name, stop=False).stop
        assert replace(preset(name, stop=False), stop=True) == preset(name)


def test_the_table_in_the_docs_has_every_preset_and_no_other():
    page = (Path(__file__).parents[2] / "docs" / "samplers.md").read_text()
    assert sorted(re.findall(r"^\| `(\S+)` \|", page, re.MULTILINE)) == sorted(SAMPLERS)
