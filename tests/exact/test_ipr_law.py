"""IPR is a random-scan block Gibbs sampler: it leaves the model's law as it is, and goes to it from any other."""

import pytest
import torch
from checks import CERTAIN, FALSE_ALARM, gaussian_p
from models_exact import LinearGaussian

import redraft
from redraft import IPR, Disagreement, Sequential, Sweep

STEPS, ROWS = 20, 3000


def refiner(**settings):
    return Sequential(**{"steps_per_region": STEPS, "stochasticity": 1.0} | settings)


def joint_law(model, iterations, start, frozen=(), ratio=0.5, seed=0, refine=None, **settings):
    """The p-value that drafts follow the joint law after `iterations` from `start` (ROWS, R, k)."""
    method = IPR(iterations=iterations, ratio=ratio, refine=refine or refiner(), **settings)
    result = redraft.run(method, model, model.problems(start, frozen), start=start, seed=seed)
    assert len(result.trace) == ROWS * (iterations + 1)
    return gaussian_p(result.samples.flatten(1), model.mean, model.covariance)


def invariant(model, seed=0, **settings):
    return joint_law(model, 4, model.draw(ROWS, 10 + seed), seed=seed, **settings)


MODEL = LinearGaussian(step=1 / STEPS)


@pytest.mark.parametrize(
    "settings",
    [{}, {"ratio": 0.25}, {"ratio": 1.0}, {"frozen": (2,)}, {"select": Sweep()}],
    ids=["half", "one region", "all", "one given", "sweep"],
)
def test_ipr_leaves_the_joint_law_as_it_is(settings):
    assert invariant(MODEL, **settings) > FALSE_ALARM


@pytest.mark.parametrize("level", [0.3, 0.6])
def test_ipr_leaves_the_joint_law_as_it_is_from_a_level_below_one(level):
    """One region at a time: all others are clean then, so that one region's exact kernel is the whole one."""
    assert invariant(LinearGaussian(step=level / STEPS), ratio=0.25, level=level) > FALSE_ALARM


def test_the_exact_draws_themselves_pass_the_check():
    assert gaussian_p(MODEL.draw(ROWS, 10).flatten(1), MODEL.mean, MODEL.covariance) > FALSE_ALARM


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        (LinearGaussian(step=1 / STEPS, alone=True), {}),
        (MODEL, {"refine": refiner(temperature=0.7)}),
        (LinearGaussian(step=1.0), {"refine": refiner(steps_per_region=1)}),
        (MODEL, {"keep": Disagreement()}),
    ],
    ids=["no context", "cold", "one step", "greedy"],
)
def test_the_invariance_check_rejects(model, settings):
    assert invariant(model, **settings) < CERTAIN


def test_ipr_goes_to_the_right_law_from_a_wrong_one():
    model = LinearGaussian(correlation=0.4, step=1 / STEPS)  # where random-scan Gibbs mixes in a few rounds
    start = 2 * torch.randn(ROWS, *model.shape, generator=torch.Generator().manual_seed(0)) - 3
    assert joint_law(model, 1, start, ratio=0.75) < CERTAIN
    assert joint_law(model, 9, start, ratio=0.75) > FALSE_ALARM


def test_ipr_with_fixed_noise_does_not_go_to_the_right_law_under_the_deterministic_flow():
    """A control for the noise itself: each region is one and the same function of its context in every round."""
    start = MODEL.draw(ROWS, 3)
    fixed = {"refine": refiner(stochasticity=0.0), "ratio": 0.25, "noise": "fixed"}
    assert joint_law(MODEL, 12, start, **fixed) < CERTAIN
