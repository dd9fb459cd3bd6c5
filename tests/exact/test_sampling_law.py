"""Ancestral sampling of the regions one after another draws from the exact conditional law."""

import pytest
import torch
from checks import CERTAIN, FALSE_ALARM, gaussian_p
from models_exact import LinearGaussian, noise_state

from redraft import Sequential
from redraft.core.streams import Streams
from redraft.samplers import sample

STEPS, ROWS = 24, 5000


def conditional_law(model, frozen=(1,), seed=0, **settings):
    """The p-value that free regions, given exact draws of the frozen ones, follow the conditional law."""
    x = model.draw(ROWS, seed)
    problems = model.problems(x, frozen)
    sampler = Sequential(**{"steps_per_region": STEPS, "stochasticity": 1.0} | settings)
    out = sample(sampler, model, noise_state(model, problems, seed=seed), Streams.root(seed, problems.ids)).x
    assert torch.equal(out[:, list(frozen)], x[:, list(frozen)])
    u, mean, covariance = model.conditional(x, frozen)
    residual = out.double().flatten(1)[:, u] - mean
    return gaussian_p(residual, torch.zeros(len(u)), covariance)


@pytest.mark.parametrize("order", ["uncertainty", "random", "raster", "graph"])
def test_sequential_sampling_has_the_conditional_law_in_every_order(order):
    assert conditional_law(LinearGaussian(step=1 / STEPS), order=order) > FALSE_ALARM


def test_sequential_sampling_without_givens_has_the_joint_law():
    assert conditional_law(LinearGaussian(step=1 / STEPS), frozen=(), seed=1) > FALSE_ALARM


def test_regions_of_two_values_have_the_conditional_law_with_many_steps():
    """Here the step's variance is right on the diagonal only, so that it takes more steps."""
    model = LinearGaussian(regions=3, values=2, step=1 / 60)
    assert conditional_law(model, steps_per_region=60, seed=2) > FALSE_ALARM


@pytest.mark.parametrize(
    ("control", "settings"),
    [
        (LinearGaussian(step=1 / STEPS, alone=True), {}),
        (LinearGaussian(step=1 / STEPS), {"temperature": 0.7}),
        (LinearGaussian(step=1.0), {"steps_per_region": 1}),
        (LinearGaussian(), {"steps_per_region": 3}),
        (LinearGaussian(step=1 / STEPS), {"regions_per_block": 3, "steps_per_region": 2}),
    ],
    ids=["no context", "cold", "one step", "few steps of the smallest variance", "few steps together"],
)
def test_the_conditional_check_rejects(control, settings):
    assert conditional_law(control, **settings) < CERTAIN
