"""`redraft bench` from the command line: the shipped experiments at their smallest, the report, and what is refused."""

import json
import re
import sys
import types
from pathlib import Path

import pytest
from grids import Failing, contents, network, text

from redraft.bench.experiment import SHIPPED
from redraft.bench.local import Serial
from redraft.bench.store import Store
from redraft.bench.track import tracker
from redraft.cli import main
from redraft.commands import bench
from redraft.core.errors import RedraftError
from redraft.core.registry import MODELS
from redraft.models.weights import SHIPPED as WEIGHTS


@pytest.fixture
def grid(tmp_path):
    path = tmp_path / "grid.yaml"
    path.write_text(text(network(tmp_path / "tiny"), **{"claim: nothing": "media: 1\nclaim: nothing"}))
    return str(path)


def run(*argv):
    return main(["bench", *map(str, argv)])


@pytest.mark.filterwarnings("ignore:.*ended with one distinct candidate")  # boards have one solution
@pytest.mark.parametrize("name", sorted(path.stem for path in SHIPPED.glob("*.yaml") if path.stem != "safety"))
def test_shipped_experiments_run_in_their_smoke_size(name, tmp_path, capsys):
    if name == "search-digits" and ("digits" not in MODELS or not (WEIGHTS / "digits").is_dir()):
        pytest.skip("the model 'digits' is not in the registry")
    assert run("run", name, "--size", "smoke", "--out", tmp_path) == 0
    assert re.search(r"\n(\d+) of \1 cells done, 0 failed, 0 to do", capsys.readouterr().out)
    page = (tmp_path / "index.html").read_text()
    assert page.count("<svg") >= 4
    assert "<h2>Samples</h2>" in page


def test_run_status_resume_report(grid, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.setattr(bench, "Serial", lambda: Failing("ipr"))
    assert run("run", grid, "--out", out) == 1
    printed = capsys.readouterr().out
    assert "tiny: 0 of 20 cells done, 0 failed, 20 to do; 20 cells, those of settings yet to be chosen" in printed
    assert "12 of 20 cells done, 8 failed, 0 to do" in printed
    assert "Cells that failed" in (out / "report.md").read_text()
    monkeypatch.setattr(bench, "Serial", Serial)
    assert run("status", out) == 0
    printed = capsys.readouterr().out
    assert "12 of 20 cells done, 8 failed" in printed
    assert "failed: ipr, ratio=0.1; seed 0, problems 0 to 1: RedraftError: unknown difficulty 'none'" in printed
    assert run("resume", out) == 0
    assert "20 of 20 cells done, 0 failed" in capsys.readouterr().out
    (out / "index.html").unlink()
    assert run("report", out) == 0
    page, tables = (out / "index.html").read_text(), (out / "report.md").read_text()
    assert not re.search(r"https?://|src=\"(?!data:)|url\(|@import|<script", page)
    for words in ("violations at equal NFE", "valid at equal wall time", "difference from ancestral", "Ranks by"):
        assert words in page
        assert words in tables
    assert "ipr, ratio=0.5" in tables
    assert "redraft 0." in page
    assert "<pre>" in page  # boards of tokens are texts
    assert {"rows.parquet", "seconds.parquet", "candidates.parquet"} <= {path.name for path in out.iterdir()}
    row = next(line for line in tables.splitlines() if line.startswith("| best-of-n | 8 |"))
    assert re.fullmatch(r"\| best-of-n \| 8 \| [\d.]+ \| 4 \| \S+ \| -?[\d.]+ \(n < 5\) \| .*\|", row)


def test_a_grid_that_is_too_large_asks_first(grid, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench, "MOST_CELLS", 19)
    assert run("run", grid, "--out", tmp_path / "out") == 2
    said = capsys.readouterr()
    assert re.search(r"20 cells and about \d+ NFE are many: say --yes", said.err)
    assert "take about" in said.out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["run", "ipr-sudok"], "unknown experiment 'ipr-sudok'; did you mean 'ipr-sudoku'?"),
        (["run", "ipr-sudoku", "--size", "smok"], "unknown size 'smok'; did you mean 'smoke'?"),
        (["run", "ipr-sudoku", "--workers", "0"], "--workers is 0: it must be 1 or more"),
        (["run", "ipr-sudoku", "--threads", "0"], "--threads is 0: it must be 1 or more"),
        (["status", "nowhere"], "nowhere holds no experiment"),
        (["resume", "nowhere"], "nowhere holds no experiment"),
        (["run", "ipr-sudoku", "--size", "smoke", "--track", "wandb"], "wandb is not installed: pip install"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(argv, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert run(*argv) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1


def test_a_run_that_is_refused_leaves_the_folder_as_it_was(grid, tmp_path, capsys):
    out = tmp_path / "out"
    assert run("run", grid, "--out", out) == 0
    before = (out / "experiment.json").read_bytes()
    with Store(out).locked():
        Path(grid).write_text(Path(grid).read_text().replace("n: 4, seed", "n: 6, seed"))
        assert run("run", grid, "--out", out) == 2
    assert "another run, process " in capsys.readouterr().err
    assert (out / "experiment.json").read_bytes() == before


def test_a_missing_extra_is_named(grid, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert run("run", grid, "--ray", "auto", "--out", tmp_path / "out") == 2
    assert "ray is not installed: pip install 'redraft[ray]'" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert run("run", grid) == 2
    assert "yaml is not installed: pip install 'redraft[bench]'" in capsys.readouterr().err


def test_a_tracker_is_told_of_every_cell(grid, tmp_path, monkeypatch):
    told, begun, name = [], [], "trackio"
    module = types.ModuleType(name)
    module.init = lambda project: begun.append(project) or types.SimpleNamespace(log=told.append, finish=lambda: None)
    monkeypatch.setitem(sys.modules, name, module)
    assert run("run", grid, "--out", tmp_path / "out", "--track", name) == 0
    assert begun == ["tiny"]
    assert len(told) == 20
    assert told[0]["cell"] == "ancestral, steps=2; seed 0, problems 0 to 1"
    assert {"violations", "nfe", "failed"} <= {*told[0]}


def test_a_tracker_that_fails_is_not_worth_the_run(grid, tmp_path, monkeypatch):
    def log(values):
        raise ConnectionError("no network")

    module = types.ModuleType("wandb")
    module.init = lambda project: types.SimpleNamespace(log=log)
    monkeypatch.setitem(sys.modules, "wandb", module)
    with pytest.warns(UserWarning, match="the tracker failed, the run goes on without it: no network"):
        assert run("run", grid, "--out", tmp_path / "out", "--track", "wandb") == 0


def test_a_tracker_that_cannot_be_begun_is_not_worth_the_run_either(monkeypatch):
    def init(project):
        raise ConnectionError("no network")

    module = types.ModuleType("trackio")
    module.init = init
    monkeypatch.setitem(sys.modules, "trackio", module)
    with pytest.warns(UserWarning, match="the tracker trackio failed, the run goes on without it: no network"):
        assert tracker("trackio", "x") is None


def test_a_damaged_cell_is_named_and_made_again_once_deleted(grid, tmp_path, capsys):
    out = tmp_path / "out"
    assert run("run", grid, "--out", out) == 0
    (out / "cells" / ".DS_Store").write_text("no folder of cells")
    path = next(path for path in sorted((out / "cells").glob("*/*.parquet")) if path.stem.isalnum())
    path.write_bytes(path.read_bytes()[:100])
    assert run("report", out) == 2
    assert f"{path} is damaged: delete it" in capsys.readouterr().err
    path.unlink()
    assert run("resume", out) == 0


@pytest.mark.parametrize("ending", ["seconds.parquet", "candidates.parquet"])
def test_of_a_cell_that_lacks_a_file_or_has_a_damaged_one_the_metrics_are_named(ending, grid, tmp_path, capsys):
    out = tmp_path / "out"
    assert run("run", grid, "--out", out) == 0
    before = contents(Store(out))
    path = next((out / "cells").glob(f"*/*.{ending}"))
    metrics = path.with_name(path.name.replace(ending, "parquet"))
    if ending == "seconds.parquet":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:100])
    assert run("report", out) == 2
    said = capsys.readouterr().err
    assert f"{metrics} is damaged: delete it and go on with `redraft bench resume`: " in said
    assert (f"{path.name} is missing\n" in said) is (ending == "seconds.parquet")
    metrics.unlink()
    assert run("resume", out) == 0
    assert contents(Store(out)) == before


def test_a_damaged_experiment_is_named_and_the_same_command_mends_it(grid, tmp_path, capsys):
    out = tmp_path / "out"
    assert run("run", grid, "--out", out) == 0
    path, kept = out / "experiment.json", contents(Store(out))
    whole = path.read_text()
    damaged = f"{path} is damaged: delete it and start the same `redraft bench run` again; cells are kept"
    for content in (whole[:100], "{}", "[]", whole.replace('"changes": []', '"changes": 5')):
        path.write_text(content)
        for command in (["status", out], ["resume", out], ["report", out], ["run", grid, "--out", out]):
            capsys.readouterr()
            assert run(*command) == 2
            assert capsys.readouterr().err == f"redraft: {damaged}\n"
    about = json.loads(whole)
    for source, sentence in (
        ({}, f"{damaged}: Experiment needs name, task, model, methods, problems, metrics"),
        (about["source"] | {"methods": 5}, f"{damaged}: methods is 5: it must be a mapping"),
        (about["source"] | {"task": "sudokutokens"}, f"{path}: unknown task 'sudokutokens'"),
    ):
        path.write_text(json.dumps(about | {"source": source}))
        assert run("status", out) == 2
        assert sentence in capsys.readouterr().err
    path.unlink()
    assert run("run", grid, "--out", out) == 0
    assert "tiny: 20 of 20 cells done" in capsys.readouterr().out
    assert path.read_text() == whole
    assert contents(Store(out)) == kept


class Interrupted(Serial):
    """An executor during whose third cell someone presses Ctrl-C."""

    def map(self, measure, cells):
        for number, cell in enumerate(cells):
            if number == 2:
                raise KeyboardInterrupt
            yield measure(cell)


def test_after_ctrl_c_it_says_how_to_go_on(grid, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.setattr(bench, "Serial", Interrupted)
    assert run("run", grid, "--out", out) == 130
    said = capsys.readouterr().err
    assert f"what was finished is kept: the same command, or `redraft bench resume {out}`, goes on\n" in said
    monkeypatch.setattr(bench, "Serial", Serial)
    assert run("resume", out) == 0
    assert "tiny: 2 of 20 cells done" in capsys.readouterr().out


def test_a_tracker_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(RedraftError, match=r"trackio is not installed: pip install 'redraft\[trackio\]'"):
        tracker("trackio", "x")


def test_a_report_of_nothing_and_of_an_unknown_metric_is_refused(grid, tmp_path, capsys):
    out = tmp_path / "out"
    assert run("run", grid, "--out", out) == 0
    (tmp_path / "grid.yaml").write_text((tmp_path / "grid.yaml").read_text().replace("valid: max", "vald: max"))
    assert run("run", grid, "--out", out) == 2
    assert "unknown metric 'vald'; did you mean 'valid'?" in capsys.readouterr().err
    for path in [*(out / "cells").glob("*/*"), out / "rows.parquet"]:
        path.unlink()
    assert run("report", out) == 2
    assert "no cell to report is done" in capsys.readouterr().err
