"""The exact task, against enumeration of every sequence of a small chain."""

import math

import pytest
import torch
from checks import FALSE_ALARM, counts_p

from redraft import RedraftError, load_task
from redraft.core.state import State
from redraft.tasks.markov import MarkovChain, model

S, L = 3, 4
INITIAL = torch.tensor([0.5, 0.3, 0.2])
TRANSITION = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.25, 0.5, 0.25]])
CHAIN = MarkovChain(TRANSITION, INITIAL, L)


def law():
    """Every sequence and its probability, by the chain rule alone."""
    sequences = torch.cartesian_prod(*[torch.arange(S)] * L)
    p = INITIAL.double()[sequences[:, 0]]
    for i in range(1, L):
        p = p * TRANSITION.double()[sequences[:, i - 1], sequences[:, i]]
    return sequences, p


def partly_masked():
    """Every sequence of states and masks."""
    return torch.cartesian_prod(*[torch.arange(S + 1)] * L)


def enumerated(x, position, blind):
    """p(x0_position | what x shows), without what it shows at the position itself if `blind`."""
    sequences, p = law()
    agree = (sequences == x) | (x == S)
    if blind:
        agree[:, position] = True
    weight = p * agree.all(1)
    return torch.stack([weight[sequences[:, position] == s].sum() for s in range(S)]) / weight.sum()


@pytest.mark.parametrize("blind", [False, True])
def test_conditionals_are_those_of_enumeration(blind):
    x = partly_masked()
    found = CHAIN.leave_one_out(x) if blind else CHAIN.posterior(x)
    assert found.dtype == torch.float64
    for row in range(0, len(x), 3):
        for i in range(L):
            assert torch.allclose(found[row, i], enumerated(x[row], i, blind), atol=1e-12)


def test_likelihoods_are_those_of_enumeration_and_masks_are_summed_over():
    sequences, p = law()
    assert torch.allclose(CHAIN.log_likelihood(sequences).exp(), p, atol=1e-14)
    x = torch.tensor([[0, S, 2, S], [S] * L])
    agree = ((sequences == x[0]) | (x[0] == S)).all(1)
    assert torch.allclose(CHAIN.log_likelihood(x).exp(), torch.stack([p[agree].sum(), p.sum()]))
    every, probability = CHAIN.enumerate()
    assert torch.equal(every, sequences)
    assert torch.allclose(probability, p)


def test_samples_follow_the_law():
    sequences, p = law()
    drawn = CHAIN.sample(4000, seed=1)
    number = (drawn * S ** torch.arange(L - 1, -1, -1)).sum(1)
    counts = torch.bincount(number, minlength=len(p))
    assert counts_p(counts, p) > FALSE_ALARM
    assert counts_p(counts, p.flip(0)) < 1e-10
    assert torch.equal(drawn, CHAIN.sample(4000, seed=1))
    assert not torch.equal(drawn, CHAIN.sample(4000, seed=2))


def test_the_models_raw_logits_doubt_revealed_tokens():
    x = torch.tensor([[0, S, 0, 1]])
    state = State(x, (x == S).double(), torch.zeros_like(x, dtype=torch.bool), torch.arange(1))
    prediction = model(CHAIN).predict(state)
    assert prediction.logits.shape == (1, L, S + 1)
    assert prediction.logits[..., S].eq(-math.inf).all()
    for i in range(L):
        assert torch.allclose(prediction.logits[0, i, :S].exp(), enumerated(x[0], i, blind=True))
    assert prediction.clean[0, 1] == enumerated(x[0], 1, blind=False).argmax()


def test_a_long_chain_neither_underflows_nor_drifts():
    chain = MarkovChain(TRANSITION, INITIAL, 5000)
    x = chain.sample(1, 0)
    assert chain.log_likelihood(x).isfinite()
    x[:, 1::2] = S
    assert torch.allclose(chain.posterior(x).sum(-1), torch.ones(1, 5000).double())


@pytest.mark.parametrize(
    ("transition", "initial", "length"),
    [(TRANSITION[:2], INITIAL, 4), (TRANSITION, INITIAL * 2, 4), (torch.eye(3), INITIAL, 4), (TRANSITION, INITIAL, 0)],
)
def test_what_is_no_chain_is_refused(transition, initial, length):
    with pytest.raises(RedraftError, match="chain|length is 0"):
        MarkovChain(transition, initial, length)


def test_problems_follow_from_their_number_and_have_ids_of_their_own():
    task = load_task("markov", states=4, length=10)
    few, many = task.problems(2, seed=3, given=0.5), task.problems(5, seed=3, given=0.5)[:2]
    for name in ("ids", "x", "frozen"):
        assert torch.equal(getattr(few, name), getattr(many, name))
    sets = [task.problems(3, s, p, g) for s in (0, 1) for p in ("train", "test") for g in (0.0, 0.5)]
    assert len(torch.cat([problems.ids for problems in sets]).unique()) == 24
    assert not task.problems(3).frozen.any()
    share = task.problems(200, given=0.3).frozen.double().mean()
    assert abs(share - 0.3) < 0.05


def test_the_metric_is_the_chains_likelihood_and_minus_infinity_for_masks():
    task = load_task("markov", states=4, length=10)
    problems = task.problems(3)
    samples = problems.x.clone()
    samples[2, 5] = 4
    scores = task.evaluate(samples, problems)["log_likelihood"]
    assert torch.allclose(scores[:2], task.chain.log_likelihood(samples[:2]))
    assert scores[2] == -math.inf
    assert task.model.length == 10


@pytest.mark.parametrize("settings", [{"n": 0}, {"n": 1, "split": "tset"}, {"n": 1, "given": 1.5}])
def test_problems_that_cannot_be_are_refused(settings):
    with pytest.raises(RedraftError):
        load_task("markov").problems(**settings)
