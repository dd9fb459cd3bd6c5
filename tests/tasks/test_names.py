"""Unknown names of the Sudoku task suggest the nearest."""

import pytest

from redraft import RedraftError, load_task


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
