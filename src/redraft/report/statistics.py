"""95 % intervals, the bootstrap, ranks, and best-of-k by order statistics."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Z = NormalDist().inv_cdf(0.975)
FEWEST = 5  # values of which a bootstrap is made


def wilson(successes: float, n: int) -> tuple[float, float]:
    """Wilson's score interval (low, high) of a share, from `successes` out of `n`; (0, 1) where n is 0.

    Successes need not be whole: of a problem under several seeds they are the share of its seeds.

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


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """The bootstrap's percentile interval (low, high) of the mean of `values`, which lies within their range.

    NaN for fewer than `FEWEST`: resampling sees too little of the spread of so few.
    """
    if len(values) < FEWEST:
        return nan, nan
    means = bootstrap_weights(len(values), 1) @ np.array(values, dtype=float)[:, None]
    low, high = percentiles(means)
    return float(low[0]), float(high[0])


def bootstrap_weights(problems: int, seeds: int, draws: int = 1000, seed: int = 0) -> NDArray[np.float64]:
    """Weights (draws, problems * seeds) of the units (problem, seed) in samples of a bootstrap over problems.

    Problems are drawn with replacement, each with all its seeds; to draw these anew as well would count the spread
    within problems twice (Davison and Hinkley, "Bootstrap methods and their application", 1997, section 3.8). Of an
    only problem the seeds are drawn. A row sums to 1, so a row times the units' values is a mean; the same rows on
    other values give paired differences.
    """
    rng = np.random.Generator(np.random.Philox(seed))
    problem = rng.integers(problems, size=(draws, problems, 1))
    every = np.arange(seeds) if problems > 1 else rng.integers(seeds, size=(draws, 1, seeds))
    unit = problem * seeds + every
    flat = unit.reshape(draws, -1) + np.arange(draws)[:, None] * problems * seeds
    counts = np.bincount(flat.ravel(), minlength=draws * problems * seeds)
    weights: NDArray[np.float64] = counts.reshape(draws, -1) / (problems * seeds)
    return weights


def weighted_means(weights: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means (draws, K) of values (units, K) under weights (draws, units); NaN counts for nothing."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        means: NDArray[np.float64] = (weights @ np.where(known, values, 0.0)) / (weights @ known.astype(float))
    return means


def percentiles(draws: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The 95 % percentile interval (low, high), (K,) each, of draws (D, K); draws that are NaN are left out."""
    draws = np.where(np.isnan(draws).all(0), 0.0, draws)
    low, high = np.nanpercentile(draws, [2.5, 97.5], axis=0)
    return low, high


def ranks(means: NDArray[np.float64], largest: bool = True) -> NDArray[np.float64]:
    """Ranks (draws, M) from 1, the best, of the means (draws, M) of M methods; equal means share their mean rank.

    Means that are NaN come last.
    """
    scores = -means if largest else means
    scores = np.where(np.isnan(scores), np.inf, scores)
    below = (scores[:, None, :] < scores[:, :, None]).sum(2)
    equal = (scores[:, None, :] == scores[:, :, None]).sum(2)
    places: NDArray[np.float64] = below + (equal + 1) / 2
    return places


def best_of_k(rewards: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Expected values (N, M), for k = 1, ..., N, of the best by reward of k candidates out of N, all subsets averaged.

    With candidates sorted by reward, that of rank i is the best of C(i - 1, k - 1) of the C(N, k) subsets. Those of
    equal reward share their weights, as any of them may come first. Values that are NaN count for nothing.

    Args:
        rewards: (N,).
        values: (N, M), whatever is known of each candidate.
    """
    _, group = np.unique(rewards, return_inverse=True)
    order, n = np.argsort(group, kind="stable"), len(rewards)
    weights, k = np.zeros((n, n)), np.arange(1, n + 1)
    weights[:, -1] = k / n
    for rank in range(n, 1, -1):
        weights[:, rank - 2] = weights[:, rank - 1] * np.maximum(0, rank - k) / (rank - 1)
    size = np.bincount(group)
    total = np.stack([np.bincount(group[order], row) for row in weights])
    return weighted_means((total / size)[:, group], values)
