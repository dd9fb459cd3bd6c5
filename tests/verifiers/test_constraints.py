"""What tasks know, as verifiers: against their own metrics, broken by hand."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from redraft import RedraftError
from redraft.core.content import content
from redraft.core.registry import VERIFIERS
from redraft.core.task import Problems
from redraft.models import characters
from redraft.models.reference import Reference
from redraft.tasks.boards import UNITS
from redraft.tasks.class_digits import ClassDigits
from redraft.tasks.markov import Markov
from redraft.tasks.python import Python
from redraft.tasks.sudoku import Sudoku
from redraft.tasks.sudoku_tokens import SudokuTokens
from redraft.verifiers import Batched, Metric, likelihood, parses, violations

# ---- sudoku


def clash(board, cell, other):
    """The board with `other`'s content in `cell`, and the cells that then break a rule: equal, and in one unit."""
    changed = board.clone()
    changed[cell] = board[other]
    peers = {i for unit in UNITS if cell in unit for i in unit.tolist()} - {cell}
    return changed, sorted({cell} | {i for i in peers if bool((board[i] == changed[cell]).all())})


def test_violations_of_tokens_are_counted_and_the_cells_that_clash_are_blamed():
    task = SudokuTokens()
    problems = task.problems(3)
    boards = problems.facts["solution"] - 1
    boards[1], faults = clash(boards[1], 40, 41)
    boards[2, 7] = 9  # a mask breaks no rule, but its digit is missing in three units
    verifier = Batched(violations(task))
    assert verifier.blames
    scores = verifier(boards, problems)
    assert scores[0] == 0
    assert scores[1] == -task.evaluate(boards, problems)["violations"][1] < -3
    assert scores[2] == -3
    blame = verifier.blame(boards, problems)
    assert blame.shape == (3, 81)
    assert blame[0].sum() == blame[2].sum() == 0
    assert blame[1].nonzero()[:, 0].tolist() == faults
    assert len(faults) == 3  # the cell, its neighbour in the row and the box, and one in the column


def test_violations_of_pictures_are_read_from_them():
    task = Sudoku()
    problems = task.problems(2, difficulty="easy")
    pictures = problems.x.clone()
    pictures[1, 40] = pictures[1, 41]
    verifier = Batched(violations(task))
    read = task.read(pictures)[0]
    assert torch.equal(verifier(pictures, problems), -task.evaluate(pictures, problems)["violations"].double())
    assert verifier(pictures, problems)[1] < verifier(pictures, problems)[0]
    blame = verifier.blame(pictures, problems)
    assert blame[1, [40, 41]].tolist() == [1, 1]
    for i in range(81):  # by the rule, cell by cell
        units = [unit for unit in UNITS if i in unit]
        repeated = any(np.count_nonzero(read[1].numpy()[unit] == int(read[1, i])) > 1 for unit in units)
        assert bool(blame[1, i]) == repeated


def test_equal_boards_of_different_problems_are_read_once():
    task = SudokuTokens()
    problems = task.problems(3)
    calls = []

    @dataclass(frozen=True)
    class Watched(SudokuTokens):
        def evaluate(self, samples, problems):
            calls.append(len(samples))
            return super().evaluate(samples, problems)

    Batched(violations(Watched()))((problems.facts["solution"] - 1)[[0, 0, 1]], problems)
    assert calls == [2]


# ---- python


def lines(*texts):
    return characters.encode(list(texts))


def test_lines_that_parse_score_1_and_no_network_is_asked(monkeypatch):
    monkeypatch.setattr(Python, "nll", lambda self, samples: 1 / 0)
    monkeypatch.setattr(Python, "evaluate", lambda self, samples, problems: 1 / 0)
    samples = lines("return 1", "retrun 1", "x = [", "import os", "if True: x")
    samples[3, 20] = 50  # something after the end
    assert Batched(parses())(samples, Python().problems(5)).tolist() == [1, 0, 0, 0, 1]


@pytest.fixture
def reference(monkeypatch):
    """A small random judge in place of the one that ships."""
    from redraft.models.nets.transformer import Transformer

    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Transformer(vocabulary=characters.VOCABULARY, width=20, depth=1, heads=5, causal=True)
    judge = Reference(net.eval())
    monkeypatch.setattr("redraft.models.reference.load_reference", lambda folder, device: judge)
    return judge


def test_likelihood_of_python_is_minus_the_judges_nats_and_empty_lines_have_a_score(reference):
    samples = lines("import os", "", "x")
    with torch.no_grad():
        scores = Batched(likelihood())(samples, Python().problems(3))
        assert torch.equal(scores[[0, 2]], -reference.nll(samples)[[0, 2]])
        assert (scores[[0, 2]] < 0).all()
        assert scores[1] == -20
        assert Batched(likelihood(floor=-7.0))(samples, Python().problems(3))[1] == -7


# ---- markov


def test_likelihood_of_a_chain_is_exact():
    task = Markov(states=3, length=4)
    x = torch.tensor([[0, 1, 2, 2], [2, 2, 2, 2], [0, 3, 1, 1]])
    scores = Batched(likelihood(task))(x, task.problems(3))
    for row in range(2):
        p = float(task.chain.initial[x[row, 0]])
        for a, b in zip(x[row, :-1], x[row, 1:], strict=True):
            p *= float(task.chain.transition[a, b])
        assert scores[row] == pytest.approx(math.log(p), abs=1e-10)
    assert scores[2] == -1000  # a mask is left


# ---- any metric


@dataclass(frozen=True)
class Thing:
    name = "thing"

    def evaluate(self, samples: torch.Tensor, problems: Problems) -> dict[str, torch.Tensor]:
        return {"far": samples[:, 0] - problems.ids, "odd": samples[:, 0] % 2 == 1}


def test_any_metric_of_a_task_is_a_verifier_with_its_sign():
    problems = SudokuTokens().problems(3)
    samples = problems.ids[:, None] + torch.tensor([[1], [3], [4]])
    assert Batched(Metric(Thing(), "far", sign=-1))(samples, problems).tolist() == [-1, -3, -4]
    assert Batched(Metric(Thing(), "far"))(samples, problems).tolist() == [1, 3, 4]
    assert set(Batched(Metric(Thing(), "odd"))(samples, problems).tolist()) == {0, 1}
    with pytest.raises(RedraftError, match="unknown metric 'fat'; did you mean 'far'"):
        Metric(Thing(), "fat")(samples, problems)
    with pytest.raises(RedraftError, match="the metric 'far' blames no region"):
        Metric(Thing(), "far").blame(samples, problems)
    assert not Batched(Metric(Thing(), "far")).blames


def test_a_metric_without_a_number_is_an_error_unless_there_is_a_floor():
    problems = SudokuTokens().problems(3)  # 'hard': there may be more solutions, so 'solved' is NaN
    boards = problems.facts["solution"] - 1
    with pytest.raises(RedraftError, match="NaN or infinity .sample number 0"):
        Batched(Metric(SudokuTokens(), "solved"))(boards, problems)
    assert Batched(Metric(SudokuTokens(), "solved", floor=-1.0))(boards, problems).tolist() == [-1] * 3
    assert Batched(Metric(SudokuTokens(), "valid", floor=-1.0))(boards, problems).tolist() == [1] * 3


# ---- names


def test_every_shipped_verifier_can_be_imported():
    assert all(callable(VERIFIERS[name]) for name in VERIFIERS)
    assert {"violations", "parses", "likelihood", "toxicity", "perplexity", "mean-rank"} <= set(VERIFIERS)


def test_judges_and_readers_are_known_by_their_files(tmp_path):
    """In a folder of one name there may be others at the next start."""
    for make in (
        lambda: Python(reference=str(tmp_path)),
        lambda: ClassDigits(judges=str(tmp_path)),
        lambda: Sudoku(reader=str(tmp_path)),
    ):
        (tmp_path / "model.safetensors").write_bytes(b"one")
        one = content(Metric(make(), "violations"))
        assert content(Metric(make(), "violations")) == one
        (tmp_path / "model.safetensors").write_bytes(b"two")
        assert content(Metric(make(), "violations")) != one
    assert content(Metric(Python(), "nll")) != content(Metric(Python(line_kind="raise"), "nll"))
    assert content(Metric(Python(reference="nowhere"), "nll")) != content(Metric(Python(), "nll"))
