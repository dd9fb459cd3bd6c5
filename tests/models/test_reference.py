"""The token models that ship know what they were trained on, and the judge tells code from noise."""

import pytest
import torch

from redraft import load_model
from redraft.core.state import State
from redraft.models import characters
from redraft.models.nets.transformer import Transformer
from redraft.models.reference import load_reference, transformer_forward
from redraft.tasks import python
from redraft.tasks.sudoku_tokens import SudokuTokens


def predicted(model, problems):
    """What one pass says of the free tokens of `problems`."""
    start = problems.state()
    masked = start.to(start.x.masked_fill(start.free, model.convention.mask), start.t)
    return model.predict(masked)


@pytest.fixture
def few_lines(monkeypatch):
    """Held-out lines (as of Python 3.11) without a reading of the whole library."""
    texts = ("self.assertEqual(first, second)", "return self._value", "if not isinstance(value, str):pass")
    monkeypatch.setattr(python, "lines", lambda split: texts)
    return texts


def test_the_python_model_finds_most_single_characters(few_lines):
    model = load_model("python", device="cpu")
    x = characters.encode(list(few_lines))
    hits = []
    for start in range(5):
        masked = torch.arange(64).expand_as(x) % 5 == start
        state = State(x.masked_fill(masked, characters.MASK), masked.double(), ~masked, torch.arange(len(x)))
        hits.append((model.predict(state).clean == x)[masked & (x != characters.PAD)])
    assert torch.cat(hits).double().mean() > 0.5


def test_the_sudoku_model_completes_easy_boards_in_one_pass():
    task, model = SudokuTokens(), load_model("sudoku-tokens", device="cpu")
    problems = task.problems(20, difficulty="easy")
    metrics = task.evaluate(predicted(model, problems).clean, problems)
    assert metrics["valid"].double().mean() > 0.8
    assert metrics["givens_kept"].all()


def test_the_judge_likes_code_better_than_its_letters_in_disorder(few_lines):
    judge = load_reference(device="cpu")
    generator = torch.Generator().manual_seed(0)
    orders = [torch.randperm(len(text), generator=generator).tolist() for text in few_lines]
    jumbled = ["".join(text[i] for i in order) for text, order in zip(few_lines, orders, strict=True)]
    code, noise = judge.nll(characters.encode(list(few_lines))), judge.nll(characters.encode(jumbled))
    assert (code < noise - 1).all()
    assert code.mean() < 2


def test_the_judge_reads_lines_of_all_lengths_together_as_alone():
    judge = load_reference(device="cpu")
    samples = characters.encode(["x" * (7 * i % 64) + "=" * (i % 2) for i in range(70)])  # more than go at once
    nats, features = judge.nll(samples), judge.features(samples)
    assert nats.isnan().tolist() == [row[0] == characters.PAD for row in samples.tolist()]
    for row in (1, 2, 33, 63, 69):
        alone = samples[row : row + 1]
        assert torch.allclose(nats[row], judge.nll(alone)[0], rtol=1e-4)
        assert torch.allclose(features[row], judge.features(alone)[0], atol=1e-4)
        assert not torch.allclose(features[row], features[row - 1], atol=1e-2)


def test_padding_given_as_a_condition_is_hidden_and_parts_change_nothing():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Transformer(7, 16, 1, 2).eval()
    x = torch.arange(20 * 6).view(20, 6) % 7
    visible = torch.arange(6) < torch.arange(20)[:, None] % 5 + 1
    state = State(x, torch.zeros(20, 6), visible, torch.arange(20), {"visible": visible})
    with torch.no_grad():
        logits, features = transformer_forward(net)(x, state)
        for row in (0, 13, 19):
            alone, its = net(x[row : row + 1, visible[row]])
            assert torch.allclose(logits[row, visible[row]], alone[0], atol=1e-5)
            assert torch.allclose(features[row, visible[row]], its[0], atol=1e-5)
