"""What a walk keeps of the network's answers: each row's own, for its own state and level, counted once."""

from dataclasses import replace

import pytest
import torch
from models_exact import LinearGaussian
from tokens import exact_model, problems

import redraft
from redraft import SVDD, IterRef, Parallel, Reward, Unmask
from redraft.core.streams import Streams
from redraft.models.tokens import Convention, TokenModel
from redraft.samplers import descend
from redraft.samplers.budgets import Even
from redraft.samplers.rules import Rule

ONE_BY_ONE = Unmask(4, Rule(Even(), None))


def total(samples, given):
    return samples.double().flatten(1).sum(1)


def rows(kind):
    """A model, a sampler for it, and six problems, some with given regions."""
    if kind == "tokens":
        frozen = torch.arange(4) >= torch.tensor([4, 1, 2, 3, 4, 4])[:, None]
        return exact_model(), Unmask(6), replace(problems(6), frozen=frozen)
    gaussian = LinearGaussian(regions=4)
    return gaussian, Parallel(6, stochasticity=1.0), gaussian.problems(gaussian.draw(6, 0))


@pytest.mark.parametrize("method", [IterRef((0.6, 0.2, 0.0), 0.3, moves=2, rounds=6), IterRef((0.5,), 0.5, a=1.0)])
@pytest.mark.parametrize("kind", ["tokens", "gaussian"])
def test_a_row_costs_alone_what_it_costs_among_others(kind, method):
    """Where some rows of a batch were looked at and others not, none is evaluated again."""
    model, sampler, given = rows(kind)
    method = replace(method, sampler=sampler, reward=Reward(2.0))
    whole = redraft.run(method, model, given, verifier=total, progress=False)
    assert 0 < whole.trace["acceptance"].mean() < 1
    for i in range(6):
        alone = redraft.run(method, model, given[i : i + 1], verifier=total, progress=False)
        of_it = whole.trace["problem"] == given.ids[i]
        assert alone.trace["nfe"].tolist() == whole.trace["nfe"][of_it].tolist()
        for accounts in ("spent", "saved"):
            one, many = (getattr(result.ledger, accounts)["denoiser"] for result in (alone, whole))
            assert one[0] == many[i]


@pytest.mark.parametrize("timeless", [True, False])
def test_a_look_that_is_used_is_nothing_saved(timeless):
    """One token a step, so no state is ever that of the step before: four evaluations, and none that was spared."""
    model = replace(exact_model(), timeless=timeless)
    totals = redraft.run(
        SVDD(1, sampler=ONE_BY_ONE), model, problems(3), verifier=total, progress=False
    ).ledger.totals()
    assert totals["spent"]["denoiser"] == 3 * 4
    assert totals["saved"]["denoiser"] == 0


def timed(told):
    """A model with a time input, which writes down the levels (B, R) that it is told and what it sees."""

    def forward(x, state):
        told.append((state.t.clone(), x.clone()))
        return torch.zeros(*x.shape, 3), None

    return TokenModel("timed", forward, Convention(3, 2), length=4, timeless=False)


def begun(model, sampler):
    given, streams = problems(20), Streams.root(0, torch.arange(20))
    noisy = model.process.prior(given.state(), given.state().free, streams.fold("prior"))
    return sampler.init(model, noisy, streams), streams


def test_what_a_model_with_a_time_input_said_of_another_level_is_not_used():
    told = []
    model, sampler = timed(told), Unmask(4)
    walk, streams = begun(model, sampler)
    walk = sampler.look(model, descend(sampler, model, walk, 0.5, streams))
    up = sampler.rewind(model, walk, 0.75, streams.fold("up"), at=0.5)
    same = (up.state.x == walk.state.x).all(1) & ~up.done
    assert same.any()
    told.clear()
    sampler.step(model, up[same], streams[same])
    assert told[0][0].eq(0.75).all()


def test_in_blocks_masks_to_come_are_told_to_be_pure_noise():
    told = []
    model, sampler = timed(told), Unmask(8, block=2)
    walk, streams = begun(model, sampler)
    while not walk.done.all():
        walk = walk.put(~walk.done, sampler.step(model, walk[~walk.done], streams[~walk.done]))
    for t, x in told:
        first, second = x[:, :2] == 2, x[:, 2:] == 2
        assert t[:, 2:][first.any(1)].eq(1).all()  # the second block waits
        assert t[:, :2][~first.any(1)].eq(0).all() or second.any()
        assert ((t > 0) | (x != 2)).all()
        assert t[:, :2][(x[:, 2:] != 2).any(1)].eq(0).all()  # the first is done once the second is begun
