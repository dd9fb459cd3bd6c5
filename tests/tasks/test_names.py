"""Unknown names of the Sudoku task suggest the nearest."""

import pytest

from redraft import RedraftError, load_task, load_verifier


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"difficulty": "herd"}, "unknown difficulty 'herd'; did you mean 'hard'"),
        ({"split": "tests"}, "unknown split 'tests'; did you mean 'test'"),
        ({"n": 0}, "n is 0: ask for 1 puzzle or more"),
    ],
)
def test_what_the_task_does_not_know_is_one_sentence(settings, message):
    with pytest.raises(RedraftError, match=message):
        load_task("sudoku").problems(**{"n": 1} | settings)


@pytest.mark.parametrize("name", ["sudoku", "sudoku-tokens", "python", "digits", "markov"])
@pytest.mark.parametrize("seed", [-1, 2**20])
def test_seeds_whose_ids_would_be_another_s_are_refused(name, seed):
    with pytest.raises(RedraftError, match="it must lie in"):
        load_task(name).problems(1, seed=seed)


def test_a_setting_that_a_task_has_not_is_one_sentence():
    with pytest.raises(RedraftError, match="unknown setting of task 'markov' 'lenght'; did you mean 'length'"):
        load_task("markov", lenght=3)


def test_a_task_without_boards_has_no_violations():
    with pytest.raises(RedraftError, match="'python' has no rules that a board can break"):
        load_verifier("violations", task=load_task("python"))
