"""Sets of samples are those that each method has within a budget."""

import pyarrow as pa
import pyarrow.compute  # noqa: F401 - pa.compute
import pyarrow.parquet as pq
import pytest
import torch
from grids import experiment, network, ran, text

import redraft
from redraft.bench.cell import parquet
from redraft.bench.curves import curves
from redraft.bench.report import report
from redraft.bench.sets import measured


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return network(tmp_path_factory.mktemp("net") / "tiny")


@pytest.fixture(scope="module")
def grid(model, tmp_path_factory):
    return experiment(tmp_path_factory.mktemp("file"), text(model))


@pytest.fixture(scope="module")
def store(grid, tmp_path_factory):
    return ran(grid, tmp_path_factory.mktemp("run"))[0]


def cells_of(store, grid, label):
    from redraft.bench.engine import status

    return [cell for cell in status(grid, store).cells if cell.label == label]


def test_the_samples_of_every_draft_are_kept(grid, store):
    task = redraft.load_task("sudoku-tokens")
    for cell in cells_of(store, grid, "ipr"):
        rows = pq.read_table(store.path(cell.id, "parquet"))
        kept = pq.read_table(store.path(cell.id, "samples.parquet"))
        for name in ("problem", "draft"):
            assert kept[name].equals(rows[name])
        problems = task.problems(4, 3, difficulty="easy")
        which = torch.searchsorted(problems.ids, torch.tensor(kept["problem"].to_pylist()))
        scores = task.evaluate(torch.tensor(kept["sample"].to_pylist()), problems[which])
        assert scores["violations"].tolist() == rows["violations"].to_pylist()


def test_a_set_is_of_the_last_samples_within_the_budget(grid, store):
    task = redraft.load_task("sudoku-tokens")
    problems = task.problems(4, 3, difficulty="easy")
    cells = cells_of(store, grid, "ancestral")
    tables = store.read(cells)
    budgets = [1, 2, 16]
    (curve,) = curves(tables)
    found = measured(grid, tables, budgets)
    reached = [b for b in budgets if (curve.rows_within("nfe", [b]) >= 0).all()]
    assert [row["budget"] for row in found] == reached
    assert reached[-1] == 16
    ends = [cell for cell in cells if cell.point == "steps=4"]
    samples = {seed: [] for seed in (0, 1)}
    for cell in ends:
        samples[cell.job["seed"]] += pq.read_table(store.path(cell.id, "samples.parquet"))["sample"].to_pylist()
    both = torch.tensor(samples[0] + samples[1])
    wanted = task.evaluate_set(both, type(problems).cat([problems, problems]))
    assert wanted["differ"] > 0
    assert found[-1] == {
        "method": "ancestral", "budget": 16, "samples": 8, "metric": "differ", "value": wanted["differ"]
    }  # fmt: skip


def test_the_report_shows_and_keeps_them(grid, store):
    report(grid, store)
    said = (store.folder / "report.md").read_text()
    assert "## violations at equal NFE and verifier calls together" in said
    table = said.split("## Quality and diversity at 16 NFE")[1].split("\n\n")[1]
    assert table.splitlines()[0] == "| method | violations | valid | differ |"
    kept = pq.read_table(store.folder / "sets.parquet").to_pylist()
    values = {row["method"]: row["value"] for row in kept if row["budget"] == 16}
    assert {line.split(" | ")[0][2:]: line.split(" | ")[-1][:-2] for line in table.splitlines()[2:]} == {
        name: f"{value:.3g}" for name, value in values.items()
    }
    assert len(values) == 4  # two settings of IPR


def test_units_without_samples_are_left_out_for_all_methods(grid, store):
    cells = [*cells_of(store, grid, "ancestral"), *cells_of(store, grid, "ipr")]
    tables = store.read(cells)
    whole = measured(grid, tables, [16])
    shard = cells[0].job["shard"]
    assert 0 < shard[1] - shard[0] < 4
    fewer = [row != cells[0].id for row in tables["samples"]["cell"].to_pylist()]
    some = measured(grid, tables | {"samples": tables["samples"].filter(pa.array(fewer))}, [16])
    assert [row["method"] for row in some] == [row["method"] for row in whole]
    assert {row["samples"] for row in whole} == {8}
    assert {row["samples"] for row in some} == {8 - (shard[1] - shard[0])}
    assert measured(grid, tables | {"samples": pa.table({})}, [16]) == []
    assert measured(grid, tables | {"samples": tables["samples"].slice(0, 2)}, [16]) == []


def test_methods_that_kept_no_samples_have_what_was_measured_before(grid, store):
    cells = [*cells_of(store, grid, "ancestral"), *cells_of(store, grid, "ipr")]
    tables = store.read(cells)
    whole = measured(grid, tables, [16])
    ipr = pa.array([cell.id for cell in cells if cell.label == "ipr"])
    theirs = pa.compute.is_in(tables["samples"]["cell"].cast("string"), value_set=ipr)
    some = tables | {"samples": tables["samples"].filter(theirs)}
    alone = [row for row in whole if row["method"] != "ancestral"]
    assert measured(grid, some, [16]) == alone
    assert sorted(measured(grid, some, [16], whole), key=str) == sorted(whole, key=str)
    of_fewer = [row | {"samples": 3} for row in whole]
    assert measured(grid, some, [16], of_fewer) == alone  # what is said of a set depends on its size


def test_a_parquet_column_may_be_of_rows():
    table = pq.read_table(pa.BufferReader(parquet({"sample": torch.arange(6).reshape(2, 3), "nfe": torch.ones(2)}, {})))
    assert table["sample"].to_pylist() == [[0, 1, 2], [3, 4, 5]]
