"""Weights of particles, in log space, and resampling; all by groups of N, one group a problem.

Douc, Cappe, Moulines, "Comparison of resampling schemes for particle filtering", 2005.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from redraft.core.errors import unknown
from redraft.core.streams import Streams


def normalised(log_weights: Tensor) -> Tensor:
    """Log weights (P, N) whose weights sum to 1 in each group."""
    return log_weights - log_weights.logsumexp(1, keepdim=True)


def log_mean(log_weights: Tensor) -> Tensor:
    """Log of the mean weight (P,) of each group (P, N)."""
    return log_weights.logsumexp(1) - torch.tensor(float(log_weights.shape[1]), dtype=log_weights.dtype).log()


def effective_size(log_weights: Tensor) -> Tensor:
    """Effective sample size (P,) of each group (P, N): (sum w)^2 / sum w^2, from 1 to N."""
    return (2 * log_weights.logsumexp(1) - (2 * log_weights).logsumexp(1)).exp()


def resample(log_weights: Tensor, streams: Streams, scheme: str = "systematic") -> Tensor:
    """Ancestors (P, N), numbers 0..N-1 within the group, each drawn N w times on average.

    Args:
        log_weights: (P, N), not necessarily normalised; -inf is never drawn.
        streams: one for each group (P,).
        scheme: 'multinomial', 'stratified', 'systematic' or 'residual'.

    Raises:
        RedraftError: unknown scheme.
    """
    if scheme not in SCHEMES:
        raise unknown("resampling scheme", scheme, SCHEMES)
    return SCHEMES[scheme](normalised(log_weights.double()).exp(), streams)


def _multinomial(weights: Tensor, streams: Streams) -> Tensor:
    return _inverted(weights, streams.uniform(weights.shape[1:]))


def _stratified(weights: Tensor, streams: Streams) -> Tensor:
    return _inverted(weights, _strata(weights, streams.uniform(weights.shape[1:])))


def _systematic(weights: Tensor, streams: Streams) -> Tensor:
    return _inverted(weights, _strata(weights, streams.uniform((1,))))


def _residual(weights: Tensor, streams: Streams) -> Tensor:
    """floor(N w) copies of each for certain, the rest multinomially from what is left over."""
    size = weights.shape[1]
    copies = (weights * size + 1e-9).floor()
    certain = copies.cumsum(1)
    place = torch.arange(size, device=weights.device).expand_as(weights).double()
    drawn = _inverted((weights * size - copies).clamp_min(0), streams.uniform(weights.shape[1:]))
    sure = torch.searchsorted(certain, place.contiguous(), right=True)
    return torch.where(place < certain[:, -1:], sure, drawn)


SCHEMES: dict[str, Callable[[Tensor, Streams], Tensor]] = {
    "multinomial": _multinomial,
    "stratified": _stratified,
    "systematic": _systematic,
    "residual": _residual,
}


def _strata(weights: Tensor, uniform: Tensor) -> Tensor:
    """One number in each of N equal intervals."""
    size = weights.shape[1]
    return (torch.arange(size, device=weights.device) + uniform) / size


def _inverted(weights: Tensor, uniform: Tensor) -> Tensor:
    """Where the cumulative weights (P, N), which need not sum to 1, pass `uniform` (P, M)."""
    total = weights.cumsum(1)
    last = (weights > 0).long().cumsum(1).argmax(1, keepdim=True)  # the last with any weight, against rounding
    return torch.minimum(torch.searchsorted(total, (uniform * total[:, -1:]).contiguous(), right=True), last)
