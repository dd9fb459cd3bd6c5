"""Samples that are not a task's, or not for these problems, are one sentence."""

import pytest
import torch

from redraft import RedraftError, load_task

NAMES = ["sudoku", "sudoku-tokens", "python", "digits", "markov"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda x: torch.zeros(2, 3).to(x), r"samples have shape \(3,\), and the problems' values \("),
        (lambda x: x[..., None], r"samples have shape \(.*, 1\), and the problems' values \("),
        (lambda x: x[:1], "there are 1 samples for 2 problems: give one for each"),
        (lambda x: x[0].flatten()[0], "there are 0 samples for 2 problems"),
        (lambda x: x.tolist(), "samples are a list: give a tensor"),
    ],
    ids=["regions", "axis", "rows", "number", "list"],
)
def test_samples_of_another_form_are_refused(name, change, sentence):
    task = load_task(name)
    problems = task.problems(2)
    with pytest.raises(RedraftError, match=sentence):
        task.evaluate(change(problems.x), problems)


@pytest.mark.parametrize(("name", "mask"), [("sudoku-tokens", 9), ("python", 96), ("markov", 6)])
def test_ids_outside_the_vocabulary_are_refused_and_the_mask_is_inside(name, mask):
    task = load_task(name)
    problems = task.problems(2)
    task.evaluate(torch.full_like(problems.x, mask), problems)
    for wrong in (-1, mask + 1):
        with pytest.raises(RedraftError, match=f"samples hold the id {wrong}: ids lie in 0 to {mask}"):
            task.evaluate(problems.x.index_fill(1, torch.tensor([5]), wrong), problems)
    for dtype in (torch.float32, torch.bool):
        with pytest.raises(RedraftError, match=f"samples are of {dtype}, where ids from 0 to {mask}"):
            task.evaluate(torch.zeros_like(problems.x).to(dtype), problems)


@pytest.mark.parametrize("name", ["sudoku", "sudoku-tokens", "python", "digits"])
def test_problems_of_another_task_are_refused(name):
    others = load_task("markov").problems(2)
    with pytest.raises(RedraftError, match="the problems have no fact '.*': they are another task's"):
        load_task(name).evaluate(others.x, others)


def test_a_chain_reads_problems_that_know_nothing():
    task = load_task("markov")
    assert task.evaluate(torch.zeros(2, 24).long(), task.problems(2))["log_likelihood"].isfinite().all()


@pytest.mark.parametrize("name", ["sudoku-tokens", "python"])
def test_a_set_is_checked_like_its_samples(name):
    task = load_task(name)
    problems = task.problems(2)
    with pytest.raises(RedraftError, match="there are 1 samples for 2 problems"):
        task.evaluate_set(problems.x[:1], problems)
