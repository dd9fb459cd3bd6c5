"""Results go to disk and come back."""

import json

import pytest
import torch
from toys import Toy, toy_problems

import redraft
from redraft import IPR, Budget, RedraftError, Result, Sequential

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


@pytest.mark.parametrize("blocked", ["", "samples.safetensors", "trace.parquet", "result.json"])
def test_a_place_that_cannot_be_written_is_one_sentence(result, tmp_path, blocked):
    """The tests may run as root, who may write everywhere but below a file, or over a folder."""
    if blocked:
        (tmp_path / "run" / blocked).mkdir(parents=True)
    else:
        (tmp_path / "run").write_text("a file")
    with pytest.raises(RedraftError, match="cannot be written"):
        result.save(tmp_path / "run")
