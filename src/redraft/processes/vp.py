"""Variance-preserving diffusion: x_t = sqrt(1 - t^2) x_0 + t eps, where the level t is the noise's standard deviation.

Ho, Jain, Abbeel, "Denoising diffusion probabilistic models", 2020; the reverse step is that of Song, Meng, Ermon,
"Denoising diffusion implicit models", 2021. In their letters t is sqrt(1 - alpha_bar).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from redraft.core.state import Prediction, State, expand, merge
from redraft.core.streams import Streams
from redraft.processes.continuous import Continuous


@dataclass(frozen=True)
class VariancePreserving(Continuous):
    """The process: prior, re-noising to any higher level, and DDIM's reverse step to any lower one."""

    def prior(self, state: State, where: Tensor, streams: Streams) -> State:
        """Pure noise, level 1, in the regions `where` (B, R)."""
        noise = streams.normal(state.x.shape[1:]).to(state.x)
        return state.to(merge(where, noise, state.x), state.t.masked_fill(where, 1))

    def renoise(self, state: State, where: Tensor, level: Tensor, streams: Streams) -> State:
        """A draw from q(x_s | x_t) with s = `level` (B, R) in the regions `where` (B, R), where s is at least t.

        x_s = a x_t + sqrt(s^2 - a^2 t^2) eps with a = sqrt((1 - s^2) / (1 - t^2)). Other regions stay bit for bit.
        """
        where = where & (level > state.t)
        a = signal(level) / signal(state.t)
        spread = (level**2 - (a * state.t) ** 2).clamp_min(0).sqrt()
        noise = streams.normal(state.x.shape[1:]).to(state.x)
        x = expand(a, state.x) * state.x + expand(spread, state.x) * noise
        return state.to(merge(where, x.to(state.x), state.x), torch.where(where, level, state.t))

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

        x* = a* x0 + sqrt(t*^2 - s^2) e + tau s n with s = eta (t* / t) sqrt(1 - (a / a*)^2), for a = sqrt(1 - t^2), the
        predicted noise e = (x - a x0) / t, eta the `stochasticity` (0 is DDIM, 1 ancestral) and tau the `temperature`.
        Regions with t_next = t stay bit for bit.
        """
        moving = t_next < state.t
        t = state.t.clamp_min(torch.finfo(state.t.dtype).tiny)
        spread = stochasticity * t_next / t * (1 - (signal(t) / signal(t_next)) ** 2).clamp_min(0).sqrt()
        a, b, s = (expand(v, state.x) for v in (signal(t_next), (t_next**2 - spread**2).clamp_min(0).sqrt(), spread))
        x = a * prediction.clean + b * noise_in(state, prediction.clean)
        if stochasticity > 0 and temperature > 0:
            x = x + temperature * s * streams.normal(state.x.shape[1:]).to(state.x)
        return state.to(merge(moving, x.to(state.x), state.x), torch.where(moving, t_next, state.t))


def signal(t: Tensor) -> Tensor:
    """The factor sqrt(1 - t^2) of the clean data at the levels `t`, never quite 0."""
    return (1 - t**2).clamp_min(torch.finfo(t.dtype).tiny).sqrt()


def noise_in(state: State, clean: Tensor) -> Tensor:
    """The noise e = (x - a x0) / t (B, R, *region) of a state whose clean values would be `clean`."""
    t = expand(state.t, state.x).clamp_min(torch.finfo(state.t.dtype).tiny)
    return (state.x - signal(t) * clean) / t
