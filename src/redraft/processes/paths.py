"""Walking a linear path at the levels of a variance-preserving one.

A flow's state (1 - t) x + t e is, but for its scale, the variance-preserving (VP) state a x + sqrt(1 - a^2) e of the
same ratio of signal to noise, t = sqrt(1 - a^2) / (a + sqrt(1 - a^2)), and a reverse step depends on such ratios alone
(see `RectifiedFlow.step`). So all that the change of path of Kim, Yoon, Hwang, Sung, "Inference-time scaling for flow
models via stochastic generation and rollover budget forcing", 2025, https://arxiv.org/abs/2503.19385, does to a sampler
is to choose its levels: equal steps in the time s of the VP process of Song et al., "Score-based generative modeling
through stochastic differential equations", 2021, https://arxiv.org/abs/2011.13456,

    a(s) = exp(-s^2 (beta_1 - beta_0) / 4 - s beta_0 / 2),  beta_0 = 0.1,  beta_1 = 20,

of which three quarters lie where noise outweighs the data (t > 1/2), and with stochastic steps most of the drawing too.
"""

from __future__ import annotations

import torch
from torch import Tensor

BETA = (0.1, 20.0)


def level_at(time: Tensor) -> Tensor:
    """The flow's level t at times s of the VP process, float64; 1 at s = 1, where that keeps a little signal."""
    s = time.double()
    log_signal = -(s**2) * (BETA[1] - BETA[0]) / 4 - s * BETA[0] / 2
    signal, noise = log_signal.exp(), (-torch.expm1(2 * log_signal)).sqrt()
    return torch.where(s >= 1, 1.0, noise / (signal + noise))


def time_at(level: Tensor) -> Tensor:
    """The time s of the VP process at levels t of a flow, float64, the inverse of `level_at`; at most 1."""
    t = level.double()
    log_signal = -torch.log1p((t / (1 - t)) ** 2) / 2
    rise = (BETA[1] - BETA[0]) / 2
    s = ((BETA[0] ** 2 / 4 - 2 * rise * log_signal).sqrt() - BETA[0] / 2) / rise
    return torch.where(t >= 1, 1.0, s.clamp(0, 1))
