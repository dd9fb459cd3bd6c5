"""`redraft bench validate`: a file is checked whole before any of it runs."""

import pytest
from grids import TEXT, network, text

from redraft.bench import cell
from redraft.cli import main
from redraft.commands import bench

SIZES = "sizes: {smoke: {problems: {n: 2}, seeds: [0]}, none: {methods: {ipr: null}}}\n"


def validate(tmp_path, content, *more):
    (tmp_path / "grid.yaml").write_text(content)
    return main(["bench", "validate", str(tmp_path / "grid.yaml"), *more])


@pytest.fixture
def unloaded(monkeypatch):
    """No model may be loaded."""
    load = cell.loaded

    def refused(kind, spec):
        assert kind != "model"
        return load(kind, spec)

    for module in (cell, bench.engine):
        monkeypatch.setattr(module, "loaded", refused)


def test_every_size_is_checked_and_what_it_would_cost_is_said(unloaded, tmp_path, capsys):
    content = text("sudoku-tokens") + SIZES
    assert validate(tmp_path, content) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(" cells and about ")[0] for line in lines] == [
        "tiny, full: 20", "tiny, smoke: 5", "tiny, none: 12",
    ]  # fmt: skip
    assert all(line.endswith(" NFE") for line in lines)
    assert validate(tmp_path, content, "--size", "smoke", "--set", "shard=1", "--set", "seeds=[3, 4]") == 0
    assert capsys.readouterr().out.startswith("tiny, smoke: 20 cells")


def test_what_is_large_is_said_and_what_cannot_be_meant_is_refused(unloaded, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench, "MOST_CELLS", 19)
    assert validate(tmp_path, text("sudoku-tokens")) == 0
    assert "NFE, for which `redraft bench run` asks for --yes\n" in capsys.readouterr().out
    assert validate(tmp_path, text("sudoku-tokens", **{"n: 4,": f"n: {10**9},"})) == 2
    assert capsys.readouterr().err == "redraft: 5,000,000,000 cells are many: say --yes if you mean it\n"


def test_a_setting_that_cannot_be_is_refused_where_it_stands_in_any_size(unloaded, tmp_path, capsys):
    content = text("sudoku-tokens") + SIZES.replace("seeds: [0]", "shrad: 3")
    assert validate(tmp_path, content, "--size", "full") == 0
    assert validate(tmp_path, content) == 2
    assert "grid.yaml:23: unknown setting of Experiment 'shrad'; did you mean 'shard'?" in capsys.readouterr().err


OF_PROMPTS = "task: {name: prompts, file: FILE}\nmodel: MODEL\nverifier: cola\nproblems: {n: 40}"
OF_BOARDS = TEXT[TEXT.index("task:") : TEXT.index("\nshard")]
WRONG = [
    ("difficulty: easy", "difficulty: esy", "grid.yaml:6: unknown difficulty 'esy'"),
    (OF_BOARDS, OF_PROMPTS.replace("FILE", "none.txt"), "grid.yaml:3: none.txt cannot be read"),
    (OF_BOARDS, OF_PROMPTS.replace("FILE", "two.txt"), "grid.yaml:6: two.txt has 2 prompts and n is 40"),
    ("claim: nothing", "select: {seeds: [7], metric: valid, problems: {difficulty: hart}}\nclaim: nothing",
     "grid.yaml:2: unknown difficulty 'hart'"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "sentence"), WRONG)
def test_problems_that_cannot_be_made_are_refused_with_their_line(
    old, new, sentence, unloaded, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two.txt").write_text("one\ntwo\n")
    assert old in TEXT
    assert validate(tmp_path, TEXT.replace(old, new, 1).replace("MODEL", "sudoku-tokens")) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"redraft: {sentence}")
    assert said.count("\n") == 1


def test_a_folder_of_weights_need_not_be_read(unloaded, tmp_path):
    model = network(tmp_path / "net")
    (tmp_path / "net" / "model.safetensors").write_bytes(b"broken")
    assert validate(tmp_path, text(model)) == 0
