import numpy as np
import pytest

from redraft.report.statistics import mean_interval, wilson


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),  # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_against_newcombes_table(successes, n, low, high):
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_is_symmetric_and_stays_within_the_unit_interval():
    for n in range(1, 30):
        for successes in range(n + 1):
            low, high = wilson(successes, n)
            assert 0 <= low <= successes / n <= high <= 1
            assert wilson(n - successes, n) == pytest.approx((1 - high, 1 - low))


def test_wilson_of_nothing_is_everything():
    assert wilson(0, 0) == (0, 1)


@pytest.mark.parametrize(("successes", "n"), [(-1, 3), (4, 3)])
def test_wilson_rejects_impossible_counts(successes, n):
    with pytest.raises(ValueError, match="successes of"):
        wilson(successes, n)


def test_wilson_takes_shares_of_a_problems_seeds():
    assert wilson(1, 4) < wilson(1.5, 4) < wilson(2, 4)


def test_an_interval_of_a_mean_lies_within_what_the_values_can_be():
    low, high = mean_interval([0.0] * 9 + [10.0])
    assert 0 == low < 1 < high <= 10
    assert mean_interval([0.3] * 5) == pytest.approx((0.3, 0.3))
    assert mean_interval([1.0, 0.5] * 6) == mean_interval([1.0, 0.5] * 6)  # of the same values the same


def test_an_interval_of_a_mean_is_the_normal_one_where_there_are_many():
    values = np.random.default_rng(0).normal(size=400)
    half = 1.96 * values.std() / 20
    assert mean_interval(values.tolist()) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.01)


@pytest.mark.parametrize("n", range(5))
def test_of_few_values_there_is_no_interval(n):
    assert np.isnan(mean_interval([3.0] * n)).all()
