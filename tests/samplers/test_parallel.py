"""Walks of all regions together."""

import pytest
import torch
from toys import Toy, toy_problems

from redraft import Parallel, RedraftError
from redraft.core.streams import Streams
from redraft.samplers import sample


@pytest.mark.parametrize(("sampler", "cost"), [(Parallel(steps=5), 5), (Parallel(steps=5, order=2), 9)])
def test_rows_without_noise_cost_nothing(sampler, cost):
    assert sampler.nfe(torch.tensor([0, 1, 7])).tolist() == [0, cost, cost]


@pytest.mark.parametrize("order", [1, 2])
def test_every_region_walks_from_its_own_level(order):
    problems = toy_problems([0], regions=3)
    state = problems.state()
    state = state.to(problems.x, torch.tensor([[1.0, 0.5, 0.0]]))
    seen = []

    class Watched(Toy):
        def predict(self, at):
            seen.append(at.t[0].tolist())
            return super().predict(at)

    out = sample(Parallel(steps=4, order=order), Watched(regions=3), state, Streams.root(0, problems.ids))
    assert (out.t == 0).all()
    assert torch.equal(out.x[0, 2], problems.x[0, 2])
    euler = [[1, 0.5, 0], [0.75, 0.375, 0], [0.5, 0.25, 0], [0.25, 0.125, 0]]
    assert [s for i, s in enumerate(seen) if order == 1 or i % 2 == 0] == euler


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"order": 3}, "order is 3"),
        ({"order": 2, "stochasticity": 0.5}, "deterministic"),
        ({"stochasticity": -0.5}, "stochasticity is -0.5"),
        ({"stochasticity": 1.5}, "stochasticity is 1.5"),
        ({"stochasticity": 1.0, "temperature": -1.0}, "temperature is -1"),
    ],
)
def test_settings_without_a_meaning_are_refused(settings, message):
    with pytest.raises(RedraftError, match=message):
        Parallel(**settings)
