"""Rectified flow with a noise level per region: z_t = (1 - t) x + t eps.

Liu, Gong, Liu, "Flow straight and fast", 2022; levels per region and the reverse step as in Wewer et al., "Spatial
reasoning with denoising models" (SRM), 2025, whose velocity eps - x is here expressed by the predicted clean data.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from redraft.core.state import Prediction, State, expand
from redraft.core.streams import Streams
from redraft.processes.continuous import Continuous


@dataclass(frozen=True)
class RectifiedFlow(Continuous):
    """The process: prior, re-noising to any higher level, and the general reverse step to any lower one."""

    def prior(self, state: State, where: Tensor, streams: Streams) -> State:
        """Pure noise, level 1, in the regions `where` (B, R)."""
        x = state.x.clone()
        x[where] = streams.normal(state.x.shape[1:], where).to(x)
        return state.to(x, state.t.masked_fill(where, 1))

    def renoise(self, state: State, where: Tensor, level: Tensor, streams: Streams) -> State:
        """A draw from q(x_s | x_t) with s = `level` (B, R) in the regions `where` (B, R), where s is at least t.

        z_s = a z_t + sqrt(s^2 - a^2 t^2) eps with a = (1 - s) / (1 - t). Other regions stay bit for bit.
        """
        where = where & (level > state.t)
        s, t = level[where], state.t[where]
        a = (1 - s) / (1 - t)
        noise = streams.normal(state.x.shape[1:], where).to(state.x)
        values = state.x[where]
        spread = (s**2 - (a * t) ** 2).clamp_min(0).sqrt()
        x = state.x.clone()
        x[where] = expand(a, values) * values + expand(spread, values) * noise
        return state.to(x, torch.where(where, level, state.t))

    def step(
        self,
        state: State,
        prediction: Prediction,
        t_next: Tensor,
        streams: Streams,
        stochasticity: float = 0.0,
        temperature: float = 1.0,
    ) -> State:
        """One reverse step of every region from its level t to `t_next` (B, R), where t_next is at most t.

        With rho = (1 - t) t* / ((1 - t*) t) and the predicted noise e = (z - (1 - t) x0) / t:
            z* = (1 - t*) x0 + t* sqrt(1 - alpha^2 (1 - rho^2)) e + tau s n,  n ~ N(0, I),
        where log s lies between log(alpha t* sqrt(1 - rho^2)) and log(alpha t sqrt(1 - rho^2)), at the fraction
        `prediction.variance`. alpha (`stochasticity`) 0 is DDIM's deterministic step, 1 is ancestral sampling; tau is
        the `temperature`. No noise is drawn for alpha = 0 or where t* = 0. Regions with t_next = t stay bit for bit.
        """
        moving = t_next < state.t
        t, s = (expand(level[moving], state.x[moving]) for level in (state.t, t_next))
        z, clean = state.x[moving], prediction.clean[moving]
        noise = (z - (1 - t) * clean) / t
        rho = (1 - t) * s / ((1 - s) * t)
        gap = stochasticity * (1 - rho**2).clamp_min(0).sqrt()
        z = (1 - s) * clean + s * (1 - gap**2).clamp_min(0).sqrt() * noise
        if stochasticity > 0 and temperature > 0:
            fraction = prediction.variance[moving] if prediction.variance is not None else 0.0
            spread = temperature * gap * s ** (1 - fraction) * t**fraction
            noisy = moving & (t_next > 0)
            z[noisy[moving]] += spread.expand_as(z)[noisy[moving]] * streams.normal(state.x.shape[1:], noisy).to(z)
        x = state.x.clone()
        x[moving] = z
        return state.to(x, torch.where(moving, t_next, state.t))

    def velocity(self, state: State, prediction: Prediction) -> Tensor:
        """dz/dt = eps - x0 = (z - x0) / t of the deterministic flow; 0 where t is 0."""
        t = expand(state.t, state.x)
        return torch.where(t > 0, (state.x - prediction.clean) / t.clamp_min(torch.finfo(t.dtype).tiny), 0.0)

    def uncertainty(self, state: State, prediction: Prediction) -> Tensor:
        """What the network says of its own error, (B, R)."""
        assert prediction.uncertainty is not None
        return prediction.uncertainty
