"""A model that is solved in closed form: correlated Gaussian regions under rectified flow."""

import torch

from redraft.core.state import Prediction
from redraft.core.streams import Streams
from redraft.core.task import Problems
from redraft.processes.flow import RectifiedFlow


class LinearGaussian:
    """Data x ~ N(mean, covariance) in R regions of k values; `predict` gives the exact posterior.

    With `step` given, `variance` is such that one region's ancestral step from t to t - step, all other regions clean
    or pure noise, has exactly the variance of q(z_s | z_t) (for k = 1; for k > 1 its diagonal). `alone` is the negative
    control: the posterior of each region given itself only.
    """

    name = "linear-gaussian"

    def __init__(self, regions=4, values=1, correlation=0.7, step=None, alone=False):
        size = regions * values
        place = torch.arange(size, dtype=torch.float64)
        scale = 0.6 + 0.8 * place.cos().square()
        self.covariance = correlation ** (place[:, None] - place).abs() * scale[:, None] * scale
        self.mean = (2 * place).sin()
        self.shape, self.process, self.step, self.alone = (regions, values), RectifiedFlow(), step, alone
        self.offers = frozenset({"regions", "uncertainty", "variance", "graph"})
        number = torch.arange(regions)
        self.graph = (number[:, None] - number).abs() == 1

    def predict(self, state):
        key = state.t.double() @ torch.arange(2, 2 + self.shape[0]).double().sqrt()
        _, row = key.unique(return_inverse=True)  # rows share a few maps of levels
        levels = torch.empty(int(row.max()) + 1, self.shape[0], dtype=torch.float64).index_copy_(
            0, row, state.t.double()
        )
        t = levels.repeat_interleave(self.shape[1], 1)
        prior = self.covariance
        if self.alone:
            region = torch.arange(len(prior)) // self.shape[1]
            prior = prior * (region[:, None] == region)
        seen = (1 - t)[:, :, None] * prior  # H Sigma, for z = H x + t eps
        gain = torch.linalg.solve(seen * (1 - t)[:, None, :] + torch.diag_embed(t**2), seen)
        clean = self.mean + ((state.x.double().flatten(1) - ((1 - t) * self.mean)[row])[:, :, None] * gain[row]).sum(1)
        variance = (prior.diagonal() - (gain * seen).sum(1)).clamp_min(0)
        fraction = None if self.step is None else self._fraction(t, variance).float()[row].view_as(state.x)
        by_region = variance.unflatten(1, self.shape).mean(2)
        return Prediction(clean.view_as(state.x).float(), by_region.sqrt().float()[row], fraction)

    def _fraction(self, t, variance):
        s = t - self.step
        moves = (s > 1e-6) & (t > 0)
        s, t = torch.where(moves, s, 0.25), torch.where(moves, t, 0.5)
        rest = 1 - ((1 - t) * s / ((1 - s) * t)) ** 2
        fraction = ((s**2 + (1 - s) ** 2 * rest * variance) / s**2).log() / (2 * (t / s).log())
        return torch.where(moves, fraction, 0.0)

    def decode(self, x):
        return x

    def encode(self, samples):
        return samples

    def draw(self, rows, seed):
        """Exact draws (rows, R, k)."""
        generator = torch.Generator().manual_seed(seed)
        white = torch.randn(rows, len(self.mean), generator=generator, dtype=torch.float64)
        return (self.mean + white @ torch.linalg.cholesky(self.covariance).T).view(rows, *self.shape).float()

    def problems(self, x, frozen=()):
        """Problems whose regions `frozen` are given by `x` (P, R, k)."""
        given = torch.zeros(x.shape[:2], dtype=torch.bool)
        given[:, list(frozen)] = True
        return Problems(torch.arange(len(x)), x, given)

    def conditional(self, x, frozen):
        """Numbers of the values (U,) that are not given, their mean (P, U) given the others, and covariance (U, U)."""
        region = torch.arange(len(self.mean)) // self.shape[1]
        given = torch.isin(region, torch.tensor(list(frozen), dtype=torch.int64))
        u, f = (~given).nonzero()[:, 0], given.nonzero()[:, 0]
        gain = self.covariance[u][:, f] @ torch.linalg.inv(self.covariance[f][:, f])
        mean = self.mean[u] + (x.double().flatten(1)[:, f] - self.mean[f]) @ gain.T
        return u, mean, self.covariance[u][:, u] - gain @ self.covariance[f][:, u]


def noise_state(model, problems, noise=None, seed=0):
    """The problems' state with pure noise in its free regions: `noise` (P, R, k), or drawn."""
    state = problems.state()
    if noise is None:
        return model.process.prior(state, state.free, Streams.root(seed, problems.ids).fold("noise"))
    return state.to(torch.where(state.free[:, :, None], noise, state.x), state.t)
