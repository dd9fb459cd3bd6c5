"""Cells under way are told, with how long and by whom; what a run that was killed left behind is not."""

import json
import os
import platform
import subprocess
import sys
import time

import pytest
from grids import network, ran, small

from redraft.bench.cell import Measure
from redraft.bench.local import Serial
from redraft.bench.running import FOLDER, Note, at_work, noted, notes, under_way
from redraft.bench.store import Store
from redraft.cli import main


class Looking(Serial):
    """An executor that asks for the status while a cell is measured."""

    def map(self, measure, cells):
        for cell in cells:
            with noted(measure.notes, cell.id):
                assert main(["bench", "status", str(measure.notes.parent)]) == 0
            yield measure(cell)


def test_status_tells_which_cells_are_under_way(tmp_path, capsys):
    made = small(network(tmp_path / "net"))
    store, now = ran(made, tmp_path / "run", Looking())
    said = [line for line in capsys.readouterr().out.splitlines() if "under way" in line]
    whom = f"for 0 s, by process {os.getpid()} on {platform.node()}"
    assert said == [f"  under way: {cell.words}: {whom}" for cell in now.cells]
    assert not (store.folder / FOLDER).exists()
    assert main(["bench", "status", str(store.folder)]) == 0
    assert "under way" not in capsys.readouterr().out


def test_a_worker_notes_its_cell_while_it_runs_and_though_it_raises(tmp_path, monkeypatch):
    made = small(network(tmp_path / "net"))
    seen = []

    def measured(cell):
        seen.extend(path.stem for path in tmp_path.glob("*.json"))
        raise ValueError("no")

    monkeypatch.setattr("redraft.bench.cell._measured", measured)
    from redraft.bench.experiment import cells

    cell = cells(made)[0]
    assert Measure(1, tmp_path)(cell).error == "ValueError: no"
    assert seen == [cell.id]
    assert not [*tmp_path.glob("*.json")]
    assert Measure(1, tmp_path / "on another node")(cell).error == "ValueError: no"


def test_without_a_run_nothing_is_under_way(tmp_path):
    store = Store(tmp_path)
    (tmp_path / FOLDER).mkdir()
    note = {"host": platform.node(), "process": os.getpid(), "since": time.time() - 3700}
    (tmp_path / FOLDER / "aa.json").write_text(json.dumps(note))
    assert not at_work(tmp_path)
    with store.locked():
        assert at_work(tmp_path)
        assert [str(each) for each in under_way(tmp_path)] == [
            f"for 1 h 1 min, by process {os.getpid()} on {platform.node()}"
        ]
        ended = subprocess.Popen([sys.executable, "-c", ""])
        ended.wait()
        (tmp_path / FOLDER / "bb.json").write_text(json.dumps(note | {"process": ended.pid}))
        (tmp_path / FOLDER / "cc.json").write_text(json.dumps(note | {"host": "elsewhere", "since": 0}))
        os.mkfifo(tmp_path / FOLDER / "dd.json")
        for name, content in {"ee": "", "ff": "[]", "gg": '{"host": 1, "process": "x"}', "hh": "[" * 5000}.items():
            (tmp_path / FOLDER / f"{name}.json").write_text(content)
        assert [each.cell for each in under_way(tmp_path)] == [
            "cc",
            "aa",
        ]  # the longest first, no dead and no garbled ones
        with notes(tmp_path):
            assert under_way(tmp_path) == []  # a run begins with none
    assert under_way(tmp_path) == []


@pytest.mark.parametrize(("seconds", "words"), [(-5, "0 s"), (59.2, "59 s"), (150, "2 min"), (7260, "2 h 1 min")])
def test_spans_are_round(seconds, words):
    assert str(Note("a", "h", 1, time.time() - seconds)).startswith(f"for {words}, ")
