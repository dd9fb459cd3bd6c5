"""Random steps keep the law of every level: a Gaussian of one region along a pipeline's schedule, flow or VP."""

from dataclasses import dataclass, replace

import diffusers
import pytest
import torch
from checks import CERTAIN, FALSE_ALARM, gaussian_p

import redraft
from redraft import FK, Parallel, Reward, Scheduled
from redraft.core.state import Prediction
from redraft.core.streams import Streams
from redraft.core.task import Problems
from redraft.models.probe import StandIn
from redraft.models.schedule import schedule_of
from redraft.processes.flow import RectifiedFlow
from redraft.processes.paths import level_at, time_at
from redraft.processes.vp import VariancePreserving

MEAN = torch.tensor([1.0, -0.5], dtype=torch.float64)
COVARIANCE = torch.tensor([[1.2, 0.5], [0.5, 0.6]], dtype=torch.float64)
B = torch.tensor([0.3, -0.4], dtype=torch.float64)
ROWS, ALPHA = 6000, 0.5


@dataclass(frozen=True)
class Gaussian:
    """Data N(MEAN, COVARIANCE) in one region, as a pipeline: `predict` gives the exact posterior mean."""

    process: object
    name = "gaussian"
    shape = (1, 2)
    offers = frozenset({"schedule"})
    graph = None

    def amounts(self, t):
        """How much signal and noise there is at level t."""
        return (1 - t, t) if isinstance(self.process, RectifiedFlow) else ((1 - t**2).sqrt(), t)

    def law(self, t):
        """Mean and covariance at level t."""
        a, b = self.amounts(t)
        return a * MEAN, a**2 * COVARIANCE + b**2 * torch.eye(2)

    def predict(self, state):
        t = state.t[0, 0].double()  # rows walk together
        assert (state.t == state.t[0, 0]).all()
        a, _ = self.amounts(t)
        mean, covariance = self.law(t)
        clean = MEAN + (state.x[:, 0].double() - mean) @ torch.linalg.solve(covariance, a * COVARIANCE)
        return Prediction(clean[:, None].float())

    def output(self, state, prediction):
        return RectifiedFlow().velocity(state, prediction)

    def schedule(self, steps):
        flow = isinstance(self.process, RectifiedFlow)
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=2.0) if flow else diffusers.DDIMScheduler()
        asked = StandIn(scheduler, None)
        asked.asked = ((steps,), {})
        return schedule_of(scheduler, steps, asked, StandIn(scheduler, None), flow)

    def decode(self, x):
        return x

    def encode(self, samples):
        return samples


class Louder:
    """The negative control: noise is added and none is taken away for it."""

    def step(self, state, prediction, t_next, streams, stochasticity=0.0, temperature=1.0):
        plain = super().step(state, prediction, t_next, streams, 0.0, temperature)
        mixed = super().step(state, prediction, t_next, streams, stochasticity, temperature)
        quiet = super().step(state, prediction, t_next, streams, stochasticity, 0.0)
        return plain.to(plain.x + mixed.x - quiet.x, plain.t)


class LouderFlow(Louder, RectifiedFlow):
    pass


class LouderVP(Louder, VariancePreserving):
    pass


FLOW, VP = Gaussian(RectifiedFlow()), Gaussian(VariancePreserving())
WALKS = {
    "flow": (FLOW, Scheduled(150, stochasticity=1.0)),
    "flow, half": (FLOW, Scheduled(150, stochasticity=0.5)),
    "flow, vp path": (FLOW, Scheduled(400, stochasticity=1.0, path="vp")),
    "vp": (VP, Scheduled(150, stochasticity=1.0)),
    "parallel": (FLOW, Parallel(150, stochasticity=1.0)),
    "parallel, vp path": (FLOW, Parallel(400, stochasticity=1.0, path="vp")),
}


def problems(rows):
    return Problems(torch.arange(rows), torch.zeros(rows, 1, 2), torch.zeros(rows, 1, dtype=torch.bool))


def least_p(model, sampler, rows=ROWS):
    """The smallest p-value that rows have the law of their level, over twelve levels of a walk."""
    given = problems(rows)
    state, streams = given.state(), Streams.root(3, given.ids)
    walk = sampler.init(model, model.process.prior(state, state.free, streams.fold("prior")), streams)
    # the walk of a schedule that begins below level 1 begins from pure noise all the same, as pipelines do
    begun = walk.state.to(exact(model, walk.state.t[0, 0], rows), walk.state.t)
    walk, found, every = replace(walk, state=begun), [], sampler.steps // 12
    for step in range(1, sampler.steps + 1):
        walk = sampler.step(model, walk, streams.fold("walk"))
        if step % every == 0 or step == sampler.steps:
            found.append(gaussian_p(walk.state.x[:, 0], *model.law(walk.state.t[0, 0].double())))
    assert walk.done.all()
    return min(found) * len(found)


def exact(model, t, rows):
    mean, covariance = model.law(t.double())
    white = torch.randn(rows, 2, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    return (mean + white @ torch.linalg.cholesky(covariance).T)[:, None].float()


@pytest.mark.parametrize("name", WALKS)
def test_every_level_keeps_its_law(name):
    assert least_p(*WALKS[name]) > FALSE_ALARM


@pytest.mark.parametrize("name", WALKS)
def test_the_check_rejects_noise_that_is_added_on_top(name):
    model, sampler = WALKS[name]
    louder = LouderFlow() if model is FLOW else LouderVP()
    assert least_p(replace(model, process=louder), sampler, 2000) < CERTAIN


def reward(samples, given):
    return samples[:, 0].double() @ B


def evidence(model, particles=4, rows=1500):
    method = FK(particles, Reward(ALPHA), every=5, threshold=1.0, sampler=Scheduled(60, stochasticity=1.0))
    result = redraft.run(method, model, problems(rows), verifier=reward, progress=False)
    found = result.trace["log_evidence"].exp()
    return found.mean(), found.std() / rows**0.5


@pytest.mark.parametrize(("model", "louder"), [(FLOW, LouderFlow()), (VP, LouderVP())], ids=["flow", "vp"])
def test_the_evidence_of_fk_steering_is_unbiased(model, louder):
    """E exp(r / alpha) of a linear r = b . x is exp(b . m / alpha + b C b / (2 alpha^2))."""
    truth = (B @ MEAN / ALPHA + B @ COVARIANCE @ B / (2 * ALPHA**2)).exp()
    mean, error = evidence(model)
    assert (mean - truth).abs() < 4 * error + 0.01 * truth  # 60 steps have an error of their own
    mean, error = evidence(replace(model, process=louder))
    assert (mean - truth).abs() > 8 * error


def test_levels_and_times_of_the_vp_path_are_inverse():
    time = torch.linspace(0, 1, 101, dtype=torch.float64)
    level = level_at(time)
    assert level[0] == 0
    assert level[-1] == 1
    assert (level.diff() > 0).all()
    torch.testing.assert_close(time_at(level), time, atol=1e-9, rtol=0)
    signal = (-(time[50] ** 2) * 19.9 / 4 - time[50] * 0.05).exp()
    torch.testing.assert_close(level[50] / (1 - level[50]), (1 - signal**2).sqrt() / signal)
    assert ((level > 0.5).double().mean() - 0.74).abs() < 0.01
