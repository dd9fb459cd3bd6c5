"""The verifiers of the task `digits`."""

import pytest
import torch

import redraft
from redraft import BestOfN, Halving, Parallel, Paths, ZeroOrder
from redraft.tasks.class_digits import pictures
from redraft.tasks.digits import load_digits
from redraft.testing import check_method, check_verifier

TASK = redraft.load_task("digits")
NAMES = ("digit-classifier", "digit-oracle", "digit-agreement")
SAMPLER = Parallel(4, order=2)


@pytest.fixture(scope="module")
def model():
    return redraft.load_model("digits", device="cpu")


def shown(n=200):
    """Test pictures, and problems that ask for them."""
    problems = TASK.problems(n)
    problems.cond["label"] = problems.facts["label"] = load_digits("test").labels[:n]
    return pictures("test")[:n], problems


@pytest.mark.parametrize("name", NAMES)
def test_contracts(name, model):
    check_verifier(redraft.load_verifier(name, TASK, model), *shown(5))


@pytest.mark.parametrize("name", NAMES)
def test_they_load_without_anything_else(name):
    samples, problems = shown(3)
    assert redraft.load_verifier(name)(samples, problems).shape == (3,)


def test_the_oracle_is_the_task_s_metric_and_the_guide_is_not():
    samples, problems = shown()
    guide, oracle = (redraft.load_verifier(name, TASK)(samples, problems) for name in NAMES[:2])
    assert torch.allclose(oracle, TASK.evaluate(samples, problems)["log_probability"].double(), atol=1e-5)
    assert not torch.allclose(guide, oracle, atol=0.05)
    assert (guide > -0.7).double().mean() > 0.95  # more likely than not, the wanted digit


def test_a_picture_of_another_digit_scores_less():
    samples, problems = shown()
    for name in NAMES[:2]:
        verifier = redraft.load_verifier(name, TASK)
        right = verifier(samples, problems)
        problems.cond["label"] = (problems.facts["label"] + 1) % 10
        assert (verifier(samples, problems) < right - 1).double().mean() > 0.9
        problems.cond["label"] = problems.facts["label"]


def test_the_model_agrees_with_digits_and_not_with_noise(model):
    samples, problems = shown()
    verifier = redraft.load_verifier("digit-agreement", TASK, model)
    noise = torch.rand(samples.shape, generator=torch.Generator().manual_seed(0))
    assert verifier(samples, problems).mean() > verifier(noise, problems).mean() + 0.2
    gentle = redraft.load_verifier("digit-agreement", TASK, model, level=0.01)
    assert gentle(samples, problems).min() > 0.95  # hardly noised, hardly changed


def test_the_network_rows_of_agreement_are_counted(model):
    problems = TASK.problems(4)
    for given, each in ((model, 2), (model.guided(1.5), 3)):
        verifier = redraft.load_verifier("digit-agreement", TASK, given)
        result = redraft.run(BestOfN(3, sampler=SAMPLER), given, problems, verifier=verifier)
        assert result.ledger.verifier_calls.tolist() == [3 * each] * 4
        assert result.ledger.nfe.tolist() == [3 * 7 * (each - 1)] * 4


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", [ZeroOrder(3, 2, sampler=SAMPLER), Halving(6, (0.5,), sampler=SAMPLER)])
def test_searches_raise_what_guides_them(name, method, model):
    problems = TASK.problems(40)
    verifier = redraft.load_verifier(name, TASK, model)
    plain = redraft.run(redraft.Generate(SAMPLER), model, problems).samples
    found = redraft.run(method, model, problems, verifier=verifier).samples
    assert verifier(found, problems).mean() > verifier(plain, problems).mean() + 0.01


def test_a_problem_alone_is_searched_as_among_others(model):
    problems = TASK.problems(5)
    for method in (
        Paths(2, 2, level=0.4, forward=0.3, backward=0.5, sampler=SAMPLER),
        ZeroOrder(2, 2, sampler=SAMPLER),
    ):
        for name in NAMES:
            verifier = redraft.load_verifier(name, TASK, model)
            whole = redraft.run(method, model, problems, verifier=verifier).samples
            alone = redraft.run(method, model, problems[3:4], verifier=verifier).samples
            assert torch.allclose(alone[0], whole[3], atol=1e-5)


def test_methods_keep_their_promises(model):
    check_method(redraft.Generate(SAMPLER), model, TASK.problems(3))
