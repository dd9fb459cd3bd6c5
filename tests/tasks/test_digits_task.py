"""The task `digits`: balanced problems, and metrics that tell pictures from noise and copies."""

import pytest
import torch

from redraft import RedraftError, load_task
from redraft.tasks.class_digits import nearest, pictures
from redraft.tasks.digits import load_digits
from redraft.tasks.judges import load_judge

TASK = load_task("digits")


def shown(split, n=None):
    """Real pictures as samples, and problems that ask for them."""
    labels = load_digits(split).labels[:n]
    problems = TASK.problems(len(labels))
    problems.facts["label"], problems.cond["label"] = labels, labels
    return pictures(split)[:n], problems


def test_every_ten_problems_ask_for_every_digit():
    label = TASK.problems(1000, seed=3).cond["label"]
    assert (label.view(100, 10).sort(1).values == torch.arange(10)).all()
    assert len({tuple(row) for row in label.view(100, 10).tolist()}) > 90


def test_a_problem_follows_from_seed_split_and_number():
    few, many = TASK.problems(7, seed=1), TASK.problems(25, seed=1)
    assert torch.equal(few.ids, many.ids[:7])
    assert torch.equal(few.cond["label"], many.cond["label"][:7])
    sets = [set(TASK.problems(50, seed, split).ids.tolist()) for seed in (0, 1) for split in ("train", "test")]
    assert len(set.union(*sets)) == 200


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"split": "tests"}, "unknown split 'tests'; did you mean 'test'"),
        ({"n": 0}, "n is 0: it must be a whole number of 1 or more"),
    ],
)
def test_what_the_task_does_not_know_is_one_sentence(settings, message):
    with pytest.raises(RedraftError, match=message):
        TASK.problems(**{"n": 1} | settings)


def test_real_pictures_are_read_right_and_noise_is_not():
    metrics = TASK.evaluate(*shown("test"))
    assert metrics["right"].double().mean() > 0.97
    assert metrics["log_probability"].mean() > -0.2
    samples, problems = shown("test")
    noise = torch.rand(samples.shape, generator=torch.Generator().manual_seed(0))
    assert TASK.evaluate(noise, problems)["right"].double().mean() < 0.3


def test_copies_of_training_pictures_are_found():
    train, problems = shown("train", 30)
    assert (TASK.evaluate(train, problems)["nearest"] < 1e-3).all()
    assert (TASK.evaluate(*shown("test", 30))["nearest"] > 0.05).all()
    moved = (train + 0.1).flatten(1)  # a tenth brighter in every pixel
    assert nearest(moved.view_as(train), train).max() < 0.1 + 1e-6


def test_scores_of_sets_know_the_reference_and_tell_noise_and_collapse():
    test = pictures("test")
    same = TASK.of_the_set(test)
    assert same["frechet_distance"] < 1e-6
    assert same["precision"] == same["recall"] == 1
    train = TASK.of_the_set(pictures("train")[:360])
    noise = TASK.of_the_set(torch.rand(test.shape, generator=torch.Generator().manual_seed(0)))
    assert noise["frechet_distance"] > 10 * train["frechet_distance"]
    assert noise["inception_score"] < 3 < 7 < train["inception_score"]
    bright = test[TASK.read(test).max(1).values.argsort()[-36:]].repeat(10, 1, 1, 1)
    bright = bright + 1e-3 * torch.randn(bright.shape, generator=torch.Generator().manual_seed(0))
    collapsed = TASK.of_the_set(bright)
    assert collapsed["recall"] < 0.5 < 0.9 < collapsed["precision"]


def test_other_pictures_than_the_judges_know_are_one_sentence():
    with pytest.raises(RedraftError, match="reads pictures of 8 x 8 pixels"):
        TASK.read(torch.zeros(2, 1, 28, 28))
    with pytest.raises(RedraftError, match="redraft train digits-judges --mnist somewhere"):
        load_task("digits", mnist="somewhere").read(torch.zeros(2, 1, 28, 28))
    with pytest.raises(RedraftError, match="unknown judge 'held-oot'; did you mean 'held-out'"):
        load_judge("held-oot")
