"""Rows that are kept can be grown."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from grids import experiment, network, ran, small, text

from redraft.bench.engine import status
from redraft.bench.report import report
from redraft.bench.store import Store


@pytest.fixture
def keep(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "bench")
    import keep

    return keep


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return network(tmp_path_factory.mktemp("net") / "tiny")


def test_a_folder_made_of_kept_rows_goes_on_where_they_end(keep, model, tmp_path):
    made = small(model, metrics={"violations": "min", "valid": "max"})
    store, _ = ran(made, tmp_path / "run")
    report(made, store)
    keep.keep(store.folder, tmp_path / "kept")
    keep.back(tmp_path / "again", tmp_path / "kept")
    again = Store(tmp_path / "again")
    again.open(made, "full")
    assert status(made, again).open == []
    for cell in status(made, store).cells:
        for ending in ("parquet", "seconds.parquet"):
            before, after = (pq.read_table(s.path(cell.id, ending)) for s in (store, again))
            assert after.schema.remove_metadata() == before.schema.remove_metadata()
            assert str(after.to_pylist()) == str(before.to_pylist())  # NaN where NaN was
        assert again.settings(cell.id)["truths"] == ["valid"]  # of the experiment's metrics
        assert again.settings(cell.id)["job"] == store.settings(cell.id)["job"]
    larger = small(model, metrics={"violations": "min", "valid": "max"}, problems=dict(made.problems, n=6))
    again.open(larger, "full")
    assert len(status(larger, again).open) == 2


def test_entries_that_have_changed_and_those_not_wholly_kept_are_run_again(keep, model, tmp_path):
    made = experiment(tmp_path, text(model))
    store, _ = ran(made, tmp_path / "run")
    report(made, store)
    keep.keep(store.folder, tmp_path / "kept")
    for folder, changed, open_ in (("a", (), {"best-of-n"}), ("b", ("ancestral",), {"ancestral", "best-of-n"})):
        keep.back(tmp_path / folder, tmp_path / "kept", changed)
        again = Store(tmp_path / folder)
        again.open(made, "full", force=True)
        assert {cell.label for cell in status(made, again).open} == open_


def test_cells_are_found_by_their_place_whatever_their_ids(keep, model, tmp_path, monkeypatch):
    made = small(model)
    store, _ = ran(made, tmp_path / "run")
    report(made, store)
    keep.keep(store.folder, tmp_path / "kept")
    other = small(model, problems=dict(made.problems, seed=4))  # other problems: the same places, other ids
    monkeypatch.setattr(keep, "_now", lambda about: other)
    keep.back(tmp_path / "again", tmp_path / "kept")
    again = Store(tmp_path / "again")
    again.open(other, "full", force=True)
    assert status(other, again).open == []
    assert not {cell.id for cell in status(made, store).cells} & {cell.id for cell in status(other, again).cells}


def test_settings_that_were_chosen_are_refused(keep, model, tmp_path):
    chosen = text(model) + "select: {seeds: [7], metric: violations, budget: 16}\n"
    made = experiment(tmp_path, chosen)
    store, _ = ran(made, tmp_path / "run")
    report(made, store)
    keep.keep(store.folder, tmp_path / "kept")
    with pytest.raises(SystemExit, match="not all of its rows are kept"):
        keep.back(tmp_path / "again", tmp_path / "kept")
