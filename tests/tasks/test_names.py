"""Unknown names of the Sudoku task suggest the nearest."""

import numpy as np
import pytest
import torch

from redraft import RedraftError, load_task, load_verifier

NAMES = ["sudoku", "sudoku-tokens", "python", "digits", "markov"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"difficulty": "herd"}, "unknown difficulty 'herd'; did you mean 'hard'"),
        ({"split": "tests"}, "unknown split 'tests'; did you mean 'test'"),
        ({"n": 0}, "n is 0: it must be a whole number of 1 or more"),
    ],
)
def test_what_the_task_does_not_know_is_one_sentence(settings, message):
    with pytest.raises(RedraftError, match=message):
        load_task("sudoku").problems(**{"n": 1} | settings)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n", [2.5, "3", True, None, 0, -1, 2**24, 99_999_999_999])
def test_what_is_no_number_of_problems_is_one_sentence(name, n):
    """From 2**24 on a seed would have ids of the next one's."""
    with pytest.raises(RedraftError, match=f"n is {n!r}: it must be a whole number of 1 or more"):
        load_task(name).problems(n)


@pytest.mark.parametrize("name", NAMES)
def test_a_number_of_problems_may_be_numpy_s(name):
    few, many = (load_task(name).problems(n) for n in (np.int64(2), 2))
    assert torch.equal(few.ids, many.ids)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", [-1, 2**20])
def test_seeds_whose_ids_would_be_another_s_are_refused(name, seed):
    with pytest.raises(RedraftError, match=f"seed is {seed}: it must be a whole number from 0 to"):
        load_task(name).problems(1, seed=seed)


def test_a_setting_that_a_task_has_not_is_one_sentence():
    with pytest.raises(RedraftError, match="unknown setting of task 'markov' 'lenght'; did you mean 'length'"):
        load_task("markov", lenght=3)


def test_a_task_without_boards_has_no_violations():
    with pytest.raises(RedraftError, match="'python' has no rules that a board can break"):
        load_verifier("violations", task=load_task("python"))
