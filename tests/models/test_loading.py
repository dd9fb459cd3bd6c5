"""Models in folders: sound, or refused in one sentence."""

import json

import pytest
import torch
from safetensors.torch import save_file

import redraft
from redraft import RedraftError
from redraft.core.state import State
from redraft.models.nets.board import BoardNet
from redraft.models.weights import save_network


@pytest.fixture
def folder(tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = BoardNet(pixels=4, width=4, message=2, hidden=4, layers=1, passes=1, cell=8)
    save_network(net, tmp_path / "mine", "A card.", {"model": "sudoku"})
    return tmp_path / "mine"


def test_a_saved_model_is_loaded(folder):
    model = redraft.load_model(str(folder), device="cpu")
    assert (model.name, model.shape) == ("mine", (81, 2, 2))
    state = State(torch.zeros(1, 81, 2, 2), torch.ones(1, 81), torch.zeros(1, 81, dtype=torch.bool), torch.arange(1))
    prediction = model.predict(state)
    assert prediction.clean.shape == (1, 81, 2, 2)
    assert prediction.uncertainty.shape == (1, 81)
    assert not prediction.clean.requires_grad


def test_a_gpu_that_is_not_there_is_one_sentence(folder, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RedraftError, match="there is no CUDA here for device 'cuda:0': use 'cpu'"):
        redraft.load_model(str(folder), device="cuda:0")


def test_a_device_that_does_not_compute_is_one_sentence(folder):
    with pytest.raises(RedraftError, match="there is no device 'meta' here that computes: use 'cpu'"):
        redraft.load_model(str(folder), device="meta")


def refused(folder, match):
    with pytest.raises(RedraftError, match=match) as caught:
        redraft.load_model(str(folder), device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("harm", ["cut", "garbage", "empty", "pickled", "missing", "other tensors", "other shapes"])
def test_weights_that_are_not_sound_safetensors_are_one_sentence(folder, harm):
    path = folder / "model.safetensors"
    if harm == "pickled":
        torch.save({"weight": torch.zeros(3)}, path)
    elif harm == "missing":
        path.unlink()
    elif harm == "other tensors":
        save_file({"weight": torch.zeros(3)}, path)
    elif harm == "other shapes":
        config = json.loads((folder / "config.json").read_text())
        config["config"]["cell"] = 16
        (folder / "config.json").write_text(json.dumps(config))
    else:
        whole = path.read_bytes()
        path.write_bytes({"cut": whole[: len(whole) // 2], "garbage": b"x" * 999, "empty": b""}[harm])
    refused(folder, "model.safetensors cannot be loaded as the safetensors of BoardNet")


def test_nothing_is_unpickled(folder):
    """A pickle that would leave a mark if it were read."""

    class Trap:
        def __reduce__(self):
            return (open, (str(folder / "mark"), "w"))

    torch.save(Trap(), folder / "model.safetensors")
    refused(folder, "cannot be loaded")
    assert not (folder / "mark").exists()


@pytest.mark.parametrize("text", [None, "", "{", "[1, 2]", "3", '"sudoku"', "\x00\x01"])
def test_a_configuration_that_is_missing_or_broken_is_one_sentence(folder, text):
    path = folder / "config.json"
    path.unlink() if text is None else path.write_text(text)
    refused(folder, "config.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": "Reader"}, "holds a 'Reader', not a 'BoardNet'"),
        ({"model": "sodoku"}, "unknown model 'sodoku'; did you mean 'sudoku'"),
        ({"model": None}, "is not a model that can be sampled from"),
        ({"config": {"colour": 3}}, "cannot be loaded"),
        ({"config": None}, "cannot be loaded"),
    ],
)
def test_a_configuration_of_something_else_is_one_sentence(folder, change, message):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    refused(folder, message)


def test_the_reader_is_no_model_to_sample_from():
    with pytest.raises(RedraftError, match="not a model that can be sampled from"):
        redraft.load_model("reader")


def test_an_unknown_name_or_folder_is_one_sentence(tmp_path):
    with pytest.raises(RedraftError, match="unknown model 'sudoko'; did you mean 'sudoku'"):
        redraft.load_model("sudoko")
    with pytest.raises(RedraftError, match="unknown model"):
        redraft.load_model(str(tmp_path / "nowhere"))


def test_an_unknown_device_is_one_sentence(folder):
    with pytest.raises(RedraftError, match="gpu7"):
        redraft.load_model(str(folder), device="gpu7")
