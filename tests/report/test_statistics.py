import pytest

from redraft.report.statistics import student, wilson


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


@pytest.mark.parametrize(
    ("n", "quantile"), [(2, 12.7062), (4, 3.1824), (5, 2.7764), (6, 2.5706), (10, 2.2622), (31, 2.0423), (1001, 1.9623)]
)
def test_student_against_tabulated_quantiles(n, quantile):
    values = [-1.0] * (n // 2) + [0.0] * (n % 2) + [1.0] * (n // 2)
    spread = (2 * (n // 2) / (n - 1)) ** 0.5
    low, high = student(values)
    assert high == pytest.approx(quantile * spread / n**0.5, rel=2e-3)
    assert low == pytest.approx(-high)


def test_student_of_one_value_is_unbounded():
    assert student([3.0]) == (float("-inf"), float("inf"))
