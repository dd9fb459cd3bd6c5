import numpy as np
import pytest

from redraft.training.levels import mean_beta, mid_walk


@pytest.mark.parametrize("regions", [1, 2, 7, 81])
def test_the_mean_level_of_mean_beta_is_uniform(regions):
    levels = mean_beta(4000, regions, np.random.default_rng(0))
    mean = np.sort(levels.mean(1))
    assert levels.min() >= -1e-9
    assert levels.max() <= 1 + 1e-9
    # Kolmogorov-Smirnov distance; 1.95 / sqrt(n) is passed by chance once in a thousand
    assert np.abs(mean - np.linspace(0, 1, len(mean))).max() < 1.95 / np.sqrt(len(mean))


def test_independent_levels_fail_that_check():
    mean = np.sort(np.random.default_rng(0).uniform(size=(4000, 81)).mean(1))
    assert np.abs(mean - np.linspace(0, 1, len(mean))).max() > 1.95 / np.sqrt(len(mean))


def test_mean_beta_treats_all_regions_alike():
    levels = mean_beta(20_000, 5, np.random.default_rng(1))
    assert np.abs(levels.mean(0) - 0.5).max() < 0.02
    assert np.ptp(levels.std(0)) < 0.02


def test_a_state_of_mid_walk_has_clean_moving_and_noisy_regions():
    levels = mid_walk(2000, 81, np.random.default_rng(0), most=12)
    clean, moving = (levels == 0).sum(1), ((levels > 0) & (levels < 1)).sum(1)
    assert set(clean) == set(range(81))
    assert moving.min() >= 1
    assert moving.max() == 12
