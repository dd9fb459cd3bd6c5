"""Rows that are kept without their cells are reported and looked at as if the cells were there."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from grids import Failing, experiment, network, ran, small, text

from redraft.bench.engine import status
from redraft.bench.kept import binary, rows_of, truths
from redraft.bench.report import report
from redraft.bench.store import Store
from redraft.cli import main
from redraft.core.errors import RedraftError

CHOSEN = "select: {seeds: [7], metric: violations, budget: 16}\n"


@pytest.fixture
def keep(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "bench")
    import keep

    return keep


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """A run of a grid, and of one with settings that are chosen, each with its report and samples."""
    folder = tmp_path_factory.mktemp("runs")
    model, found = network(folder / "tiny"), {}
    for name, shard, more in (("grid", 2, ""), ("chosen", 4, CHOSEN)):
        changes = {"claim: nothing": "media: 1\nclaim: nothing", "shard: 2": f"shard: {shard}"}
        made = experiment(folder / name, text(model, **changes) + more)
        found[name], _ = ran(made, folder / f"{name}-run")
        report(made, found[name])
    return found


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["grid", "chosen"])
def test_a_report_of_kept_rows_is_the_report_that_was_kept(name, keep, stores, tmp_path, capsys):
    """With sets and chosen settings; best-of-N, of which only the last rows are kept, included."""
    keep.keep(stores[name].folder, tmp_path / "kept")
    before = files(tmp_path / "kept")
    assert "<h2>Samples</h2>" in before[Path("index.html")].decode()
    assert "differ" in before[Path("report.md")].decode()
    assert main(["bench", "report", str(tmp_path / "kept")]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "made of kept rows: samples stay as the page showed them before"
    assert files(tmp_path / "kept") == before
    (tmp_path / "kept" / "report.md").unlink()
    assert main(["bench", "report", str(tmp_path / "kept")]) == 0
    assert files(tmp_path / "kept") == before


def test_what_raised_is_kept_too(keep, stores, tmp_path, capsys):
    made = small(str(stores["grid"].folder.parent / "tiny"), metrics={"violations": "min"})
    two = replace(made, methods={"ipr": {"initial": {"preset": "ancestral", "steps": 2}}} | made.methods)
    store, now = ran(two, tmp_path / "run", Failing("ipr"))
    report(two, store)
    keep.keep(store.folder, tmp_path / "kept")
    before = files(tmp_path / "kept")
    assert "Cells that failed" in before[Path("report.md")].decode()
    assert main(["bench", "status", str(store.folder)]) == 0
    first = capsys.readouterr().out.splitlines()
    assert first[0].startswith("4 of 8 cells done, 4 failed, 0 to do")
    assert main(["bench", "status", str(tmp_path / "kept")]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.replace("/kept/", "/run/") for line in said[1:5]] == first[1:5]
    assert main(["bench", "report", str(tmp_path / "kept")]) == 0
    assert files(tmp_path / "kept") == before
    (tmp_path / "kept" / "failed.parquet").write_bytes(b"")
    assert main(["bench", "status", str(tmp_path / "kept")]) == 2
    assert "failed.parquet is damaged: put back the file that was kept" in capsys.readouterr().err


def test_errors_that_are_no_more_are_not_kept(stores, tmp_path):
    made = small(str(stores["grid"].folder.parent / "tiny"))
    store, _ = ran(made, tmp_path, Failing("one"))
    with pytest.raises(RedraftError, match="no cell to report is done"):
        report(made, store)
    assert (tmp_path / "failed.parquet").exists()
    ran(made, tmp_path)
    report(made, store)
    assert not (tmp_path / "failed.parquet").exists()


def test_without_a_page_there_are_no_samples_to_keep(keep, stores, tmp_path):
    keep.keep(stores["grid"].folder, tmp_path / "kept")
    page = tmp_path / "kept" / "index.html"
    before = page.read_text()
    page.unlink()
    assert main(["bench", "report", str(tmp_path / "kept")]) == 0
    start, end = (before.index(f"<h2>{word}</h2>") for word in ("Samples", "Settings"))
    assert page.read_text() == before[:start] + before[end:]


@pytest.mark.parametrize("name", ["grid", "chosen"])
def test_status_says_what_is_kept(name, keep, stores, tmp_path, capsys):
    keep.keep(stores[name].folder, tmp_path / "kept")
    assert main(["bench", "status", str(stores[name].folder)]) == 0
    first = capsys.readouterr().out.partition(";")[0]
    assert main(["bench", "status", str(tmp_path / "kept")]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{first}; folder: ")
    assert "0 failed, 0 to do" in first
    rows = [len(pq.read_table(tmp_path / "kept" / f"{n}.parquet")) for n in ("rows", "candidates")]
    assert "  kept are the tables of all cells, rows ({0}), seconds ({0}), candidates ({1}); ".format(*rows) in said


def test_cells_are_found_by_their_place_and_those_that_lack_are_to_do(keep, stores, tmp_path, monkeypatch):
    keep.keep(stores["grid"].folder, tmp_path / "kept")
    for name in ("rows", "seconds"):
        table = pq.read_table(tmp_path / "kept" / f"{name}.parquet")
        least = min(table["cell"].to_pylist())
        Store(tmp_path / "kept").keep(name, table.filter(pa.compute.not_equal(table["cell"].cast("string"), least)))
    store = Store(tmp_path / "kept")
    made = experiment(tmp_path, text(str(stores["grid"].folder.parent / "tiny")))
    other = small("sudoku-tokens")  # negative control: no cell of it is kept
    now = status(made, rows_of(made, store))
    assert str(now) == "19 of 20 cells done, 0 failed, 1 to do"
    assert str(status(other, rows_of(other, store))) == "0 of 4 cells done, 0 failed, 4 to do"


def test_a_run_does_not_replace_kept_rows(keep, stores, tmp_path, capsys):
    kept = tmp_path / "kept"
    keep.keep(stores["grid"].folder, kept)
    before = files(kept)
    grid = stores["grid"].folder.parent / "grid" / "grid.yaml"
    for argv in (["run", grid, "--out", kept], ["resume", kept]):
        assert main(["bench", *map(str, argv)]) == 2
        assert f"{kept} holds kept rows without their cells" in capsys.readouterr().err
    assert {path: content for path, content in files(kept).items() if path.name != ".lock"} == before


def with_words(path):
    table = pq.read_table(path)
    pq.write_table(table.append_column("more", pa.array(["x"] * len(table))), path)


HARM = {
    "empty": lambda path: path.write_bytes(b""),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "without a column": lambda path: pq.write_table(pq.read_table(path).drop_columns(["seed"]), path),
    "of other rows": lambda path: pq.write_table(pq.read_table(path).slice(1), path),
    "of other types": with_words,
}


@pytest.mark.parametrize("name", ["rows", "seconds"])
@pytest.mark.parametrize("harm", HARM)
def test_harmed_tables_are_named(harm, name, keep, stores, tmp_path, capsys):
    keep.keep(stores["grid"].folder, tmp_path / "kept")
    path = tmp_path / "kept" / f"{name}.parquet"
    HARM[harm](path)
    for command in ("report", "status"):
        assert main(["bench", command, str(tmp_path / "kept")]) == 2
        said = capsys.readouterr().err
        assert re.search(r"(rows|seconds)\.parquet is damaged: put back the file that was kept", said)
        assert said.count("\n") == 1


def test_truths_are_told_by_the_table_or_look_so():
    table = pa.table({"a": [0.0, 1.0, None], "b": [0.0, 2.0, 1.0], "c": [1.0, 1.0, float("nan")], "n": [0, 1, 1]})
    assert truths(table) == binary(table, ["a", "b", "c", "n", "other"]) == {"a", "c"}
    said = table.replace_schema_metadata({"redraft": '{"truths": ["a", "gone"]}'})
    assert truths(said) == {"a"}
    assert truths(said, ["b", "c"]) == frozenset()


@pytest.mark.parametrize("folder", sorted(Path(__file__).parents[2].glob("bench/results/iterref-sudoku*/rows.parquet")))
def test_what_this_repository_keeps_is_read(folder, tmp_path, capsys):
    """All cells are found, though settings may have been added since."""
    for name in ("rows.parquet", "seconds.parquet", "candidates.parquet", "experiment.json"):
        shutil.copy(folder.parent / name, tmp_path)
    assert main(["bench", "status", str(tmp_path)]) == 0
    assert re.match(r"(\d+) of \1 cells done, 0 failed, 0 to do", capsys.readouterr().out)
