"""The recipes of the token models: what is masked, what is scored, and folders that load."""

import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from redraft import RedraftError, load_model
from redraft.core.state import State
from redraft.models import characters
from redraft.models.critic import BlocksCritic, save_critic
from redraft.models.reference import load_reference, shifted, until_pad
from redraft.tasks import python
from redraft.tasks.boards import violations
from redraft.training import tokens
from redraft.training.tokens import TrainPython, TrainPythonReference, TrainSudokuTokens

SMALL = {"preset": "smoke", "steps": 2, "batch": 4, "width": 16, "depth": 1, "heads": 2, "compile": False}


@pytest.fixture
def few_lines(monkeypatch):
    """Lines without a reading of the whole library."""
    texts = {"train": ("import os", "return None", "x = y + 1"), "test": ("import sys", "z = f(x)")}
    monkeypatch.setattr(python, "lines", texts.__getitem__)
    return texts


def test_levels_cover_all_shares_and_a_row_is_never_without_a_mask():
    rng = np.random.default_rng(0)
    x = torch.zeros(64, 4000, dtype=torch.int64)
    shares = tokens.random_masks(x, rng).double().mean(1).sort().values
    assert (shares - (torch.arange(64) + 0.5) / 64).abs().max() < 0.035  # spread evenly, not merely uniform
    tiny = torch.stack([tokens.random_masks(torch.zeros(50, 3), rng) for _ in range(20)])
    assert tiny.any(2).all()
    assert not tiny.all()
    firsts = torch.stack([tokens.random_masks(x, rng).double().mean(1).argmax() for _ in range(20)])
    assert len(firsts.unique()) > 5  # levels go to rows at random


def test_only_hidden_tokens_are_scored_and_none_is_seen():
    x = torch.arange(8).view(2, 4)
    hidden = torch.tensor([[True, False, False, False], [False, True, True, False]])
    seen = []

    def call(read):
        seen.append(read)
        return [F.one_hot(torch.where(hidden, x, 0), 8) * scale for scale in (1.0, 3.0)]

    loss = tokens.masked_loss(call, x, hidden, mask=9)
    assert seen[0].tolist() == [[9, 1, 2, 3], [4, 9, 9, 7]]
    expected = np.mean([np.log(1 + 7 * np.exp(-scale)) for scale in (1, 3)])
    assert torch.allclose(loss.double(), torch.tensor(expected))


def test_the_judge_reads_what_comes_before_and_is_scored_up_to_one_pad():
    x = torch.tensor([[5, 6, 0, 0], [5, 6, 7, 8], [0, 3, 0, 0]])
    assert shifted(x).tolist() == [[96, 5, 6, 0], [96, 5, 6, 7], [96, 0, 3, 0]]
    assert until_pad(x).sum(1).tolist() == [3, 4, 1]
    right = F.one_hot(x, 97).float() * 100
    wrong = right.clone()
    wrong[0, 3] = wrong[2, 1:] = 0
    assert tokens.next_loss(lambda read: [wrong], x) < 1e-6
    wrong[0, 2] = 0
    assert tokens.next_loss(lambda read: [wrong], x) > 0.1


def test_boards_of_a_step_are_valid_and_follow_from_its_number():
    pool = tokens._boards(3, seed=0)
    clean = tokens._shuffled(pool, 0, 16)
    boards = clean(5)
    assert (violations(boards.numpy() + 1) == 0).all()
    assert len(boards.unique(dim=0)) == 16
    assert torch.equal(boards, clean(5))
    assert not torch.equal(boards, clean(6))


def test_a_python_model_is_written_loads_and_predicts(tmp_path, few_lines):
    folder = tmp_path / "mine"
    TrainPython(out=folder, **SMALL).run()
    model = load_model(str(folder), device="cpu")
    assert (model.name, model.length, model.convention.vocabulary, model.convention.mask) == ("mine", 64, 97, 96)
    assert {"features", "timeless", "raw logits"} <= model.offers
    x = characters.encode(["import os", "x"])
    x[:, 0] = 96
    state = State(x, (x == 96).double(), x != 96, torch.arange(2))
    prediction = model.predict(state)
    assert prediction.logits[..., 96].eq(-torch.inf).all()
    assert prediction.features.shape == (2, 64, 16)
    assert model.text(x)[0] == "█mport os"
    card = (folder / "README.md").read_text()
    assert "2 AdamW steps of 4 rows" in card
    assert "3 lines to train on, 2 of other modules" in card
    assert set(json.loads((folder / "config.json").read_text())["metrics"]) == {f"nats_at_{x}" for x in tokens.LEVELS}


def test_training_goes_on_from_the_weights_of_a_folder(tmp_path, few_lines):
    first = TrainPython(out=tmp_path / "first", **SMALL).run()
    still = TrainPython(out=tmp_path / "still", **SMALL, init=tmp_path / "first", rate=1e-12).run()
    for name, value in first.state_dict().items():
        assert torch.allclose(still.state_dict()[name], value, atol=1e-6)
    assert "going on from first" in (tmp_path / "still" / "README.md").read_text()
    assert still.config["edges"]


def test_weights_of_other_shapes_to_start_from_are_one_sentence(tmp_path, few_lines):
    TrainPython(out=tmp_path / "first", **SMALL).run()
    wider = SMALL | {"width": 2 * SMALL["width"]}
    with pytest.raises(RedraftError, match="the weights in .*first have other shapes: give its width, depth and heads"):
        TrainPython(out=tmp_path / "second", **wider, init=tmp_path / "first").run()


def test_a_sudoku_model_is_written_loads_and_predicts(tmp_path):
    TrainSudokuTokens(out=tmp_path / "board", boards=4, passes=2, **SMALL).run()
    model = load_model(str(tmp_path / "board"), device="cpu")
    x = torch.full((1, 81), 9)
    prediction = model.predict(State(x, torch.ones(1, 81), torch.zeros(1, 81).bool(), torch.arange(1)))
    assert prediction.logits.shape == (1, 81, 10)
    assert (model.length, model.graph.shape) == (81, (81, 81))
    assert model.net.config["passes"] == 2
    assert prediction.clean.max() < 9


def test_critics_in_a_models_folder_come_with_it(tmp_path):
    folder = tmp_path / "board"
    net = TrainSudokuTokens(out=folder, boards=4, **SMALL).run()
    save_critic(BlocksCritic.copy(net, 1), folder / "critics" / "own", "A card.")
    model = load_model(str(folder), device="cpu")
    assert set(model.critics) == {"own"}
    assert "critic:own" in model.offers
    state = State(torch.zeros(2, 81).long(), torch.zeros(2, 81), torch.zeros(2, 81).bool(), torch.arange(2))
    assert model.judge("own", state.x, state).shape == (2, 81)


def test_a_folder_of_another_vocabulary_is_refused(tmp_path):
    TrainSudokuTokens(out=tmp_path / "board", boards=4, **SMALL).run()
    path = tmp_path / "board" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model": "python"}))
    with pytest.raises(RedraftError, match="a vocabulary of 10 tokens, where 97 are asked for"):
        load_model(str(tmp_path / "board"))


def test_a_judge_is_written_loads_and_is_no_model_to_sample_from(tmp_path, few_lines):
    net = TrainPythonReference(out=tmp_path / "judge", **SMALL).run()
    x = characters.encode(list(few_lines["test"]))
    nats = load_reference(str(tmp_path / "judge"), "cpu").nll(x)
    weights = torch.tensor([len(text) + 1 for text in few_lines["test"]])
    with torch.no_grad():
        assert torch.allclose((nats * weights).sum() / weights.sum(), tokens.next_loss(net.pass_logits, x).double())
    with pytest.raises(RedraftError, match="not a model that can be sampled from"):
        load_model(str(tmp_path / "judge"))


def test_training_lowers_the_loss(tmp_path, few_lines):
    settings = SMALL | {"steps": 60, "batch": 16, "rate": 1e-2}
    TrainPython(out=tmp_path / "more", **settings).run()
    TrainPython(out=tmp_path / "less", **SMALL).run()
    more, less = (json.loads((tmp_path / n / "config.json").read_text())["metrics"] for n in ("more", "less"))
    assert more["nats_at_0.5"] < less["nats_at_0.5"] - 1


@pytest.mark.parametrize("recipe", [TrainPython, TrainSudokuTokens, TrainPythonReference])
def test_an_unknown_preset_is_refused(recipe):
    with pytest.raises(RedraftError, match="unknown preset 'cppu'; did you mean 'cpu'"):
        recipe(preset="cppu").run()
