"""The deterministic flow and the re-noising of regions, against closed forms."""

import pytest
import torch
from checks import CERTAIN, FALSE_ALARM, gaussian_p
from models_exact import LinearGaussian, noise_state

from redraft import Parallel, Sequential
from redraft.core.state import Prediction, State
from redraft.core.streams import Streams
from redraft.processes.flow import RectifiedFlow
from redraft.samplers import sample

FROZEN = (1,)


def affine(sampler, model, frozen=FROZEN):
    """The map from noise to samples, which is affine: its offset (U,), its matrix (U, U), and the true mean and cov.

    Row 0 starts from no noise at all, row 1 + i from one unit of noise in free value i.
    """
    size = len(model.mean)
    x = model.draw(1, seed=1).expand(size + 1, *model.shape).contiguous()
    u, mean, covariance = model.conditional(x, frozen)
    noise = torch.cat([torch.zeros(1, size), torch.eye(size)])[torch.cat([torch.zeros(1).long(), u + 1])]
    problems = model.problems(x[: len(noise)], frozen)
    state = noise_state(model, problems, noise.view(-1, *model.shape))
    streams = Streams.root(0, torch.zeros_like(problems.ids))  # the same for all rows: one order of the regions
    out = sample(sampler, model, state, streams).x.double().flatten(1)[:, u]
    return out[0], (out[1:] - out[0]).T, mean[0], covariance


def covariance_error(sampler, model, frozen=FROZEN):
    _, matrix, _, covariance = affine(sampler, model, frozen)
    return float((matrix @ matrix.T - covariance).abs().max())


@pytest.mark.parametrize(
    "sampler",
    [
        Parallel(steps=8),
        Parallel(steps=8, order=2),
        Sequential(steps_per_region=4, stochasticity=0),
        Sequential(steps_per_region=4, overlap=0.5, stochasticity=0, order="raster"),
        Sequential(steps_per_region=4, regions_per_block=2, stochasticity=0, order="graph"),
    ],
)
@pytest.mark.parametrize("values", [1, 2])
def test_without_noise_the_flow_ends_at_the_conditional_mean_in_any_number_of_steps(sampler, values):
    offset, _, mean, _ = affine(sampler, LinearGaussian(values=values))
    torch.testing.assert_close(offset, mean, atol=1e-5, rtol=0)


def test_the_mean_check_rejects_a_model_without_context():
    offset, _, mean, _ = affine(Parallel(steps=8), LinearGaussian(alone=True))
    assert (offset - mean).abs().max() > 0.05


@pytest.mark.parametrize(
    ("sampler", "tolerance"),
    [
        (Parallel(steps=400), 0.01),
        (Parallel(steps=60, order=2), 0.001),
        (Sequential(steps_per_region=200, stochasticity=0), 0.02),
        (Sequential(steps_per_region=200, stochasticity=0, order="random"), 0.02),
        (Sequential(steps_per_region=200, overlap=0.6, stochasticity=0, order="raster"), 0.02),
    ],
)
def test_many_steps_of_the_flow_give_the_conditional_covariance(sampler, tolerance):
    assert covariance_error(sampler, LinearGaussian()) < tolerance


def test_the_covariance_check_rejects_a_model_without_context_and_one_with_few_steps():
    assert covariance_error(Parallel(steps=400), LinearGaussian(alone=True)) > 0.05
    assert covariance_error(Parallel(steps=3), LinearGaussian()) > 0.05


@pytest.mark.parametrize(("order", "factor"), [(1, 2), (2, 4)])
def test_euler_converges_at_first_order_and_heun_at_second(order, factor):
    errors = [covariance_error(Parallel(steps=n, order=order), LinearGaussian(values=2)) for n in (20, 40, 80)]
    for coarse, fine in zip(errors, errors[1:], strict=False):
        assert 0.85 * factor < coarse / fine < 1.2 * factor


def test_sequential_walks_converge_at_first_order():
    errors = [covariance_error(Sequential(n, stochasticity=0), LinearGaussian()) for n in (20, 40, 80)]
    for coarse, fine in zip(errors, errors[1:], strict=False):
        assert 1.7 < coarse / fine < 2.4


def renoised(a, b, rows=40_000):
    """Draws (rows, 2) of z_b | x by way of z_a, x fixed, with the mean and covariance of the forward process at b."""
    x = torch.tensor([[0.8, -1.3]])
    ids = torch.arange(rows)
    state = State(x[:, :, None].expand(rows, 2, 1), torch.zeros(rows, 2), torch.zeros(rows, 2, dtype=torch.bool), ids)
    flow, streams, everywhere = RectifiedFlow(), Streams.root(3, ids), torch.ones(rows, 2, dtype=torch.bool)
    for number, level in enumerate((a, b)):
        levels = torch.tensor(level).expand(rows, 2)
        state = flow.renoise(state, everywhere, levels, streams.fold(number))
        assert torch.equal(state.t, torch.tensor(level).expand(rows, 2))
    b = torch.tensor(b).double()
    return state.x[:, :, 0], (1 - b) * x[0].double(), torch.diag(b**2)


@pytest.mark.parametrize("levels", [((0.3, 0.2), (0.7, 0.9)), ((0.5, 0.1), (1.0, 0.11)), ((0.4, 0.6), (1.0, 1.0))])
def test_renoising_in_two_steps_has_the_forward_law_of_one(levels):
    assert gaussian_p(*renoised(*levels)) > FALSE_ALARM


def test_the_renoising_check_rejects_a_variance_that_is_off_by_a_tenth():
    draws, mean, covariance = renoised((0.3, 0.2), (0.7, 0.9))
    assert gaussian_p(draws, mean, 1.1 * covariance) < CERTAIN


def test_renoising_leaves_other_regions_and_lower_levels_bit_for_bit():
    x = Streams.root(0, torch.arange(3)).normal((4, 2))
    t = torch.tensor([[0.0, 0.5, 0.7, 1.0]]).expand(3, 4)
    where = torch.tensor([[True, True, True, True], [True, False, True, False], [False] * 4])
    level = torch.tensor([[0.6, 0.5, 0.6, 1.0]]).expand(3, 4)
    state = State(x, t, torch.zeros_like(where), torch.arange(3))
    after = RectifiedFlow().renoise(state, where, level, Streams.root(1, torch.arange(3)))
    changed = torch.zeros_like(where)
    changed[:2, 0] = True  # only there is the new level above the old
    assert torch.equal((after.x != x).all(2), changed)
    assert torch.equal((after.x != x).any(2), changed)
    assert torch.equal(after.t, torch.where(changed, level, t))
    assert after.t.max() == 1


def test_renoising_to_level_one_is_the_prior():
    x = Streams.root(0, torch.arange(3)).normal((4, 2))
    state = State(x, torch.zeros(3, 4), torch.zeros(3, 4, dtype=torch.bool), torch.arange(3))
    where, streams = x[..., 0] > 0, Streams.root(5, torch.arange(3))
    flow = RectifiedFlow()
    a, b = flow.renoise(state, where, torch.ones(3, 4), streams), flow.prior(state, where, streams)
    assert torch.equal(a.x, b.x)
    assert torch.equal(a.t, b.t)


def test_the_ancestral_step_with_known_data_is_the_bridge():
    """With x0 known, z_s | z_t, x0 of alpha = 1 composed with the forward law at t gives the forward law at s."""
    rows, t, s, x0 = 40_000, 0.8, 0.3, 1.7
    ids, free = torch.arange(rows), torch.zeros(rows, 1, dtype=torch.bool)
    for alpha in (0.0, 0.5, 1.0):
        z = (1 - t) * x0 + t * Streams.root(0, ids).normal((1, 1))
        state = State(z, torch.full((rows, 1), t), free, ids)
        known, level = Prediction(torch.full_like(z, x0)), torch.full((rows, 1), s)
        after = RectifiedFlow().step(state, known, level, Streams.root(1, ids), alpha)
        mean = torch.tensor([(1 - s) * x0], dtype=torch.float64)
        law = mean, torch.tensor([[s**2]], dtype=torch.float64)
        assert gaussian_p(after.x[:, 0], *law) > FALSE_ALARM
        # and the correlation with z_t falls as alpha grows: 1 - alpha^2 (1 - rho^2) of its square is left
        rho = (1 - t) * s / ((1 - s) * t)
        left = torch.corrcoef(torch.stack([z[:, 0, 0], after.x[:, 0, 0]]))[0, 1]
        assert left == pytest.approx((1 - alpha**2 * (1 - rho**2)) ** 0.5, abs=0.02)
    cold = RectifiedFlow().step(state, known, level, Streams.root(1, ids), 1.0, temperature=0.7)
    assert gaussian_p(cold.x[:, 0], *law) < CERTAIN
