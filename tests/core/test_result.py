"""Results go to disk and come back."""

import io
import json
import os
import random
import re
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from harm import flipped
from toys import Toy, toy_problems

import redraft
from redraft import IPR, MODELS, TASKS, BestOfN, Budget, Parallel, RedraftError, Result, Sequential
from redraft.core import manifest
from redraft.core.pictures import drawn, png, shrunk, tiled
from redraft.core.result import texts_of

METHOD = IPR(iterations=2, refine=Sequential(steps_per_region=2))


@pytest.fixture
def result():
    evaluate = lambda samples, problems: {"ok": samples[:, 0, 0] > 0}  # noqa: E731
    return redraft.run(METHOD, Toy(), toy_problems([0, 2, 3]), budget=Budget(nfe=100), seed=4, evaluate=evaluate)


def test_what_is_saved_is_loaded(result, tmp_path):
    result.save(tmp_path / "a" / "b")
    loaded = Result.load(tmp_path / "a" / "b")
    assert torch.equal(loaded.samples, result.samples)
    assert torch.equal(loaded.ids, result.ids)
    assert loaded.trace == result.trace
    assert loaded.ledger.totals() == result.ledger.totals()
    assert torch.equal(loaded.ledger.nfe, result.ledger.nfe)
    assert loaded.settings == result.settings
    assert loaded.seconds == result.seconds
    assert not loaded.interrupted
    assert {p.suffix for p in (tmp_path / "a" / "b").iterdir()} == {".safetensors", ".parquet", ".json"}


def test_the_settings_say_what_was_run(result):
    settings = json.loads(json.dumps(result.settings))
    assert settings["method"]["type"] == "IPR"
    assert settings["method"]["refine"]["type"] == "Sequential"
    assert settings["method"]["refine"]["steps_per_region"] == 2
    assert settings["budget"] == {"nfe": 100, "verifier_calls": None}
    assert settings["seed"] == 4
    assert settings["model"] == "toy"


@pytest.mark.parametrize("name", ["samples.safetensors", "trace.parquet", "result.json"])
@pytest.mark.parametrize("harm", ["missing", "damaged"])
def test_a_file_that_is_missing_or_damaged_is_one_sentence(result, tmp_path, name, harm):
    result.save(tmp_path)
    (tmp_path / name).unlink() if harm == "missing" else (tmp_path / name).write_bytes(b"{broken")
    with pytest.raises(RedraftError, match="does not hold a complete result"):
        Result.load(tmp_path)


@pytest.fixture
def other():
    """Of another seed, with candidates."""
    how = BestOfN(2, sampler=Parallel(2))
    return redraft.run(how, Toy(), toy_problems([0, 2, 3]), verifier=lambda x, _: x.flatten(1).sum(1), seed=5)


def test_a_save_leaves_nothing_of_the_result_before(result, other, tmp_path):
    (tmp_path / "notes.txt").write_text("the user's")
    other.save(tmp_path)
    assert len(Result.load(tmp_path).candidates)
    result.save(tmp_path)
    assert not len(Result.load(tmp_path).candidates)
    left = {"notes.txt", "result.json", "samples.safetensors", "trace.parquet"}
    assert {path.name for path in tmp_path.iterdir()} == left


class Killed(BaseException):
    """As by a kill: nothing that comes after it is done."""


def killed_at(moment, patch):
    """Die before the change to the folder with this number, and before all that would clean up."""
    left = iter(range(moment))

    def or_die(works):
        def act(*given, **more):
            if next(left, None) is None:
                raise Killed
            return works(*given, **more)

        return act

    for module, name in ((manifest.os, "replace"), (Path, "write_bytes"), (Path, "unlink")):
        patch.setattr(module, name, or_die(getattr(module, name)))


@pytest.mark.parametrize("over", [True, False], ids=["over another", "into a new folder"])
def test_a_save_that_is_killed_at_any_moment_leaves_the_old_result_or_the_new_one(
    result, other, tmp_path, monkeypatch, over
):
    for moment in range(7 if over else 6):
        folder = tmp_path / str(moment)
        if over:
            other.save(folder)
        with monkeypatch.context() as patch:
            killed_at(moment, patch)
            with pytest.raises(Killed):
                result.save(folder)
        if moment < 4 and not over:  # before the manifest
            with pytest.raises(RedraftError, match=r"result\.json"):
                Result.load(folder)
            continue
        found = Result.load(folder)
        whole = other if moment < 4 else result
        assert found.trace == whole.trace
        assert torch.equal(found.samples, whole.samples)
        assert found.candidates == whole.candidates
        other.save(folder)
        assert torch.equal(Result.load(folder).samples, other.samples)
        assert Result.load(folder).trace == other.trace


@pytest.mark.parametrize("name", ["samples.safetensors", "trace.parquet", "candidates.parquet", "result.json"])
def test_no_flipped_bit_changes_a_result_silently(other, tmp_path, name):
    other.save(tmp_path)
    whole, draw = (tmp_path / name).read_bytes(), random.Random(name)
    for place in (draw.randrange(8 * len(whole)) for _ in range(25)):
        (tmp_path / name).write_bytes(flipped(whole, place))
        with pytest.raises(RedraftError, match="does not hold a complete result"):
            Result.load(tmp_path)


def test_a_file_of_another_result_and_a_result_without_checksums_are_refused(result, other, tmp_path):
    result.save(tmp_path / "one")
    other.save(tmp_path / "other")
    (tmp_path / "one" / "trace.parquet").write_bytes((tmp_path / "other" / "trace.parquet").read_bytes())
    with pytest.raises(RedraftError, match=r"trace.parquet is damaged, or of another save"):
        Result.load(tmp_path / "one")
    about = json.loads((tmp_path / "other" / "result.json").read_text())
    del about["files"], about["checksum"]
    (tmp_path / "other" / "result.json").write_text(json.dumps(about))
    with pytest.raises(RedraftError, match="names no files, as those of an older version: make it again"):
        Result.load(tmp_path / "other")


def test_a_manifest_names_no_file_elsewhere(result, tmp_path):
    (tmp_path / "users").write_text("")
    result.save(tmp_path / "run")
    path = tmp_path / "run" / "result.json"
    about = json.loads(path.read_text())
    del about["checksum"]
    about["files"]["../users"] = sha256(b"").hexdigest()
    path.write_text(json.dumps(about | {"checksum": manifest._sum(about)}))
    with pytest.raises(RedraftError, match=r"result\.json is damaged"):
        Result.load(tmp_path / "run")
    result.save(tmp_path / "run")
    assert (tmp_path / "users").exists()


@pytest.mark.parametrize("name", ["samples.safetensors", "trace.parquet", "result.json"])
@pytest.mark.parametrize(
    "make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "folder", "device"]
)
def test_a_pipe_a_folder_or_a_device_in_its_place_is_one_sentence(result, tmp_path, name, make):
    result.save(tmp_path)
    (tmp_path / name).unlink()
    make(tmp_path / name)
    with pytest.raises(RedraftError, match="does not hold a complete result"):
        Result.load(tmp_path)


@pytest.mark.parametrize("blocked", ["", "samples.safetensors", "trace.parquet", "result.json"])
def test_a_place_that_cannot_be_written_is_one_sentence(result, tmp_path, blocked):
    """The tests may run as root, who may write everywhere but below a file, or over a folder."""
    if blocked:
        (tmp_path / "run" / blocked).mkdir(parents=True)
    else:
        (tmp_path / "run").write_text("a file")
    with pytest.raises(RedraftError, match="cannot be written"):
        result.save(tmp_path / "run")


def test_a_result_is_shown_in_two_lines(result):
    first, second = repr(result).splitlines()
    assert re.fullmatch(r"Result: 3 problems, 3 drafts, [\d.]+ NFE each, [\d.e-]+ seconds", first)
    assert second.split()[0] == "ok"
    assert "tensor(" not in repr(result)
    assert "interrupted" in repr(replace(result, interrupted=True))


def test_a_notebook_shows_pictures_or_escaped_texts(result, tmp_path):
    board = replace(result, samples=torch.zeros(3, 81, 8, 8), shows="boards")
    digits = replace(result, samples=torch.zeros(3, 1, 8, 8), shows="pictures")
    text = replace(result, texts=["a < b", "<script>", ""])
    for shown in (board, digits, text):
        shown.save(tmp_path)
        assert Result.load(tmp_path)._repr_html_() == shown._repr_html_()
    assert all('<img alt="the first samples" src="data:image/png;base64,' in s._repr_html_() for s in (board, digits))
    assert "<pre>a &lt; b</pre><pre>&lt;script&gt;</pre>" in text._repr_html_()


def test_what_runs_are_made_of_is_shown_without_its_numbers(result):
    models = [redraft.load_model(name) for name in MODELS]
    tasks = [redraft.load_task(name) for name in TASKS if name != "prompts"]
    problems = [task.problems(2) for task in tasks]
    for part in (*models, *(model.net for model in models), *tasks, *problems, problems[0].state(), result.trace):
        assert len(repr(part)) < 200
        assert "\n" not in repr(part)
        assert "tensor(" not in repr(part)
    assert repr(models[0].net) == f"DigitNet, {sum(p.numel() for p in models[0].net.parameters()):,} parameters"
    assert repr(problems[-1]).startswith("Problems: 2 rows of ids, x (81,), frozen (81,)")
    assert repr(result.ledger).startswith("Ledger: 3 problems, ")


def test_large_pictures_are_small_in_a_notebook():
    (large,) = drawn(torch.zeros(1, 3, 600, 500), "pictures")
    assert large.shape == (600, 500, 3)
    assert shrunk(large).shape == (200, 167, 3)
    assert shrunk(shrunk(large)).shape == (200, 167, 3)


def test_a_text_that_cannot_be_read_costs_no_result():
    def broken(ids):
        raise ValueError("no such token")

    assert texts_of(replace(redraft.load_task("markov").model, codec=broken), torch.zeros(1, 24).long(), None) is None


def test_a_png_file_holds_the_pixels():
    image = pytest.importorskip("PIL.Image")
    sheet = tiled(drawn(torch.rand(5, 3, 6, 4, generator=torch.Generator().manual_seed(0)), "pictures"), columns=2)
    assert (np.asarray(image.open(io.BytesIO(png(sheet)))) == sheet).all()
