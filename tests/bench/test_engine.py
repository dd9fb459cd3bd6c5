"""Cells are run once each, whatever happens, and their files say what the runs were."""

import errno
import os
import re
import subprocess
import sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from grids import DeadlyExecutor, Failing, contents, experiment, network, ran, small, text
from safetensors.torch import load_file

import redraft
from redraft.bench import cell as cell_module
from redraft.bench import choose, engine
from redraft.bench.cell import asks
from redraft.bench.choose import choices
from redraft.bench.experiment import cells, made, outlook
from redraft.bench.local import LOST, Pool, Serial
from redraft.bench.spec import Spec
from redraft.bench.store import Store, sources, weights
from redraft.core.errors import RedraftError

ENDED = """\
from tqdm.auto import tqdm

from redraft.bench.local import Pool


def measure(cell):
    return list(tqdm([cell], disable=True))[0]


if __name__ == "__main__":
    outcomes = Pool(1).map(measure, range(3))
    print(next(outcomes) in range(3))
    outcomes.close()
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return network(tmp_path_factory.mktemp("net") / "tiny")


@pytest.fixture(scope="module")
def grid(model, tmp_path_factory):
    return experiment(tmp_path_factory.mktemp("file"), text(model))


@pytest.fixture(scope="module")
def whole(grid, tmp_path_factory):
    """The grid, run without a break."""
    return ran(grid, tmp_path_factory.mktemp("whole"))


def test_rows_are_the_runs_own(grid, whole):
    store, now = whole
    assert not now.open
    cell = next(c for c in now.cells if c.label == "ipr" and c.job["seed"] == 1)
    task = redraft.load_task("sudoku-tokens")
    problems = task.problems(4, 3, difficulty="easy")[slice(*cell.job["shard"])]
    result = redraft.run(
        made(cell.job["method"]), redraft.load_model(cell.job["model"]["name"]), problems, seed=1,
        evaluate=task.evaluate, progress=False,
    )  # fmt: skip
    rows = pq.read_table(store.path(cell.id, "parquet"))
    for name in result.trace:
        if name != "seconds":
            assert rows[name].to_pylist() == pytest.approx(result.trace[name].double().tolist(), nan_ok=True)
    assert rows["score"].to_pylist() == [-v for v in rows["violations"].to_pylist()]
    assert "seconds" not in rows.column_names
    assert {"nfe", "critic", "verifier_calls", "valid"} <= {*rows.column_names}
    said = store.settings(cell.id)
    assert said["weights"]["tiny"] == redraft.load_model(cell.job["model"]["name"]).digest
    assert said["versions"]["torch"] == torch.__version__
    assert said["job"]["resolved"]["level"] == 1.0  # a default, in full
    assert {"valid", "givens_kept"} <= {*said["truths"]}


def test_wall_clock_time_is_shared_by_a_cells_problems(model, tmp_path, monkeypatch):
    results, run = [], redraft.run
    monkeypatch.setattr(redraft, "run", lambda *a, **k: results.append(run(*a, **k)) or results[-1], raising=False)
    store, now = ran(small(model, shard=4), tmp_path)
    (cell,), (result,) = now.cells, results
    times = pq.read_table(store.path(cell.id, "seconds.parquet"))
    assert times["seconds"].to_pylist() == [result.seconds / 4] * 4
    assert times["problem"].to_pylist() == result.ids.tolist()


def test_best_of_n_without_a_verifier_says_so(model, tmp_path):
    content = text(model, **{"verifier: violations": "verifier: null"})
    grid = experiment(tmp_path, content)
    store, now = ran(replace(grid, methods={"best-of-n": grid.methods["best-of-n"]}), tmp_path)
    assert now.failed == {cell.id for cell in now.cells}
    assert "best-of-N needs a verifier" in store.failure(min(now.failed))["error"]


def test_a_shard_changes_no_row(grid, whole, tmp_path):
    store, _ = ran(replace(grid, shard=1, methods={"ipr": grid.methods["ipr"]}), tmp_path)

    def rows(where):
        found = where.read(cells(grid) if where is not store else cells(replace(grid, shard=1)))["rows"].to_pylist()
        mine = [row for row in found if row["label"] == "ipr"]
        names = ("variant", "seed", "problem", "draft", "nfe", "violations")
        return sorted(tuple(row[name] for name in names) for row in mine)

    assert rows(store) == rows(whole[0])


def test_only_methods_that_ask_are_given_the_verifier(whole):
    rows = whole[0].read(whole[1].cells)["rows"].to_pylist()
    calls = {row["label"]: row["verifier_calls"] for row in rows}
    assert calls == {"ancestral": 0, "best-of-n": 4, "ipr": 0}


def test_best_of_n_keeps_every_candidate(whole):
    store, now = whole
    cell = next(c for c in now.cells if c.label == "best-of-n")
    rows = pq.read_table(store.path(cell.id, "parquet")).to_pylist()
    found = pq.read_table(store.path(cell.id, "candidates.parquet")).to_pylist()
    assert len(found) == 2 * 4
    for problem in {row["problem"] for row in rows}:
        rewards = [row["reward"] for row in found if row["problem"] == problem]
        best = [row["reward"] for row in rows if row["problem"] == problem]
        assert best == [max(rewards[: k + 1]) for k in range(4)]


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(model, tmp_path):
    script, folder = Path(__file__).with_name("killed_grid.py"), tmp_path / "killed"
    paths = os.pathsep.join([str(script.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    run = subprocess.Popen(
        [sys.executable, script, model, folder], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip
    for _ in range(2):
        assert run.stdout.readline()
    run.kill()
    run.wait()
    run.stdout.close()
    store = Store(folder)
    kept = {path: path.stat().st_mtime_ns for path in (folder / "cells").glob("*/*")}
    store.path("aa00", "parquet").parent.mkdir(exist_ok=True)
    store.path("aa00", "parquet.part").write_bytes(b"half")
    assert len(store.held()[0]) == 2
    again, now = ran(small(model, media=1), folder)
    assert str(now) == "4 of 4 cells done, 0 failed, 0 to do"
    assert all(path.stat().st_mtime_ns == then for path, then in kept.items())
    other, _ = ran(small(model, media=1), tmp_path / "unbroken")
    store.path("aa00", "parquet.part").unlink()
    assert contents(again) == contents(other)
    assert len(contents(other)) == 12
    samples = load_file(next(iter((folder / "cells").glob("*/*.safetensors"))))
    assert samples["samples"].shape == (1, 81)


def test_a_cell_that_raises_is_told_and_tried_again_and_holds_up_no_other(grid, whole, tmp_path):
    store, now = ran(grid, tmp_path, Failing("ancestral"))
    assert str(now) == "12 of 20 cells done, 8 failed, 0 to do"
    said = store.failure(min(now.failed))
    assert "unknown difficulty 'none'" in said["error"]
    assert "Traceback" in said["details"]
    assert str(engine.status(grid, store)) == str(now)
    store, now = ran(grid, tmp_path)
    assert str(now) == "20 of 20 cells done, 0 failed, 0 to do"
    assert contents(store) == contents(whole[0])


def test_a_full_disk_ends_the_run_with_a_sentence_and_loses_nothing(grid, whole, tmp_path, monkeypatch):
    replace_, count = os.replace, []

    def full(*paths):
        count.append(1)
        if len(count) == 9:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace_(*paths)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(RedraftError, match="No space left on device; what was finished is kept.*redraft bench resume"):
        ran(grid, tmp_path)
    monkeypatch.undo()
    store = Store(tmp_path)
    done = store.held()[0]
    assert 0 < len(done) < 20
    assert not list(tmp_path.rglob("*.part"))
    assert contents(ran(grid, tmp_path)[0]) == contents(whole[0])


def test_a_pool_outlives_workers_that_are_killed(grid, whole, tmp_path):
    fatal = cells(grid)[-1].id  # whatever is under way beside it is run again, alone
    store, now = ran(grid, tmp_path, DeadlyExecutor(Pool(2, retries=1), fatal, None))
    assert now.failed == {fatal}
    assert store.failure(fatal)["error"] == LOST
    assert str(now) == "19 of 20 cells done, 1 failed, 0 to do"
    assert contents(ran(grid, tmp_path)[0]) == contents(whole[0])


def test_a_pool_that_is_ended_early_leaves_no_semaphores(tmp_path):
    script = tmp_path / "ended.py"
    script.write_text(ENDED)
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert run.stdout == "True\n"
    assert "leaked" not in run.stderr


def test_a_metric_that_is_never_measured_ends_the_run_at_its_first_cell(grid, tmp_path):
    misspelt = replace(grid, metrics={"vald": "max"})
    with pytest.raises(RedraftError, match="unknown metric 'vald'; did you mean 'valid'"):
        ran(misspelt, tmp_path)
    assert len(Store(tmp_path).held()[0]) == 1
    with pytest.raises(RedraftError, match="unknown metric 'nfe'; known: givens_kept, .*, valid, violations$"):
        ran(replace(grid, metrics={"nfe": "min"}), tmp_path)


def test_a_method_that_says_nothing_of_its_verifier_gets_it(grid):
    class Quiet:
        pass

    problems = redraft.load_task("sudoku-tokens").problems(2)
    assert asks(Quiet(), None, problems)
    assert not asks(redraft.Generate(), None, problems)


def test_another_run_is_kept_out(grid, tmp_path):
    store = Store(tmp_path)
    store.open(grid, "full")
    with store.locked(), pytest.raises(RedraftError, match="another run, process .* is at work in"):
        ran(grid, tmp_path)


def test_other_versions_weights_and_experiments_are_refused(grid, model, tmp_path, monkeypatch):
    store = Store(tmp_path)
    store.open(grid, "full")
    store.open(grid, "full")
    with pytest.raises(RedraftError, match="holds the experiment 'tiny'"):
        store.open(replace(grid, name="other"))
    monkeypatch.setattr("redraft.bench.store.weights", lambda models: {spec.name: "0" * 12 for spec in models})
    with pytest.raises(RedraftError, match=f"was begun with {model} [0-9a-f]{{12}}, now 000000000000"):
        store.open(grid, "full")
    monkeypatch.undo()
    monkeypatch.setattr(torch, "__version__", "9.9")
    with pytest.raises(RedraftError, match=r"was begun with torch 2\.13\.0\S*, now 9\.9: .*--force"):
        store.open(grid, "full")
    store.open(grid, "full", force=True)
    assert re.fullmatch(r"torch 2.*, now 9\.9", *store.about()["changes"])
    with pytest.raises(RedraftError, match="holds no experiment"):
        Store(tmp_path / "elsewhere").about()


def test_a_setting_is_chosen_on_seeds_that_are_not_reported(model, tmp_path):
    content = text(model, **{"baseline": "select: {seeds: [7], metric: violations, budget: 9}\nbaseline"})
    made_ = experiment(tmp_path, content)
    assert not [c for c in cells(made_) if c.label == "ipr" and c.role == "report"]
    assert len(outlook(made_, cells(made_))) == len(cells(made_)) + 4
    store, now = ran(made_, tmp_path / "out")
    assert outlook(made_, now.cells) == now.cells
    tuned = [c for c in now.cells if c.role == "tune"]
    reported = [c for c in now.cells if c.label == "ipr" and c.role == "report"]
    assert {c.job["seed"] for c in tuned} == {7}
    assert {c.variant for c in tuned} == {"ratio=0.1", "ratio=0.5"}
    assert {c.job["seed"] for c in reported} == {0, 1}
    rows = store.read(tuned)["rows"].to_pylist()
    last = {(row["variant"], row["problem"]): row["violations"] for row in rows if row["nfe"] <= 9}
    means = {v: sum(x for (w, _), x in last.items() if w == v) / 4 for v in ("ratio=0.1", "ratio=0.5")}
    assert means["ratio=0.1"] != means["ratio=0.5"]
    assert {c.variant for c in reported} == {min(means, key=means.get)}
    assert choices(made_, store, set()) == {}


def test_the_cost_is_an_upper_bound_and_exact_where_nothing_is_saved(grid, whole):
    store, now = whole
    rows = store.read(now.cells)["rows"].to_pylist()
    spent = {}
    for row in rows:
        key = row["cell"], row["problem"]
        spent[key] = max(spent.get(key, 0), row["nfe"])
    stated = engine.nfe(grid, now.cells)
    assert sum(spent.values()) <= stated <= 2 * sum(spent.values())
    capped = experiment(store.folder, text("sudoku-tokens", **{"shard: 2": "shard: 2\nbudget: 2"}))
    assert engine.nfe(capped, cells(capped)) == 2 * 4 * 2 * 5


def test_a_budget_of_nothing_is_a_failure_like_any_other(model, tmp_path):
    store, now = ran(small(model, budget=1), tmp_path)
    assert len(now.failed) == 4
    assert "too small for one draft" in store.failure(min(now.failed))["error"]


def test_the_number_of_threads_is_put_back(model, tmp_path):
    torch.set_num_threads(2)
    try:
        seen = []
        measured = cell_module._measured
        cell_module._measured = lambda cell: seen.append(torch.get_num_threads()) or measured(cell)
        ran(small(model, problems={"n": 1, "difficulty": "easy"}), tmp_path, Serial(), threads=1)
        assert (seen, torch.get_num_threads()) == ([1], 2)
    finally:
        cell_module._measured = measured
        torch.set_num_threads(1)


def test_all_subsets_of_candidates_stand_behind_the_curve_of_best_of_k(whole):
    from redraft.bench.curves import curves

    store, now = whole
    tables = store.compact(now.cells)
    curve = next(c for c in curves(tables) if c.name == "best-of-n")
    found = tables["candidates"].to_pylist()
    for i, problem in enumerate(curve.units.problems):
        for j, seed in enumerate(curve.units.seeds):
            mine = [r for r in found if (r["problem"], r["seed"]) == (problem, seed)]
            for k in (1, 2, 3, 4):
                sets = [max(subset, key=lambda r: r["reward"]) for subset in combinations(mine, k)]
                expected = sum(r["violations"] for r in sets) / len(sets)
                rows = (curve.unit == i * 2 + j).nonzero()[0][k - 1]
                assert curve.columns["violations"][rows] == pytest.approx(expected)
                assert curve.columns["verifier_calls"][rows] == k
                assert curve.columns["calls"][rows] == curve.columns["nfe"][rows] + k


def test_a_run_that_is_ended_early_is_a_smaller_experiment(grid, whole):
    from redraft.bench.curves import curves

    store, now = whole
    half = cells(grid)[: len(now.cells) // 2]
    assert {tuple(cell.job["shard"]) for cell in half} == {(0, 2)}
    found = curves(store.read(half))
    assert [c.name for c in found] == [c.name for c in curves(store.read(now.cells))]
    assert all(len(set(c.unit)) == 2 * 2 for c in found)

    dear = next(c for c in now.cells if c.point == "steps=4" and c.job["shard"] == [2, 4] and c.job["seed"] == 1)
    found = curves(store.read([cell for cell in now.cells if cell != dear]))
    ancestral = next(c for c in found if c.name == "ancestral")
    assert len(set(ancestral.unit)) == 4 * 2 - 2  # in the shard without it, steps=2 would stand for steps=4
    none = curves(store.read([c for c in now.cells if (c.point == "steps=2") == (c.job["shard"] == [0, 2])]))
    assert len(next(c for c in none if c.name == "ancestral").unit)


def test_a_setting_that_some_problems_cannot_pay_for_is_not_chosen(model, tmp_path):
    method = {"method": "generate", "sampler": {"preset": "ancestral"}, "grid": {"sampler.steps": [2, 60]}}
    grid = small(
        model, problems={"n": 6, "seed": 3, "difficulty": "medium"}, methods={"one": method},
        select={"seeds": [7], "metric": "violations", "budget": 1000},
    )  # fmt: skip
    store, now = ran(grid, tmp_path)
    tuned = [cell for cell in now.cells if cell.role == "tune"]
    nfe = store.read([cell for cell in tuned if cell.variant == "steps=60"])["rows"]["nfe"].to_pylist()
    assert min(nfe) < max(nfe)
    for budget, known in ((max(nfe), True), (max(nfe) - 1, False)):
        scores = choose.scores(replace(grid, select=replace(grid.select, budget=budget)), store, tuned, now.done)
        assert (scores["steps=60"] == scores["steps=60"]) is known
        assert scores["steps=2"] == scores["steps=2"]


def test_other_critics_are_other_weights(tmp_path):
    grid, store = small(network(tmp_path / "net")), Store(tmp_path / "run")
    critic = tmp_path / "net" / "critics" / "star" / "model.safetensors"
    critic.parent.mkdir(parents=True)
    critic.write_bytes(b"one")
    store.open(grid)
    critic.write_bytes(b"two")
    with pytest.raises(RedraftError, match="was begun with .*net/star"):
        store.open(grid)


def test_weights_of_every_layout_and_of_verifiers_are_told(tmp_path):
    """A pipeline in parts, a checkpoint of one file, and the folders that settings of verifiers name."""
    names = ("pipe/vae/a.safetensors", "net.pt", "judge/b.safetensors")
    part, file, judge = (tmp_path / name for name in names)
    for path in (part, file, judge):
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(b"one")
    (tmp_path / "pipe" / "model_index.json").write_text("{}")
    specs = [Spec(str(tmp_path / "pipe")), Spec(str(file)), Spec("owner/name")]
    grid = replace(
        small(network(tmp_path / "net")), verifier=Spec("clip", {"checkpoint": str(judge.parent), "scale": "cosine"})
    )
    before, judged = weights(specs), sources(grid)
    assert (before, judged) == (weights(specs), sources(grid))
    assert [before[spec.name] is None for spec in specs] == [False, False, True]
    assert [*judged] == [str(judge.parent)]
    for path in (part, file, judge):
        path.write_bytes(b"two")
    after = weights(specs)
    assert all(after[spec.name] != before[spec.name] for spec in specs[:2])
    assert sources(grid) != judged
