"""Whatever lies in an experiment's folder, what is said of it is one sentence that names the file and what to do."""

import json
import os
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from grids import contents, network, text

from redraft.bench.store import Store
from redraft.cli import main

DEEP = '{"a":' * 5000 + "1" + "}" * 5000


def run(*argv):
    return main(["bench", *map(str, argv)])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder of a run that is done, and its file."""
    folder = tmp_path_factory.mktemp("whole")
    file = folder / "grid.yaml"
    changes = {"claim: nothing": "media: 1\nclaim: nothing", "n: 4, seed": "n: 2, seed", "[0, 1]": "[0]"}
    file.write_text(text(network(folder / "tiny"), **changes))
    assert run("run", file, "--out", folder / "out") == 0
    return folder / "out"


@pytest.fixture
def out(whole, tmp_path):
    """A copy of the folder."""
    shutil.copytree(whole, tmp_path / "out")
    return tmp_path / "out"


def metrics_of(out, ending):
    """A file of a cell, and that of its metrics."""
    path = min(p for p in (out / "cells").glob(f"*/*.{ending}") if p.name.partition(".")[2] == ending)
    return path, path.with_name(path.name.replace(f".{ending}", ".parquet"))


def written(table):
    """The bytes of a Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue())


def replaced(path, content):
    path.unlink(missing_ok=True)
    if content == "folder":
        path.mkdir()
    elif content == "pipe":
        os.mkfifo(path)
    else:
        path.write_bytes(content)


def as_float(table, name):
    place = table.column_names.index(name)
    return table.set_column(place, name, table[name].cast(pa.float64()))


ROWS = {
    "empty": lambda path, table: b"",
    "truncated": lambda path, table: path.read_bytes()[:-20],
    "garbage": lambda path, table: b"PAR1" + bytes(range(256)) + b"PAR1",
    "a folder": lambda path, table: "folder",
    "a pipe": lambda path, table: "pipe",
    "without a column": lambda path, table: written(table.drop_columns(["draft"])),
    "without rows": lambda path, table: written(table.slice(0, 0)),
    "of other rows": lambda path, table: written(table.slice(0, len(table) - 1)),
    "of other types": lambda path, table: written(as_float(table, "problem")),
    "with words": lambda path, table: written(table.append_column("more", pa.array(["x"] * len(table)))),
    "with holes": lambda path, table: written(
        table.set_column(0, table.column_names[0], pa.array([None] * len(table), pa.int64()))
    ),
}  # fmt: skip


@pytest.mark.parametrize("ending", ["parquet", "seconds.parquet", "samples.parquet"])
@pytest.mark.parametrize("harm", ROWS)
def test_a_harmed_table_of_a_cell_is_named(harm, ending, out, capsys):
    path, metrics = metrics_of(out, ending)
    replaced(path, ROWS[harm](path, pq.ParquetFile(path).read()))
    assert run("report", out) == 2
    said = capsys.readouterr().err
    assert f"{metrics} is damaged: delete it and go on with `redraft bench resume`: " in said
    assert said.count("\n") == 1


def test_what_was_deleted_as_damaged_is_made_again(out):
    before = contents(Store(out))
    path, metrics = metrics_of(out, "seconds.parquet")
    replaced(path, "folder")
    path.rmdir()
    metrics.unlink()
    assert run("resume", out) == 0
    assert contents(Store(out)) == before


METADATA = {
    "none": (lambda about: None, "its metadata do not say what it is of"),
    "garbled": (lambda about: b"{", "its metadata do not say what it is of"),
    "no object": (lambda about: b"[1, 2]", "its metadata do not say what it is of"),
    "deep": (lambda about: DEEP.encode(), "its metadata do not say what it is of"),
    "without truths": (lambda about: json.dumps({"job": about["job"]}), "its metadata do not say what it is of"),
    "of another cell": (
        lambda about: json.dumps(about | {"job": about["job"] | {"seed": 99}}), "its metadata are of another cell"
    ),
}  # fmt: skip


@pytest.mark.parametrize("harm", METADATA)
def test_a_table_whose_metadata_are_harmed_is_named(harm, out, capsys):
    change, why = METADATA[harm]
    path, _ = metrics_of(out, "parquet")
    table = pq.ParquetFile(path).read()
    about = change(json.loads(table.schema.metadata[b"redraft"]))
    path.write_bytes(written(table.replace_schema_metadata({"redraft": about} if about else None)))
    assert run("report", out) == 2
    said = capsys.readouterr().err
    assert said == f"redraft: {path} is damaged: delete it and go on with `redraft bench resume`: {why}\n"


def test_a_cell_with_fewer_problems_or_those_of_others_is_named(out, capsys):
    path, _ = metrics_of(out, "parquet")
    table = pq.ParquetFile(path).read()
    one = pa.array(np.full(len(table), table["problem"][0].as_py()))
    path.write_bytes(written(table.set_column(0, "problem", one)))
    assert run("report", out) == 2
    assert f"{path} is damaged: delete it" in capsys.readouterr().err
    files = [p for ending in ("parquet", "seconds.parquet", "samples.parquet") for p in [metrics_of(out, ending)[0]]]
    candidates = files[0].with_suffix(".candidates.parquet")
    for each in (*files, *([candidates] if candidates.exists() else [])):
        given = pq.ParquetFile(each).read()
        strange = table["problem"].to_numpy() + 12345
        each.write_bytes(written(given.set_column(0, "problem", pa.array(strange)).replace_schema_metadata(
            table.schema.metadata)))  # fmt: skip
    assert run("report", out) == 2
    said = capsys.readouterr().err
    assert f"{files[2].name} has samples of problem" in said
    assert f"delete {files[0].name} beside it and go on with `redraft bench resume`" in said


@pytest.mark.parametrize("content", [b"", b"x" * 100, "folder", "pipe"])
def test_harmed_samples_are_named(content, out, capsys):
    path, metrics = metrics_of(out, "media.safetensors")
    for each in (out / "cells").glob("*/*.media.safetensors"):
        replaced(each, content)
    assert run("report", out) == 2
    said = capsys.readouterr().err
    assert "is damaged: delete it and go on with `redraft bench resume`: " in said
    assert ".media.safetensors cannot be read: " in said


@pytest.mark.parametrize("content", [b"", b"[]", b'{"error"', b"5", DEEP.encode(), b"\xff\xfe", "folder", "pipe"])
def test_a_harmed_error_is_named_and_the_others_are_told(content, out, capsys):
    path, metrics = metrics_of(out, "parquet")
    metrics.unlink()
    error = path.with_name(f"{path.stem}.error.json")
    error.write_text("")
    replaced(error, content)
    assert run("status", out) == 0
    said = capsys.readouterr().out
    assert "4 of 5 cells done, 1 failed" in said
    assert f"{error} is damaged: delete it and go on with `redraft bench resume`: " in said
    assert run("report", out) == 0
    assert str(error.relative_to(out)) in (out / "report.md").read_text()


def test_what_a_cell_raised_is_told_with_the_file_that_says_more(out, capsys):
    path, metrics = metrics_of(out, "parquet")
    metrics.unlink()
    error = path.with_name(f"{path.stem}.error.json")
    error.write_text(json.dumps({"cell": "x", "error": "ValueError: no", "details": "where"}))
    assert run("status", out) == 0
    assert f": ValueError: no ({error})\n" in capsys.readouterr().out
    assert run("report", out) == 0
    assert f"| ValueError: no | {error.relative_to(out)} |" in (out / "report.md").read_text()


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", DEEP.encode(), b"\xff\xfe", "folder", "pipe"])
def test_a_harmed_experiment_is_named(content, out, capsys):
    path = out / "experiment.json"
    replaced(path, content)
    for command in ("status", "report", "resume"):
        assert run(command, out) == 2
        assert capsys.readouterr().err == (
            f"redraft: {path} is damaged: delete it and start the same `redraft bench run` again; cells are kept\n"
        )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"changes": [5]}, "is damaged: delete it"),
        ({"versions": {"torch": 2}}, "is damaged: delete it"),
        ({"weights": {"tiny": ["x"]}}, "is damaged: delete it"),
    ],
)
def test_an_experiment_of_other_values_is_named(change, sentence, out, capsys):
    path = out / "experiment.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert run("report", out) == 2
    assert f"{path} {sentence}" in capsys.readouterr().err


def sourced(out, **changes):
    path = out / "experiment.json"
    about = json.loads(path.read_text())
    path.write_text(json.dumps(about | {"source": about["source"] | changes}))
    return path


def nested(depth):
    value = 1
    for _ in range(depth):
        value = {"type": "parallel", "steps": value}
    return value


def test_an_experiment_of_another_version_is_named(out, capsys):
    path = sourced(out, colour="red")
    assert run("status", out) == 2
    assert f"{path} is damaged: " in (said := capsys.readouterr().err)
    assert "unknown setting of Experiment 'colour'" in said
    shutil.copy(out / "experiment.json", out / "old.json")
    path = sourced(out, methods={"generate": {"sampler": nested(300)}})
    assert run("status", out) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_grid_that_cannot_be_meant_is_counted_and_not_made(out, capsys):
    """It would not fit into memory."""
    path = sourced(out, problems={"n": 10**12, "seed": 3, "difficulty": "easy"})
    for command in ("status", "report", "resume"):
        assert run(command, out) == 2
        assert f"{path}: 2,500,000,000,000 cells are many: say --yes" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"x", "folder", "pipe"])
def test_harmed_sets_are_named(content, out, capsys):
    replaced(out / "sets.parquet", content)
    assert run("report", out) == 2
    assert f"{out / 'sets.parquet'} is damaged: delete it and make the report again: " in capsys.readouterr().err
