"""Statistical checks that give a p-value, so that a negative control can show that they reject.

Seeds are fixed, so a check passes always or never. `FALSE_ALARM` is the rate at which a correct program would fail one
check if its seed were drawn anew; `CERTAIN` is what a negative control must reach.
"""

import math

import torch

FALSE_ALARM = 1e-4
CERTAIN = 1e-10


def chi2_p(statistic, freedom):
    """P(chi-square with `freedom` degrees > statistic)."""
    half = torch.tensor([freedom / 2, float(statistic) / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(half[0], half[1]))


def counts_p(counts, probabilities):
    """Pearson's chi-square test of `counts` against `probabilities`."""
    counts, probabilities = counts.double(), torch.as_tensor(probabilities).double()
    expected = counts.sum() * probabilities / probabilities.sum()
    return chi2_p(((counts - expected) ** 2 / expected).sum(), len(counts) - 1)


def gaussian_p(samples, mean, covariance):
    """That rows of `samples` (N, D) are draws of N(mean, covariance): all means, variances and covariances at once."""
    rows, size = samples.shape
    root = torch.linalg.cholesky(covariance.double())
    white = torch.linalg.solve_triangular(root, (samples.double() - mean).T, upper=False).T
    excess = white.T @ white / rows - torch.eye(size, dtype=torch.float64)
    scale = 1 + torch.eye(size, dtype=torch.float64)
    i, j = torch.tril_indices(size, size)
    statistic = rows * white.mean(0).square().sum() + rows * (excess**2 / scale)[i, j].sum()
    return chi2_p(statistic, size + len(i))


def ks_p(numbers, cdf):
    """Kolmogorov and Smirnov's test of `numbers` against the distribution function `cdf`."""
    at = cdf(numbers.double().flatten().sort().values)
    n = len(at)
    steps = torch.arange(n + 1, dtype=torch.float64) / n
    distance = torch.maximum((steps[1:] - at).max(), (at - steps[:-1]).max())
    x = float(distance) * math.sqrt(n)
    return min(1.0, 2 * sum((-1) ** (k - 1) * math.exp(-2 * k * k * x * x) for k in range(1, 101)))
