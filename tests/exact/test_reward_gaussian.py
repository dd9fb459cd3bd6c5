"""Reward-guided moves of a linear-Gaussian model: under exp(b . x / alpha), N(m, C) becomes N(m + C b / alpha, C)."""

import pytest
import torch
from checks import CERTAIN, FALSE_ALARM, gaussian_p
from models_exact import LinearGaussian

import redraft
from redraft import FK, IPR, IterRef, Metropolis, Parallel, Reward, Sequential

STEPS, ROWS, ALPHA = 12, 2000, 0.5
MODEL = LinearGaussian(step=1 / STEPS)
B = torch.tensor([0.3, -0.2, 0.1, 0.25], dtype=torch.float64)
EXACT = Sequential(STEPS, stochasticity=1.0)


def verifier(samples, given):
    return samples.double().flatten(1) @ B


def tilted_mean(alpha=ALPHA):
    return MODEL.mean + MODEL.covariance @ B / alpha


def moved_p(method, rows=ROWS):
    start = MODEL.draw(rows, 5) + (tilted_mean() - MODEL.mean).view(1, *MODEL.shape).float()
    result = redraft.run(method, MODEL, MODEL.problems(start), verifier=verifier, start=start)
    return gaussian_p(result.samples.flatten(1), tilted_mean(), MODEL.covariance)


@pytest.mark.parametrize("a", [0.0, 1.0])
def test_iterref_leaves_the_tilted_gaussian_as_it_is(a):
    settings = {"levels": (0.0,), "distance": 1.0, "moves": 1, "candidates": 2, "rounds": 2, "a": a, "sampler": EXACT}
    assert moved_p(IterRef(reward=Reward(ALPHA), **settings)) > FALSE_ALARM
    assert moved_p(IterRef(reward=Reward(10 * ALPHA), **settings)) < CERTAIN


def test_ipr_under_metropolis_leaves_the_tilted_gaussian_as_it_is():
    assert moved_p(IPR(3, 0.5, refine=EXACT, keep=Metropolis(ALPHA))) > FALSE_ALARM
    assert moved_p(IPR(3, 0.5, refine=EXACT, keep=Metropolis(10 * ALPHA))) < CERTAIN


def test_steering_an_ordinary_sampler_moves_it_toward_the_tilted_mean():
    """FK over parallel steps, where the posterior mean's reward is the value: linear, so the evidence is well known."""
    given = MODEL.problems(torch.zeros(400, *MODEL.shape))
    base = redraft.run(IPR(0, initial=Parallel(STEPS, stochasticity=1.0)), MODEL, given).samples
    steered = redraft.run(
        FK(16, Reward(ALPHA), every=3, choose="weight", sampler=Parallel(STEPS, stochasticity=1.0)),
        MODEL,
        given,
        verifier=verifier,
    ).samples
    gain = verifier(steered, None).mean() - verifier(base, None).mean()
    expected = B @ MODEL.covariance @ B / ALPHA
    assert 0.6 * expected < gain < 1.4 * expected
