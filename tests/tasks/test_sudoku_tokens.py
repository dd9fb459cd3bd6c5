"""Sudoku as tokens: the puzzles of the task with pictures, judged without a reader."""

import pytest
import torch

from redraft import RedraftError, load_task
from redraft.tasks.sudoku import GIVEN
from redraft.tasks.sudoku_tokens import MASK, decode


@pytest.fixture(scope="module")
def task():
    return load_task("sudoku-tokens")


@pytest.mark.parametrize("difficulty", ["hard", "extreme", "corrupted"])
def test_the_puzzles_are_those_of_the_task_with_pictures(task, difficulty):
    pictures = load_task("sudoku")
    ours, theirs = (t.problems(4, seed=2, difficulty=difficulty) for t in (task, pictures))
    assert torch.equal(ours.ids, theirs.ids)
    assert torch.equal(ours.frozen, theirs.frozen)
    assert torch.equal(ours.facts["solution"], theirs.facts["solution"])
    assert torch.equal(ours.x + 1, pictures.read(theirs.x)[0])


def test_solutions_are_valid_and_solved(task):
    problems = task.problems(5, difficulty="extreme")
    metrics = task.evaluate(problems.x, problems)
    assert metrics["valid"].all()
    assert metrics["solved"].eq(1).all()
    assert metrics["givens_kept"].all()
    assert metrics["violations"].eq(0).all()
    assert task.evaluate(task.problems(2).x, task.problems(2))["solved"].isnan().all()


def test_metrics_see_a_swap_a_changed_given_and_a_mask(task):
    problems = task.problems(6, difficulty="medium")
    samples = problems.x.clone()
    other = int((samples[0, :9] != samples[0, 0]).nonzero()[0])
    samples[0, [0, other]] = samples[0, [other, 0]]
    given = int(problems.frozen[1].nonzero()[0])
    samples[1, given] = (samples[1, given] + 1) % 9
    samples[2, int((~problems.frozen[2]).nonzero()[0])] = MASK
    metrics = task.evaluate(samples, problems)
    assert metrics["valid"].tolist() == [False, False, False, True, True, True]
    assert metrics["givens_kept"].tolist() == [not problems.frozen[0, [0, other]].any(), False, True, True, True, True]
    assert metrics["violations"][2] == 3  # the digit is missing in a row, a column and a box
    blame = task.conflicts(samples)
    assert blame[0, [0, other]].all()
    assert not blame[2:].any()


@pytest.mark.parametrize("difficulty", list(GIVEN))
def test_the_number_of_givens_is_in_the_difficultys_range(task, difficulty):
    given = task.problems(20, difficulty=difficulty).frozen.sum(1)
    low, high = GIVEN[difficulty]
    assert low <= given.min()
    assert given.max() <= high


def test_corrupted_boards_are_free_and_wrong_in_at_most_two_cells_a_swap(task):
    problems = task.problems(8, difficulty="corrupted", swaps=3)
    wrong = (problems.x + 1 != problems.facts["solution"]).sum(1)
    assert not problems.frozen.any()
    assert 0 < wrong.max() <= 6
    assert task.evaluate(problems.x, problems)["violations"].max() > 0


def test_a_board_is_read_as_nine_lines_with_dots_for_masks():
    board = torch.arange(81)[None] % 9
    board[0, 1] = MASK
    (text,) = decode(board)
    assert text.splitlines()[:2] == ["1.3456789", "123456789"]


@pytest.mark.parametrize("settings", [{"n": 0}, {"n": 1, "split": "tset"}, {"n": 1, "difficulty": "harsh"}])
def test_problems_that_cannot_be_are_refused(task, settings):
    with pytest.raises(RedraftError):
        task.problems(**settings)


def test_clean_boards_are_valid_and_follow_from_seed_and_split():
    task = load_task("sudoku-tokens")
    clean = task.clean(6, seed=3)
    assert clean.shape == (6, 81)
    assert not task.conflicts(clean).any()
    assert torch.equal(task.clean(4, seed=3), clean[:4])
    assert not torch.equal(task.clean(4, seed=4), clean[:4])
    assert not torch.equal(task.clean(4, seed=3, split="test"), clean[:4])


def test_sets_of_samples_differ_by_pairs_of_one_problem(task):
    two = task.problems(2)
    problems = type(two).cat([two, two[:1]])
    samples = problems.x.clone()
    (free,) = (~problems.frozen[0]).nonzero(as_tuple=True)
    samples[2, free[:5]] = (samples[0, free[:5]] + 1) % 9
    samples[1] = (samples[1] + 1) % 9  # the only sample of its problem
    found = task.evaluate_set(samples, problems)
    assert found == {"differ": pytest.approx(5 / len(free))}
    assert task.evaluate_set(samples[:2], two) == {}
