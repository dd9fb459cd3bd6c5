"""95 % intervals."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import NormalDist, fmean, stdev

Z = NormalDist().inv_cdf(0.975)
STUDENT = {1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764}  # where the expansion in `_student` is not yet good


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Wilson's score interval (low, high) of a share, from `successes` out of `n`; (0, 1) where n is 0.

    E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).

    Raises:
        ValueError: successes outside 0..n.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}")
    if n == 0:
        return 0.0, 1.0
    share, weight = successes / n, Z**2 / n
    centre = (share + weight / 2) / (1 + weight)
    half = sqrt(weight * share * (1 - share) + weight**2 / 4) / (1 + weight)
    low = 0.0 if successes == 0 else centre - half
    return low, 1.0 if successes == n else centre + half


def student(values: Sequence[float]) -> tuple[float, float]:
    """Student's interval (low, high) of the mean of `values`; infinite for fewer than two."""
    if len(values) < 2:
        return float("-inf"), float("inf")
    half = _student(len(values) - 1) * stdev(values) / sqrt(len(values))
    return fmean(values) - half, fmean(values) + half


def _student(degrees: int) -> float:
    """The 97.5 % quantile of Student's t, to 0.2 %: Cornish and Fisher's expansion around the normal's."""
    terms = (
        (Z**3 + Z) / 4,
        (5 * Z**5 + 16 * Z**3 + 3 * Z) / 96,
        (3 * Z**7 + 19 * Z**5 + 17 * Z**3 - 15 * Z) / 384,
    )
    expansion = Z + sum(term / float(degrees) ** i for i, term in enumerate(terms, 1))
    return STUDENT.get(degrees, expansion)
