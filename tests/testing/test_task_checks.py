"""The contract test of tasks passes on those that ship, and complains about each that breaks a promise."""

from dataclasses import replace
from itertools import count

import pytest
import torch

from redraft.tasks.markov import Markov
from redraft.tasks.python import Python
from redraft.tasks.sudoku_tokens import SudokuTokens
from redraft.testing import check_task

CALLS = count()


def test_tasks_that_ship_are_sound():
    check_task(Markov(length=8), Markov(length=8).problems(3, seed=5).x)
    boards = SudokuTokens()
    check_task(boards, boards.problems(3, seed=5).x)
    lines = Lines(device="cpu")
    check_task(lines, lines.clean(3))


class Lines(Python):
    evaluate_set = None  # takes seconds, for the lines that samples are compared with


class Differing(Markov):
    def problems(self, n, seed=0, split="test", given=0.0):
        return super().problems(n, seed + n, split, given)


class Forgetful(Markov):
    def problems(self, n, seed=0, split="test", given=0.0):
        return super().problems(n, 0, split, given)


class Averaging(Markov):
    def evaluate(self, samples, problems):
        return {"mean": samples.double().mean().expand(len(samples))}


class Scalar(Markov):
    def evaluate(self, samples, problems):
        return {"mean": samples.double().mean()}


class Sorting(Markov):
    def evaluate(self, samples, problems):
        return {"first": samples[:, 0].sort().values}


class Erasing(Markov):
    def evaluate(self, samples, problems):
        found = super().evaluate(samples, problems)
        samples.zero_()
        return found


class Nameless(Markov):
    name = property()


class Dated(Markov):
    """Facts differ from call to call."""

    def problems(self, n, seed=0, split="test", given=0.0):
        made = super().problems(n, seed, split, given)
        return replace(made, facts={"made": torch.full((n,), next(CALLS))})


class Full(Markov):
    def problems(self, n, seed=0, split="test", given=0.0):
        made = super().problems(n, seed, split, given)
        return replace(made, frozen=torch.ones_like(made.frozen))


class Counted(Markov):
    def problems(self, n, seed=0, split="test", given=0.0):
        made = super().problems(n, seed, split, given)
        return replace(made, frozen=made.frozen.long())


class Wide(Markov):
    def problems(self, n, seed=0, split="test", given=0.0):
        made = super().problems(n, seed, split, given)
        return replace(made, frozen=made.frozen[:, :2])


class Doubling(Markov):
    def problems(self, n, seed=0, split="test", given=0.0):
        return super().problems(2 * n, seed, split, given)


class Training(Markov):
    def problems(self, n, seed=0, split="train", given=0.0):
        return super().problems(n, seed, split, given)


class Rows(Markov):
    def problems(self, n, seed=0, split="test", given=0.0):
        return super().problems(n, seed, split, given).x


class Wavering(Markov):
    def evaluate(self, samples, problems):
        return {"noise": torch.full((len(samples),), next(CALLS))}


class Partial(Markov):
    def evaluate(self, samples, problems):
        return {"first": samples[:, 0]} if len(samples) > 1 else {}


class Listed(Markov):
    def evaluate(self, samples, problems):
        return [samples[:, 0]]


class Refusing(Markov):
    def evaluate(self, samples, problems):
        raise ValueError("no metric today")


class Setless(Markov):
    def evaluate_set(self, samples, problems):
        return {"diversity": samples}


@pytest.mark.parametrize(
    ("task", "complaint"),
    [
        (Differing, "how many are made"),
        (Forgetful, "one id"),
        (Averaging, "mean of a sample depends on its batch"),
        (Scalar, "mean is of shape"),
        (Sorting, "first is out of order"),
        (Erasing, "changes its samples"),
        (Nameless, "the task raised AttributeError"),
        (Dated, "problems change when asked for again"),
        (Full, "every region frozen"),
        (Counted, "frozen is of torch.int64, where truths are asked for"),
        (Wide, r"frozen is of shape \(3, 2\), where \(3, 8\)"),
        (Doubling, "3 problems are asked for, and there are 6"),
        (Training, "not those of seed 0 and split 'test'"),
        (Rows, "what `problems` gives is a value of type Tensor, where Problems is asked for"),
        (Wavering, "noise changes when asked again"),
        (Partial, "first is not there when alone"),
        (Listed, "what `evaluate` gives is a value of type list"),
        (Refusing, "evaluate raised ValueError: no metric today"),
        (Setless, "diversity of the set is a value of type Tensor"),
    ],
)
def test_a_broken_task_is_told_what_is_wrong(task, complaint):
    broken = task(length=8)
    with pytest.raises(AssertionError, match=complaint):
        check_task(broken, torch.tensor([[1, 2, 3, 4, 5, 0, 1, 2], [0] * 8, [2] * 8]))
