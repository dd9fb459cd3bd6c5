import pytest
import torch

import redraft
from redraft.tasks.boards import violations
from redraft.tasks.digits import load_digits
from redraft.tasks.glyphs import LEGIBLE, glyphs, load_reader
from redraft.tasks.sudoku import GIVEN, Sudoku


@pytest.fixture(scope="module")
def task() -> Sudoku:
    return redraft.load_task("sudoku")


@pytest.mark.parametrize("difficulty", list(GIVEN))
def test_the_number_of_givens_is_in_the_difficultys_range(task, difficulty):
    given = task.problems(40, difficulty=difficulty).frozen.sum(1)
    low, high = GIVEN[difficulty]
    assert low <= given.min()
    assert given.max() <= high
    assert len(given.unique()) > 5


def test_a_puzzle_does_not_depend_on_how_many_are_made(task):
    few, many = task.problems(2, seed=3), task.problems(5, seed=3)[:2]
    for name in ("ids", "x", "frozen"):
        assert torch.equal(getattr(few, name), getattr(many, name))


def test_seeds_splits_and_difficulties_have_boards_and_ids_of_their_own(task):
    sets = [
        task.problems(4, seed=s, split=p, difficulty=d)
        for s in (0, 1)
        for p in ("train", "test")
        for d in ("hard", "medium", "corrupted")
    ]
    ids = torch.cat([problems.ids for problems in sets])
    boards = torch.cat([problems.facts["solution"] for problems in sets])
    assert len(ids.unique()) == len(ids)
    assert len(boards.unique(dim=0)) == len(boards)


def test_solutions_drawn_with_test_digits_are_valid_and_solved(task):
    problems = task.problems(20, difficulty="extreme")
    metrics = task.evaluate(problems.x, problems)
    assert metrics["valid"].all()
    assert metrics["solved"].eq(1).all()
    assert metrics["givens_kept"].all()
    assert metrics["violations"].eq(0).all()
    assert metrics["confidence"].min() > 0.5


def test_an_extreme_puzzle_has_one_solution(task):
    from redraft.tasks.boards import solutions

    problems = task.problems(3, difficulty="extreme")
    puzzles = problems.facts["solution"] * problems.frozen
    for puzzle, solution in zip(puzzles, problems.facts["solution"], strict=True):
        (found,) = solutions(puzzle.numpy(), limit=2)
        assert (found == solution.numpy()).all()


def test_metrics_see_a_swap_and_a_changed_given(task):
    problems = task.problems(6, difficulty="medium")
    digits = problems.facts["solution"][0]
    other = int((digits[:9] != digits[0]).nonzero()[0])
    samples = problems.x.clone()
    samples[0, [0, other]] = samples[0, [other, 0]]
    given = int(problems.frozen[1].nonzero()[0])
    samples[1, given] += 1e-3
    metrics = task.evaluate(samples, problems)
    assert metrics["valid"].tolist() == [False, True, True, True, True, True]
    assert metrics["violations"][0] > 0
    assert not metrics["givens_kept"][1]
    assert task.conflicts(samples)[0, [0, other]].all()
    assert not task.conflicts(samples)[2:].any()


@pytest.mark.parametrize("swaps", [1, 5])
def test_corrupted_boards_are_full_free_and_wrong_in_at_most_two_cells_a_swap(task, swaps):
    problems = task.problems(12, difficulty="corrupted", swaps=swaps)
    assert not problems.frozen.any()
    read, _ = task.read(problems.x)
    wrong = (read != problems.facts["solution"]).sum(1)
    assert wrong.max() <= 2 * swaps
    assert wrong.float().mean() > swaps
    assert (torch.from_numpy(violations(read.numpy())) > 0).float().mean() > 0.5


def test_the_digits_of_the_splits_never_mix():
    train, test = (glyphs(split).images.flatten(1) for split in ("train", "test"))
    assert torch.cdist(train, test).min() > 0
    assert len(load_digits("train")) + len(load_digits("test")) == 1797


def test_the_reader_reads_held_out_digits():
    digits, reader = load_digits("test"), load_reader()
    right = (reader(digits.images).argmax(-1) == digits.labels).float().mean()
    assert right > 0.97


def test_every_glyph_is_legible():
    pictures, reader = glyphs("test"), load_reader()
    labels = torch.bucketize(torch.arange(len(pictures.images)), pictures.starts, right=True)
    sure = reader(pictures.images).softmax(-1).gather(1, labels[:, None])
    assert sure.min() >= LEGIBLE
    assert labels.unique().tolist() == list(range(1, 10))
