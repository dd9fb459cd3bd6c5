"""Variance-preserving noise: its levels compose, and its reverse step is exact where the answer is known."""

import torch

from redraft.core.state import Prediction, State
from redraft.core.streams import Streams
from redraft.processes.vp import VariancePreserving, noise_in, signal

VP = VariancePreserving()
ROWS = 4


def state(x, level):
    t = torch.full((len(x), 1), level)
    return State(x, t, torch.zeros(len(x), 1, dtype=torch.bool), torch.arange(len(x)))


def streams():
    return Streams.root(0, torch.arange(ROWS))


def test_noise_added_in_two_steps_has_the_law_of_one():
    clean = torch.full((ROWS, 1, 50_000), 2.0)
    start = state(clean, 0.0)
    where, level = torch.ones(ROWS, 1, dtype=torch.bool), torch.full((ROWS, 1), 0.3)
    half = VP.renoise(start, where, level, streams())
    whole = VP.renoise(half, where, level * 3, streams().fold(1))
    for noisy, t in ((half, 0.3), (whole, 0.9)):
        torch.testing.assert_close(noisy.t, torch.full((ROWS, 1), t))
        torch.testing.assert_close(noisy.x.mean(2), torch.full((ROWS, 1), 2 * (1 - t**2) ** 0.5), atol=0.02, rtol=0)
        torch.testing.assert_close(noisy.x.std(2), torch.full((ROWS, 1), t), atol=0.02, rtol=0)
    assert torch.equal(VP.renoise(whole, where, level, streams()).x, whole.x)  # never downwards


def test_the_deterministic_step_keeps_the_noise_and_the_stochastic_one_the_law():
    clean, noise = torch.full((ROWS, 1, 50_000), 1.5), streams().normal((1, 50_000))
    t, lower = torch.full((ROWS, 1), 0.8), torch.full((ROWS, 1), 0.5)
    noisy = state(signal(t)[..., None] * clean + 0.8 * noise, 0.8)
    torch.testing.assert_close(noise_in(noisy, clean), noise, atol=1e-5, rtol=0)
    down = VP.step(noisy, Prediction(clean), lower, streams().fold(1))
    torch.testing.assert_close(down.x, signal(lower)[..., None] * clean + 0.5 * noise, atol=1e-5, rtol=0)
    ancestral = VP.step(noisy, Prediction(clean), lower, streams().fold(1), stochasticity=1.0)
    assert not torch.allclose(ancestral.x, down.x)
    torch.testing.assert_close(ancestral.x.std(2), lower, atol=0.02, rtol=0)
    torch.testing.assert_close(ancestral.x.mean(2), 1.5 * signal(lower), atol=0.02, rtol=0)
    assert torch.equal(VP.step(noisy, Prediction(clean), t, streams()).x, noisy.x)
    assert torch.equal(VP.guess(noisy, Prediction(clean), streams()).x, clean)


def test_only_the_regions_that_are_asked_for_change():
    x = streams().normal((2, 3))
    start = State(x, torch.zeros(ROWS, 2), torch.zeros(ROWS, 2, dtype=torch.bool), torch.arange(ROWS))
    where = torch.tensor([[True, False]]).expand(ROWS, 2)
    noisy = VP.prior(start, where, streams().fold(1))
    assert torch.equal(noisy.x[:, 1], x[:, 1])
    assert noisy.t.tolist() == [[1.0, 0.0]] * ROWS
    assert not torch.allclose(noisy.x[:, 0], x[:, 0])
