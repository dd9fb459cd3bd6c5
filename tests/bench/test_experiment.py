"""What files say, and what is said of files that are wrong."""

import os
from pathlib import Path

import pytest
from grids import TEXT, experiment, network, text

from redraft import IPR, Generate, Unmask, preset
from redraft.bench.experiment import SHIPPED, cells, counted, load, made, outlook, spread
from redraft.bench.plain import Map, merged, read
from redraft.core.errors import RedraftError
from redraft.core.registry import MODELS
from redraft.methods.blame import Metropolis
from redraft.processes.categorical import Draw
from redraft.samplers import Preset, Sequential
from redraft.samplers.budgets import Remask
from redraft.samplers.rules import Rule
from redraft.samplers.scorers import Judge


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return network(tmp_path_factory.mktemp("net") / "tiny")


def method(**entry):
    return made(next(spread("m", Map(entry, {}), Map({"methods": {}}, {}))).method)


def test_a_grid_spans_settings_seeds_and_shards(model, tmp_path):
    found = cells(experiment(tmp_path, text(model)))
    settings = {(c.label, c.variant, c.point) for c in found}
    assert settings == {
        ("ancestral", "", "steps=2"), ("ancestral", "", "steps=4"), ("best-of-n", "", ""),
        ("ipr", "ratio=0.1", ""), ("ipr", "ratio=0.5", ""),
    }  # fmt: skip
    assert len(found) == len({c.id for c in found}) == 5 * 2 * 2
    assert {tuple(c.job["shard"]) for c in found} == {(0, 2), (2, 4)}
    assert {c.job["seed"] for c in found} == {0, 1}


def test_an_id_changes_with_every_setting_and_with_nothing_else(model, tmp_path):
    def ids(**changes):
        return {c.id for c in cells(experiment(tmp_path, text(model, **changes)))}

    first = ids()
    assert ids(**{"claim: nothing": "claim: something", "budgets: [4, 16]": "budgets: [8]"}) == first
    for old, new in {"n: 4, seed: 3": "n: 4, seed: 4", "seeds: [0, 1]": "seeds: [2]", "shard: 2": "shard: 4"}.items():
        assert ids(**{old: new}).isdisjoint(first)
    spelled = ids(**{"ipr:\n": "ipr:\n    level: 1.0\n"})  # a default, said aloud
    assert spelled == first
    assert len(ids(**{"iterations: 2": "iterations: 3"}) & first) == 12
    assert ids(**{"n: 4, seed: 3": "n: 6, seed: 3"}) > first  # more problems are more shards


def test_settings_become_the_objects_that_python_users_make():
    assert method(method="generate", sampler={"preset": "g-star+", "steps": 8, "on": 0.5}) == Generate(
        preset("g-star+", steps=8, on=0.5)
    )
    assert method(method="generate", sampler={"preset": "ancestral", "draw": {"top_p": 0.9, "nucleus": "drop"}}) == (
        Generate(preset("ancestral", draw=Draw(top_p=0.9, nucleus="drop")))
    )
    assert method(method="generate", sampler={"type": "preset", "steps": 8}) == Generate(Preset(steps=8))
    rule = {"type": "rule", "budget": {"type": "remask", "sigma": "cap", "eta": 0.02}, "scorer": {"type": "judge"}}
    mixed = Generate(Unmask(8, Rule(Remask("cap", 0.02), Judge()), on=0.55))
    assert method(method="generate", sampler={"type": "unmask", "steps": 8, "rule": rule, "on": 0.55}) == mixed
    kept = method(method="ipr", keep={"type": "metropolis", "alpha": 1}, refine={"type": "sequential", "overlap": 1.0})
    assert kept == IPR(keep=Metropolis(1.0), refine=Sequential(overlap=1.0))
    assert method(method="iterref", levels=[0.5, 0]).levels == (0.5, 0.0)


def test_a_scale_is_zipped_and_reaches_into_settings():
    entry = Map(
        {"method": "beam", "scale": {"beams": [1, 2], "sampler.steps": [4, 8]}, "sampler": {"preset": "star"}}, {}
    )
    found = [made(s.method) for s in spread("b", entry, Map({"methods": {}}, {}))]
    assert [(m.beams, m.sampler) for m in found] == [(1, preset("star", steps=4)), (2, preset("star", steps=8))]


WRONG = {
    "iterations: 2": ("iteratoins: 2", "grid.yaml:19: unknown setting of IPR 'iteratoins'; did you mean 'iterations'?"),
    "shard: 2": ("shrad: 2", "grid.yaml:7: unknown setting of Experiment 'shrad'; did you mean 'shard'?"),
    "ancestral, steps: 2}}": ("ancestrl}}", "grid.yaml:17: unknown sampler 'ancestrl'; did you mean 'ancestral'?"),
    "task: sudoku-tokens": ("task: sudokutokens", "grid.yaml:3: unknown task 'sudokutokens'"),
    "model: MODEL": ("model: sudoku-token", "grid.yaml:4: unknown model 'sudoku-token'; did you mean 'sudoku-tokens'?"),
    "verifier: violations": ("verifier: violation", "grid.yaml:5: unknown verifier 'violation'"),
    "seed: 3, ": ("sed: 3, ", "grid.yaml:6: unknown argument of 'sudoku-tokens''s problems 'sed'"),
    "[0.1, 0.5]": ("0.1", "grid.yaml:22: ratio is 0.1: a grid asks for a list of values"),
    "0.5]": ("1.5]", "ratio is 1.5: it must be a number in (0, 1]"),
    "valid: max": ("valid: up", "grid.yaml:9: the goal of 'valid' is 'up': use max or min"),
    "method: generate": ("method: genrate", "grid.yaml:14: unknown method 'genrate'; did you mean 'generate'?"),
    "baseline: ancestral": ("baseline: ancestry", "grid.yaml:11: unknown method 'ancestry'"),
    "    iterations: 2": ("    iterations: two", "grid.yaml:19: iterations is 'two': it must be a whole number"),
    "    iterations:": ("    select: blam\n    iterations:", "grid.yaml:19: unknown type 'blam'"),
    "name: tiny": ("name: tiny\nname: tinier", "grid.yaml:2: 'name' stands here a second time"),
    "seeds: [0, 1]": ("seeds: [0, 1", "this is no YAML"),
    "{n: 4, seed": ("{seed", "problems needs `n`"),
    "claim:": ("select: {seeds: [1], metric: valid}\nclaim:", "seed 1 both selects and reports"),
    "claim: ": ("select: {seeds: [7], metric: vald}\nclaim: ", "unknown metric 'vald'; did you mean 'valid'?"),
    "claim": (
        "select: {seeds: [1], metric: valid, problems: {n: 2}}\nclaim",
        "seed 1 both selects and reports",
    ),
    "n: 4, seed: 3": ("n: true, seed: 3", "grid.yaml:6: problems needs `n`"),
    "best-of-n: {n: 4,": ("best-of-n: {n: 4, verifier: violation,", "unknown verifier 'violation'"),
    "best-of-n: {": ("best-of-n: {budget: many, ", "budget is 'many': it must be a whole number"),
    "    grid: {ratio: [0.1, 0.5]}": (
        "    grid: {ratio: [0.1, 0.5]}\nsizes: {smoke: 3}",
        "sizes must be a mapping of names to what they change",
    ),
    "ratio: [0.1, 0.5]": ("ratio: [0.1, 0.1]", "'ipr' has two settings 'ratio=0.1'"),
    "metrics: {violations: min, valid: max}": ("metrics: {}", "grid.yaml:9: metrics must name one or more"),
    "model: M": ("model: []  # M", "grid.yaml:4: model must name one or more"),
    "best-of-n: {n": ("best-of-n: {budget: 0, n", "budget is 0: it must be a whole number, 1 or more"),
    "{ratio: [0.1, 0.5]}": ("{iterations.x: [1, 2]}", "grid.yaml:19: iterations is 2, which has no setting 'x'"),
    "shard: 2\n": ("media: -1\nshard: 2\n", "grid.yaml:7: media is -1: it must be 0 or more"),
    "claim: nothing": ("select: {seeds: [], metric: valid}\nclaim: nothing", "seeds must name one or more"),
    "claim: nothing in": (
        "select: {seeds: [7], metric: valid, problems: {n: x}}\nclaim: nothing in",
        "problems needs `n`, 1 or more",
    ),
    "baseline: ancestral\n": ("baseline: ipr\n", "a baseline with a grid needs `select`"),
    "shard: ": ("media: 1.5\nshard: ", "media is 1.5: it must be a whole number"),
}


@pytest.mark.parametrize("old", WRONG)
def test_what_is_wrong_is_said_in_one_sentence_with_its_line(old, tmp_path):
    new, sentence = WRONG[old]
    assert old in TEXT
    with pytest.raises(RedraftError) as caught:
        experiment(tmp_path, TEXT.replace(old, new, 1).replace("MODEL", "sudoku-tokens"))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


REFUSED = [
    ("valid: max", "nfe: min", "grid.yaml:9: 'nfe' is no metric: name those of the task, or score"),
    ("{violations: min, valid: max}", "seconds", "grid.yaml:9: 'seconds' is no metric"),
    ("{violations: min, valid: max}", "[violations, valid]", "grid.yaml:9: metrics is ['violations', 'valid']"),
    ("[4, 16]", "[0, 16]", "grid.yaml:10: budgets has 0: each must be more than 0, and finite"),
    ("[4, 16]", "[4, -5]", "grid.yaml:10: budgets has -5: each"),
    ("[4, 16]", f"[{10**400}]", "each must be more than 0, and finite"),
    ("shard", "seconds: [1, -1]\nshard", "grid.yaml:7: seconds has -1.0: each must be more than 0, and finite"),
    ("shard", "seconds: [.inf]\nshard", "grid.yaml:7: seconds has inf: each"),
    ("shard", "seconds: [nan]\nshard", "grid.yaml:7: seconds has nan: each"),
    ("name: tiny", "name: ''", "grid.yaml:1: name is '': it must be a word without slashes that begins with no dot"),
    ("name: tiny", "name: ../../evil", "grid.yaml:1: name is '../../evil': it must be"),
    ("name: tiny", "name: a/b", "grid.yaml:1: name is 'a/b': it must be"),
    ("[0, 1]", "[0, 1, 0]", "grid.yaml:8: seeds has 0 twice"),
    ("[0, 1]", f"[{2**63}]", f"grid.yaml:8: seeds has {2**63}: it must lie between -2**63 and 2**63"),
    ("shard", "select: {seeds: [7, 7], metric: valid}\nshard", "grid.yaml:7: seeds has 7 twice"),
    ("shard", "select: {seeds: [7], metric: valid, budget: 0}\nshard", "grid.yaml:7: budget is 0: it must be 1"),
    ("verifier: violations", "verifier: {name: violations, foo: 1}",
     "grid.yaml:5: unknown setting of verifier 'violations' 'foo'"),
    ("{n: 4, sa", "{n: 4, verifier: {name: violations, foo: 1}, sa",
     "grid.yaml:17: unknown setting of verifier 'violations' 'foo'"),
    ("task: sudoku-tokens", "task: {name: sudoku, mnits: x}",
     "grid.yaml:3: unknown setting of task 'sudoku' 'mnits'; did you mean 'mnist'?"),
    ("model: MODEL", "model: [python, {name: sudoku-tokens, devise: cpu}]",
     "grid.yaml:4: unknown setting of model 'sudoku-tokens' 'devise'; did you mean 'device'?"),
    ("    method: generate\n    sampler: {preset: ancestral}\n    scale: {sampler.steps: [2, 4]}", "    5",
     "grid.yaml:13: 'ancestral' must be a mapping of settings"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "sentence"), REFUSED)
def test_what_would_fail_every_cell_or_the_report_is_said_before_anything_runs(old, new, sentence, tmp_path):
    assert old in TEXT
    with pytest.raises(RedraftError) as caught:
        experiment(tmp_path, TEXT.replace(old, new, 1).replace("MODEL", "sudoku-tokens"))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_that_are_known_and_the_largest_seed_are_taken(tmp_path):
    model = "{name: sudoku-tokens, device: cpu, compile: false}"
    words = TEXT.replace("MODEL", model).replace("[0, 1]", f"[{2**63 - 1}, -1]")
    task = words.replace("task: sudoku-tokens", "task: {name: sudoku-tokens}")
    found = experiment(tmp_path, task.replace("verifier: violations", "verifier: {name: clip, device: cpu}"))
    assert found.verifier.settings == {"device": "cpu"}
    assert found.seeds == (2**63 - 1, -1)


def test_settings_that_differ_inside_a_mapping_have_names_of_their_own(tmp_path):
    grid = Map({"sampler": [{"type": "parallel", "steps": 1}, {"type": "parallel", "steps": 8}]}, {})
    found = spread("m", Map({"method": "generate", "grid": grid}, {}), Map({"methods": {}}, {}))
    assert [setting.variant for setting in found] == ["sampler=parallel(steps=1)", "sampler=parallel(steps=8)"]


def test_models_of_one_name_with_other_settings_are_two(tmp_path, model):
    models = "model: [{name: sudoku-tokens}, {name: sudoku-tokens, device: cpu}]"
    found = cells(experiment(tmp_path, TEXT.replace("model: MODEL", models)))
    assert {cell.model for cell in found} == {"sudoku-tokens", "sudoku-tokens(device=cpu)"}


def test_a_dot_reaches_into_a_word_that_stands_alone():
    entry = Map({"method": "generate", "sampler": "parallel", "scale": {"sampler.steps": [2, 3]}}, {})
    assert [made(s.method).sampler.steps for s in spread("g", entry, Map({"methods": {}}, {}))] == [2, 3]


def test_files_that_are_no_text_or_endless_are_one_sentence(tmp_path):
    (tmp_path / "latin.yaml").write_bytes("claim: caf\u00e9".encode("latin-1"))
    with pytest.raises(RedraftError, match="cannot be read"):
        read(tmp_path / "latin.yaml")
    (tmp_path / "endless.yaml").write_text("a: &a {b: *a}")
    with pytest.raises(RedraftError, match="an alias stands inside"):
        read(tmp_path / "endless.yaml")


def test_an_unknown_file_size_or_name_is_said(tmp_path):
    with pytest.raises(RedraftError, match="cannot be read"):
        load(str(tmp_path / "none.yaml"))
    with pytest.raises(RedraftError, match="unknown experiment 'ipr-sudok'; did you mean 'ipr-sudoku'"):
        load("ipr-sudok")
    with pytest.raises(RedraftError, match="unknown size 'smok'; did you mean 'smoke'"):
        load("ipr-sudoku", "smok")


def test_scalars_are_those_of_yaml_1_2(tmp_path):
    (tmp_path / "x.yaml").write_text("on: no\nx: 1e-3\ny: .inf\nz: '3'\nw: [true, null, 7]\n")
    assert read(tmp_path / "x.yaml") == {
        "on": "no", "x": 1e-3, "y": float("inf"), "z": "3", "w": [True, None, 7]
    }  # fmt: skip


def test_a_size_replaces_key_by_key():
    base, over = Map({"a": Map({"b": 1, "c": 2}, {}), "d": [1, 2]}, {}), Map({"a": Map({"c": 3}, {}), "d": [4]}, {})
    assert merged(base, over) == {"a": {"b": 1, "c": 3}, "d": [4]}


@pytest.mark.parametrize("size", ["smoke", "full"])
@pytest.mark.parametrize("name", sorted(path.stem for path in SHIPPED.glob("*.yaml")))
def test_shipped_experiments_are_sound(name, size):
    if name == "search-digits" and "digits" not in MODELS:
        pytest.skip("the model 'digits' is not in the registry")
    found = load(name, size)
    assert found.name == name == Path(name).name
    assert found.claim
    assert found.baseline in found.methods
    assert len({cell.id for cell in cells(found)}) == len(cells(found))


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)
CHAIN = "a0: &a0 x\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 3000))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (BOMB, "x.yaml: with its aliases written out it has more than 1,000,000 characters"),
        ("a: &a " + "x" * 1000 + "\nb: [" + "*a, " * 1001 + "]", "x.yaml: with its aliases written out"),
        ("a: " + "[" * 100 + "]" * 100, "x.yaml: it has more than 50 mappings and lists inside of each other"),
        ("[\n" * 3000, "x.yaml: it has more than 50 mappings and lists inside of each other"),
        (CHAIN, "x.yaml: it has more than 50 mappings and lists inside of each other"),
        ("a: &a [x, {b: *a}]", "x.yaml:1: an alias stands inside of what it stands for"),
        ("x" * 1_000_001, "x.yaml cannot be read: it has more than 1,000,000 bytes"),
        ("? [a, b]\n: 1", "x.yaml:1: a key must be a word, no list or mapping"),
    ],
)
def test_a_file_that_stands_for_too_much_is_refused_at_once(content, sentence, tmp_path):
    (tmp_path / "x.yaml").write_text(content)
    with pytest.raises(RedraftError) as caught:
        read(tmp_path / "x.yaml")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_aliases_that_are_meant_are_read(tmp_path):
    (tmp_path / "x.yaml").write_text("a: &a {b: [1, 2]}\nc: [*a, *a]\n")
    assert read(tmp_path / "x.yaml")["c"] == [{"b": [1, 2]}, {"b": [1, 2]}]


def test_what_is_no_file_keeps_no_one_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "folder.yaml").mkdir()
    for name, why in (("pipe", "Not a regular file"), ("folder", "Is a directory")):
        with pytest.raises(RedraftError, match=f"{name}.yaml cannot be read: {why}"):
            load(str(tmp_path / f"{name}.yaml"))


@pytest.mark.parametrize("change", ["a=" + "[\n" * 2000, "a=" + "[" * 100 + "]" * 100, ".".join("a" * 5000) + "=1"])
def test_a_change_that_is_too_deep_is_refused(change, tmp_path):
    (tmp_path / "grid.yaml").write_text(TEXT.replace("MODEL", "sudoku-tokens"))
    with pytest.raises(RedraftError, match="it has more than 50 mappings and lists") as caught:
        load(str(tmp_path / "grid.yaml"), changes=[change])
    assert len(str(caught.value)) < 300


def test_a_setting_of_a_grid_that_is_too_deep_is_refused(tmp_path):
    deep = TEXT.replace("{ratio: [0.1, 0.5]}", "{" + ".".join("a" * 200) + ": [1]}")
    with pytest.raises(RedraftError, match="a setting of grid has more than 50 dots"):
        experiment(tmp_path, deep.replace("MODEL", "sudoku-tokens"))


def test_cells_are_counted_as_they_are_made(model, tmp_path):
    chosen = "select: {seeds: [7, 8, 9], metric: valid, problems: {n: 3}}\nbaseline"
    for content in (text(model), text(model, **{"shard: 2": "shard: 3"}), text(model, baseline=chosen)):
        found = experiment(tmp_path, content)
        assert counted(found) == len(outlook(found, cells(found)))
    (tmp_path / "sizes.yaml").write_text(text(model) + "sizes: {less: {methods: {ipr: null}}}\n")
    assert counted(load(str(tmp_path / "sizes.yaml"), "less")) == 3 * 4


def test_a_grid_of_billions_is_counted_at_once(tmp_path):
    """It would be made for weeks."""
    grid = {name: list(range(1, 101)) for name in ("iterations", "a", "b", "c", "d")}
    deep = TEXT.replace("{ratio: [0.1, 0.5]}", str(grid)).replace("MODEL", "sudoku-tokens")
    (tmp_path / "grid.yaml").write_text(deep)
    with pytest.raises(RedraftError, match=r"^40,000,000,012 cells are many: say --yes if you mean it$"):
        load(str(tmp_path / "grid.yaml"), most=2000)
    (tmp_path / "many.yaml").write_text(TEXT.replace("n: 4,", f"n: {10**8},").replace("MODEL", "sudoku-tokens"))
    with pytest.raises(RedraftError, match=r"^500,000,000 cells are many"):
        load(str(tmp_path / "many.yaml"), most=2000)


TYPES = [
    ("difficulty: easy", "difficulty: 5", "grid.yaml:6: difficulty is 5: it must be a word"),
    ("seed: 3,", "seed: x,", "grid.yaml:6: seed is 'x': it must be a whole number"),
    ("verifier: violations", "verifier: {name: clip, frames: many}", "grid.yaml:5: frames is 'many': it must be"),
    ("task: sudoku-tokens", "task: {name: python, device: 3}", "grid.yaml:3: device is 3: it must be a word"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "sentence"), TYPES)
def test_values_of_another_type_are_said_with_their_line(old, new, sentence, tmp_path):
    assert old in TEXT
    with pytest.raises(RedraftError) as caught:
        experiment(tmp_path, TEXT.replace(old, new, 1).replace("MODEL", "sudoku-tokens"))
    assert sentence in str(caught.value)
