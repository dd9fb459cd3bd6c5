"""Noise levels to train region-wise models at."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def mean_beta(rows: int, regions: int, rng: np.random.Generator, sharpness: float = 1.0) -> Array:
    """SRM's "uniform mean t" scheme: levels (rows, regions) whose mean is uniform on [0, 1].

    A sum S over d regions is split between their halves by a Beta(a, a) share of what the halves can hold,
    a = (d - 1 - (d mod 2)) ** 1.05 * sharpness, down to single regions, which are then shuffled.
    """
    levels = _split(rng.uniform(size=rows) * regions, regions, rng, sharpness)
    return rng.permuted(levels, axis=1)


def _split(total: Array, regions: int, rng: np.random.Generator, sharpness: float) -> Array:
    if regions == 1:
        return total[:, None]
    left, right = regions // 2, regions - regions // 2
    least, most = np.maximum(0, total - right), np.minimum(total, left)
    a = max((regions - 1 - regions % 2) ** 1.05 * sharpness, 1e-3)
    share = least + (most - least) * rng.beta(a, a, size=len(total))
    halves = (_split(share, left, rng, sharpness), _split(total - share, right, rng, sharpness))
    return np.concatenate(halves, 1)


def mid_walk(rows: int, regions: int, rng: np.random.Generator, most: int = 8) -> Array:
    """Levels (rows, regions) as a sequential walk meets them.

    Any number of regions are clean, from 0 to all but one, `most` at the most are on their way at levels of their own,
    and the rest are pure noise.
    """
    rank = rng.permuted(np.tile(np.arange(regions), (rows, 1)), axis=1)
    clean = rng.integers(0, regions, size=(rows, 1))
    moving = rng.integers(1, most + 1, size=(rows, 1))
    levels = np.where(rank < clean + moving, rng.uniform(size=(rows, regions)), 1.0)
    return np.where(rank < clean, 0.0, levels)
