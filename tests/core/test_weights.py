"""Log weights and resampling, against their definitions."""

import pytest
import torch
from checks import CERTAIN, FALSE_ALARM, counts_p

from redraft import RedraftError
from redraft.core.ranking import best_rows, flat
from redraft.core.streams import Streams
from redraft.core.weights import SCHEMES, effective_size, log_mean, normalised, resample

LOG_WEIGHTS = torch.tensor([0.05, 0.4, 0.3, 0.0, 0.25], dtype=torch.float64).log()
WEIGHTS = LOG_WEIGHTS.exp()


def draws(scheme, groups=4000, log_weights=LOG_WEIGHTS):
    streams = Streams.root(0, torch.arange(groups))
    return resample(log_weights.expand(groups, -1), streams, scheme)


def test_sums_are_stable_far_from_one():
    for shift in (-2000.0, 0.0, 2000.0):
        weights = (LOG_WEIGHTS + shift)[None]
        assert torch.allclose(normalised(weights).exp(), WEIGHTS[None])
        assert torch.allclose(log_mean(weights), torch.tensor([0.2]).double().log() + shift)
        assert torch.allclose(effective_size(weights), 1 / WEIGHTS.square().sum()[None])


def test_effective_size_goes_from_one_to_all():
    assert torch.allclose(effective_size(torch.zeros(1, 7)), torch.tensor([7.0]))
    assert torch.allclose(effective_size(torch.tensor([[0.0, -torch.inf, -torch.inf]])), torch.tensor([1.0]))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_draws_each_particle_in_proportion(scheme):
    ancestors = draws(scheme)
    counts = torch.stack([(ancestors == i).sum(1) for i in range(5)], 1).double()
    assert counts[:, 3].sum() == 0
    error = counts.mean(0) - 5 * WEIGHTS
    assert error.abs().max() < 4.5 * (5 * 0.25 / 4000) ** 0.5
    if scheme == "multinomial":
        assert counts_p(counts.sum(0)[WEIGHTS > 0], WEIGHTS[WEIGHTS > 0]) > FALSE_ALARM
        assert counts_p(counts.sum(0)[WEIGHTS > 0], WEIGHTS.flip(0)[WEIGHTS > 0].clamp_min(0.01)) < CERTAIN


def test_the_other_schemes_vary_less_than_the_multinomial():
    spread = {}
    for scheme in SCHEMES:
        ancestors = draws(scheme)
        spread[scheme] = float(torch.stack([(ancestors == i).sum(1) for i in range(5)], 1).double().var(0).sum())
    assert all(spread[s] < 0.7 * spread["multinomial"] for s in ("stratified", "systematic", "residual"))


def test_residual_resampling_keeps_what_is_certain():
    ancestors = draws("residual")
    for particle, least in ((1, 2), (2, 1), (4, 1)):
        assert ((ancestors == particle).sum(1) >= least).all()
    exact = torch.tensor([0.5, 0.25, 0.0, 0.25]).log()
    assert draws("residual", 3, exact).tolist() == [[0, 0, 1, 3]] * 3


@pytest.mark.parametrize("scheme", SCHEMES)
def test_equal_weights_need_no_luck(scheme):
    if scheme != "multinomial":
        assert draws(scheme, 50, torch.zeros(4)).sort(1).values.tolist() == [[0, 1, 2, 3]] * 50


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_group_alone_is_resampled_as_among_others(scheme):
    log_weights = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    streams = Streams.root(3, torch.arange(6))
    whole = resample(log_weights, streams, scheme)
    assert torch.equal(resample(log_weights[2:3], streams[2:3], scheme), whole[2:3])


def test_rows_of_groups_that_lie_side_by_side():
    assert flat(torch.tensor([[0, 0, 2], [1, 1, 1]])).tolist() == [0, 0, 2, 4, 4, 4]
    assert flat(torch.tensor([2, 0]), 3).tolist() == [2, 3]


def test_the_best_rows_of_each_group_come_best_first():
    scores = torch.tensor([1.0, 3.0, 2.0, 9.0, 7.0, 8.0])
    assert best_rows(scores, 3, 2).tolist() == [1, 2, 3, 5]
    assert best_rows(scores, 3).tolist() == [1, 3]


def test_an_unknown_scheme_is_told():
    with pytest.raises(RedraftError, match="systematic"):
        resample(torch.zeros(1, 2), Streams.root(0, torch.arange(1)), "systemic")
