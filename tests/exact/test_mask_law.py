"""Masked samplers against a Markov chain whose every conditional is known, with variants that must fail."""

from types import SimpleNamespace

import pytest
import torch
from checks import CERTAIN, FALSE_ALARM, counts_p
from tokens import CHAIN, Fixed, after_one_step, exact_model, masked_states, noised_law, number, problems

import redraft
from redraft import IPR, Generate, Parallel, Sequential, Unmask
from redraft.processes.mask import most_remasked, revealed
from redraft.samplers.budgets import Even, OnSchedule, Remask
from redraft.samplers.revising import Corrector
from redraft.samplers.rules import Rates, Rule
from redraft.samplers.scorers import Judge
from redraft.samplers.unmask import ANCESTRAL

MODEL = exact_model()
STEPS, ROWS = 10, 20_000


def noised(kept, seed=0):
    """Draws (ROWS, L) of q(x_t)."""
    generator = torch.Generator().manual_seed(seed)
    x = CHAIN.sample(ROWS, seed)
    return x.masked_fill(torch.rand(x.shape, generator=generator) >= kept, CHAIN.states)


class Uncompensated(Remask):
    """Masks tokens again and reveals no more for it."""

    def __call__(self, now):
        rates = super().__call__(now)
        return Rates(revealed(now.kept, now.kept_next, torch.zeros_like(now.kept)), rates.remask)


def marginal_p(budget, step=5):
    """That every token survives a step from t with probability a_s, when it had survived to t with a_t."""
    sampler = Unmask(STEPS, Rule(budget))
    x = after_one_step(sampler, MODEL, noised(1 - (1 - step / STEPS)), step)
    kept = (step + 1) / STEPS
    shown = (x != CHAIN.states).sum()
    return counts_p(torch.stack([shown, x.numel() - shown]), [kept, 1 - kept])


SIGMAS = [
    ("none", 0),
    ("cap", 0.1),
    ("cap", 1.0),
    ("rescale", 0.5),
    ("rescale", 1.0),
    ("forward-backward", 0),
    ("star", 0),
]


@pytest.mark.parametrize(("sigma", "eta"), SIGMAS)
@pytest.mark.parametrize("step", [2, 7])
def test_with_any_valid_sigma_a_token_survives_a_step_with_probability_a_s(sigma, eta, step):
    assert marginal_p(Remask(sigma, eta), step) > FALSE_ALARM


def test_the_check_of_marginals_rejects_sigma_that_masks_do_not_make_up_for():
    assert marginal_p(Uncompensated("cap", 0.1)) < CERTAIN


def test_sigma_never_passes_its_bound():
    kept, kept_next = torch.tensor([[0.1], [0.8]]), torch.tensor([[0.9], [0.85]])
    most = most_remasked(kept, kept_next)
    assert ((kept_next - kept) / kept > most)[0]
    for sigma, eta in SIGMAS:
        now = SimpleNamespace(kept=kept, kept_next=kept_next)
        rates = Remask(sigma, eta)(now)
        assert (rates.remask <= most + 1e-9).all()
        assert (kept * (1 - rates.remask) + (1 - kept) * rates.reveal - kept_next).abs().max() < 1e-6


def star_law(x, kept):
    """The law (N,) after a star step from `x` (L,): x^ is drawn, and each token of it kept with probability `kept`."""
    posterior = CHAIN.posterior(x[None])[0]
    each = torch.cat([kept * posterior, torch.full((len(x), 1), 1 - kept)], 1)  # (L, S + 1)
    states = masked_states()
    return each[torch.arange(len(x)), states].prod(1)


@pytest.mark.parametrize("x", [[2, 2, 2, 2], [0, 2, 1, 2], [1, 0, 0, 2], [1, 1, 0, 0]])
@pytest.mark.parametrize("budget", [Remask("star"), "remdm"])
def test_star_is_remdm_with_sigma_one_minus_a_s(x, budget):
    """Both are simulated against the definition of the star-shaped step, enumerated."""
    step, x = 5, torch.tensor(x)
    kept = (step + 1) / STEPS
    budget = Remask("cap", 1 - kept) if budget == "remdm" else budget
    after = after_one_step(Unmask(STEPS, Rule(budget)), MODEL, x.expand(ROWS, 4), step)
    law = star_law(x, kept)
    counts = torch.bincount(number(after), minlength=len(law))
    assert counts[law == 0].sum() == 0
    assert counts_p(counts[law > 0], law[law > 0]) > FALSE_ALARM
    ancestral = torch.bincount(
        number(after_one_step(Unmask(STEPS), MODEL, x.expand(ROWS, 4), step)), minlength=len(law)
    )
    assert counts_p(ancestral[law > 0], law[law > 0]) < CERTAIN


def guided(critic, noise, kept_steps=6, x=(0, 1, 2, 2)):
    """Which tokens (ROWS, L) a G-Star step masks when the critic thinks so of the positions."""
    sampler = Unmask(STEPS, Rule(OnSchedule("ceil"), Judge("c"), noise, joint=True))
    x = torch.tensor(x).expand(ROWS, 4)
    return after_one_step(sampler, exact_model(c=Fixed(critic)), x, kept_steps - 1) == CHAIN.states


def test_a_constant_critic_masks_as_many_as_star_and_any_as_often():
    masked = guided([0.7] * 4, noise=1.0)
    assert (masked.sum(1) == 2).all()  # ceil(0.4 * 4), the mean of Star's, 1.6, rounded up
    assert counts_p(masked.sum(0), [0.25] * 4) > FALSE_ALARM


def test_gumbel_noise_draws_in_proportion_to_the_critic():
    logits = torch.tensor([0.0, 1.0, -1.0, 0.5])
    masked = guided(logits, noise=2.0, kept_steps=8)  # one token: ceil(0.2 * 4)
    assert (masked.sum(1) == 1).all()
    assert counts_p(masked.sum(0), (logits / 2).softmax(0)) > FALSE_ALARM
    assert counts_p(masked.sum(0), logits.softmax(0)) < CERTAIN


@pytest.mark.parametrize("noise", [0.0, 1e-6])
def test_a_remasking_temperature_of_zero_takes_the_worst(noise):
    masked = guided([0.0, 1.0, -1.0, 0.5], noise)
    assert masked.sum(0).tolist() == [0, ROWS, 0, ROWS]


def corrector_kernel(size, kept, broken=False):
    """P (N, N) of a corrector's step between all sequences with masks, by its own rates and the exact posterior."""
    rates = Corrector(size)(SimpleNamespace(kept=torch.tensor([[kept]], dtype=torch.float64)))
    reveal, remask = (rates.remask, rates.reveal) if broken else (rates.reveal, rates.remask)
    states = masked_states()
    posterior = CHAIN.posterior(states)  # (N, L, S), one-hot where shown
    hidden = (states == CHAIN.states)[..., None].double()
    to_token = posterior * (hidden * reveal + (1 - hidden) * (1 - remask))
    to_mask = hidden * (1 - reveal) + (1 - hidden) * remask
    each = torch.cat([to_token, to_mask], 2)  # (N, L, S + 1)
    position = torch.arange(CHAIN.length)
    return torch.stack([each[i][position, states].prod(1) for i in range(len(states))])


def drift(size, **broken):
    """How far a corrector's step takes q_t from itself, in total variation."""
    law = noised_law(0.4)
    assert abs(float(law.sum()) - 1) < 1e-6
    return float((law @ corrector_kernel(size, 0.4, **broken) - law).abs().sum() / 2)


def test_the_corrector_leaves_the_law_as_it_is_up_to_second_order():
    """Positions that flip together are drawn apart, which is of second order in the size; wrong rates are of first."""
    assert drift(0.02) < 1e-4
    assert drift(0.01) / drift(0.02) < 0.3
    assert drift(0.01, broken=True) / drift(0.02, broken=True) > 0.45


def test_the_corrector_leaves_the_share_of_masks_as_it_is_at_any_size():
    law, shown = noised_law(0.4), (masked_states() != CHAIN.states).double().mean(1)
    assert abs(float((law @ corrector_kernel(2.0, 0.4)) @ shown) - 0.4) < 1e-6
    assert abs(float((law @ corrector_kernel(2.0, 0.4, broken=True)) @ shown) - 0.4) > 0.01


def test_the_sampler_takes_the_corrector_s_own_step():
    x = torch.tensor([0, 2, 1, 2])
    sampler = Unmask(STEPS, Rule(Remask("cap", 0)), corrector=Corrector(0.5))
    after = number(after_one_step(sampler, MODEL, x.expand(ROWS, 4), 5))
    ancestral = Unmask(STEPS, Rule(Remask("cap", 0)))
    first = torch.bincount(number(after_one_step(ancestral, MODEL, x.expand(ROWS, 4), 5, seed=1)), minlength=81)
    law = first.double() / ROWS @ corrector_kernel(0.5, 0.6)
    counts = torch.bincount(after, minlength=81)
    big = law * ROWS > 20
    error = (counts - law * ROWS)[big] / (2 * law * ROWS)[big].sqrt()  # both sides are draws
    assert error.abs().max() < 4.5


ONE_BY_ONE = Rule(Even(), None)


def sampled_p(sampler, given=(), seed=0):
    """That samples follow the chain's law, or its conditional law."""
    x = CHAIN.sample(1, 5).expand(ROWS, 4).contiguous()
    result = redraft.run(Generate(sampler), MODEL, problems(ROWS, 4, given, x), seed=seed)
    sequences, law = CHAIN.enumerate()
    law = law * (sequences[:, list(given)] == x[0, list(given)]).all(1)
    counts = torch.bincount((result.samples * torch.tensor([8, 4, 2, 1])).sum(1), minlength=16)
    assert counts[law == 0].sum() == 0
    return counts_p(counts[law > 0], law[law > 0])


@pytest.mark.parametrize("given", [(), (1,), (0, 3)])
@pytest.mark.parametrize("block", [None, 2])
def test_one_token_at_a_time_is_exact(given, block):
    assert sampled_p(Unmask(4, ONE_BY_ONE, block=block), given) > FALSE_ALARM
    assert sampled_p(Sequential(steps_per_region=1, order="random"), given) > FALSE_ALARM


def test_several_at_a_time_are_not():
    assert sampled_p(Unmask(2, ONE_BY_ONE)) < CERTAIN
    assert sampled_p(Unmask(1)) < CERTAIN


def test_revision_brings_coarse_steps_nearer_to_the_law():
    """Of 8 steps, ancestral sampling draws some tokens together; a corrector at each step repairs what it can."""

    def distance(sampler):
        result = redraft.run(Generate(sampler), MODEL, problems(ROWS))
        counts = torch.bincount((result.samples * torch.tensor([8, 4, 2, 1])).sum(1), minlength=16)
        return float((counts / ROWS - CHAIN.enumerate()[1]).abs().sum() / 2)

    assert distance(Unmask(4, corrector=Corrector(0.7, steps=4))) < 0.7 * distance(Unmask(4, ANCESTRAL))


def ipr_p(refine, level=1.0):
    method = IPR(iterations=3, ratio=0.5, level=level, refine=refine)
    result = redraft.run(method, MODEL, problems(ROWS), start=CHAIN.sample(ROWS, 9))
    counts = torch.bincount((result.samples * torch.tensor([8, 4, 2, 1])).sum(1), minlength=16)
    return counts_p(counts, CHAIN.enumerate()[1])


def test_ipr_over_tokens_leaves_the_law_as_it_is():
    assert ipr_p(Sequential(steps_per_region=1)) > FALSE_ALARM
    assert ipr_p(Sequential(steps_per_region=1), level=0.6) > FALSE_ALARM
    assert ipr_p(Unmask(4, ONE_BY_ONE)) > FALSE_ALARM
    assert ipr_p(Parallel(1)) < CERTAIN


def test_the_trace_says_how_often_tokens_were_masked_again():
    steps, rows = 8, 4000
    star = Unmask(steps, Rule(Remask("star")))
    redraws = redraft.run(Generate(star), MODEL, problems(rows), progress=False).trace["redraws"]
    expected = sum(i / steps * (1 - (i + 1) / steps) for i in range(steps))
    assert abs(redraws.mean() - expected) < 4 * redraws.std() / rows**0.5
    assert not redraft.run(Generate(Unmask(steps)), MODEL, problems(9), progress=False).trace["redraws"].any()
