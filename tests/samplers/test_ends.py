"""Rows stop at an end token: the same text for fewer evaluations, and nothing else changes."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from checks import CERTAIN, FALSE_ALARM, counts_p
from tokens import exact_model, problems, walk_at

import redraft
from redraft import IPR, Generate, IterRef, Reward, Unmask, preset
from redraft.core.state import Draft
from redraft.core.task import Problems
from redraft.models.tokens import Convention, TokenModel
from redraft.processes.categorical import Draw
from redraft.processes.mask import MaskDiffusion
from redraft.samplers.budgets import Even
from redraft.samplers.presets import SAMPLERS
from redraft.samplers.rules import Rule
from redraft.tasks.markov import MarkovChain

END, MASK = 3, 11
EARLY = ["ancestral", "maskgit", "margin", "entropy", "llada", "dream", "threshold", "entropy-bounded", "llada2"]


def ending(seed=0):
    """A model whose logits follow from the place of a token and from its left neighbour, and that ends its texts."""
    generator = torch.Generator().manual_seed(seed)
    by_place, by_token = (torch.randn(n, 12, generator=generator) * 1.5 for n in (64, 12))
    by_place[:, END] += 1.0

    def forward(x, state):
        place = torch.arange(x.shape[1]) - state.origin[:, None]
        return by_place[place.clamp_min(0)] + by_token[x.roll(1, 1)], None

    return TokenModel("ending", forward, Convention(12, MASK, ends=(END,)))


def rows(new=12, after=()):
    """Six rows of unequal prompts, one of which holds an end itself, and masks, and tokens given behind them."""
    prompts = [[5, 6], [END, 7, 8], [9], [4, 5, 6, 7], [8, END], [10, 9, 8]]
    full = [[*prompt, *[MASK] * new, *after] for prompt in prompts]
    size = max(map(len, full))
    x = torch.tensor([[0] * (size - len(row)) + row for row in full])
    visible = torch.arange(size) >= size - torch.tensor([len(row) for row in full])[:, None]
    return Problems(torch.arange(6), x, x != MASK, cond={"visible": visible})


def until(samples, given):
    """New tokens of each row up to the first end."""
    texts = []
    for row, frozen in zip(samples, given.frozen, strict=True):
        new = row[~frozen].tolist()
        texts.append(new[: new.index(END) + 1] if END in new else new)
    return texts


def both(sampler, model, given):
    return (redraft.run(Generate(replace(sampler, stop=stop)), model, given, progress=False) for stop in (True, False))


@pytest.mark.parametrize("name", EARLY)
@pytest.mark.parametrize("draw", [Draw(0), Draw(1.0)])
def test_the_text_up_to_its_end_is_the_same_for_fewer_evaluations(name, draw):
    given, model = rows(), ending()
    stopped, whole = both(
        preset(name, draw=draw, **({"block": 8} if name in ("llada", "llada2") else {})), model, given
    )
    assert until(stopped.samples, given) == until(whole.samples, given)
    assert (stopped.ledger.nfe <= whole.ledger.nfe).all()
    assert stopped.ledger.nfe.sum() < whole.ledger.nfe.sum() or (name, draw.temperature) == ("dream", 1.0)  # by chance
    assert (stopped.samples != MASK).all()
    for row, own, frozen in zip(stopped.samples, until(stopped.samples, given), given.frozen, strict=True):
        behind = row[~frozen][len(own) :]
        assert len(own) < 12 or not len(behind)
        assert name not in ("llada", "llada2") or behind[8:].eq(END).all()  # all but what its block had revealed


def test_what_is_left_is_not_spent_and_a_row_alone_ends_as_in_a_batch():
    given, model = rows(), ending()
    whole = redraft.run(Generate(preset("threshold")), model, given, progress=False)
    for i in range(6):
        alone = redraft.run(Generate(preset("threshold")), model, given[i : i + 1], progress=False)
        assert torch.equal(alone.samples[0], whole.samples[i])
        assert alone.ledger.nfe[0] == whole.ledger.nfe[i]
        assert alone.ledger.saved["denoiser"][0] == whole.ledger.saved["denoiser"][i]
    assert whole.ledger.saved["denoiser"].sum() == 0


def test_tokens_that_are_given_behind_a_gap_are_waited_for():
    given, model = rows(after=(7, 8)), ending()
    for name in ("llada", "threshold"):
        stopped, whole = both(preset(name, steps=16), model, given)
        assert torch.equal(stopped.samples, whole.samples)
        assert torch.equal(stopped.ledger.nfe, whole.ledger.nfe)
        assert torch.equal(stopped.samples[given.frozen], given.x[given.frozen])


@pytest.mark.parametrize("name", ["remdm-cap", "p2", "star", "corrector"])
def test_samplers_that_mask_tokens_again_do_not_stop(name):
    given, model = rows(), ending()
    stopped, whole = both(preset(name, steps=16), model, given)
    assert torch.equal(stopped.samples, whole.samples)
    assert torch.equal(stopped.ledger.nfe, whole.ledger.nfe)


def test_models_without_ends_do_not_stop():
    given, model = rows(), ending()
    endless = replace(model, convention=replace(model.convention, ends=()))
    stopped, whole = both(preset("threshold"), endless, given)
    assert torch.equal(stopped.samples, whole.samples)


@pytest.mark.parametrize("name", SAMPLERS)
def test_all_presets_take_models_with_ends(name):
    """The chain's exact model, one of whose states ends a text."""
    base = exact_model()
    model = replace(base, convention=replace(base.convention, ends=(1,)))
    if any(need not in model.offers for need in preset(name).needs):
        pytest.skip("it asks for a critic")
    given = problems(40)
    result = redraft.run(Generate(preset(name, steps=4)), model, given, progress=False)
    assert (result.samples < 2).all()
    assert (result.ledger.nfe <= Generate(preset(name, steps=4)).nfe(model, Draft(given.state()))).all()


def test_redraws_and_moves_of_ended_rows_are_clean_and_within_their_cost():
    given, model = rows(), ending()
    for sampler in (Unmask(12), preset("threshold", block=None)):
        for method in (
            IPR(4, 0.3, initial=sampler, refine=sampler),
            IPR(4, 0.3, level=0.4, initial=sampler, refine=sampler),
            IterRef((0.5, 0.0), 0.3, moves=2, rounds=2, reward=Reward(5.0), sampler=sampler),
        ):
            verifier = None if isinstance(method, IPR) else (lambda samples, _: samples.double().sum(1))
            result = redraft.run(method, model, given, verifier=verifier, progress=False)
            assert (result.samples != MASK).all()
            assert torch.equal(result.samples[given.frozen], given.x[given.frozen])
            draft, foretold = Draft(given.state()), torch.zeros(6, dtype=torch.int64)
            for number in range(method.total()):
                foretold += method.nfe(model, replace(draft, number=number - 1))
            assert (result.ledger.nfe <= foretold).all()


ONCE = MarkovChain(  # a text of zeros, then ones to the end: 1 is its end token
    transition=torch.tensor([[0.7, 0.3], [1e-12, 1 - 1e-12]], dtype=torch.float64),
    initial=torch.tensor([0.8, 0.2], dtype=torch.float64),
    length=4,
)
ONE_BY_ONE = Unmask(4, Rule(Even(), None))
PLACES = torch.tensor([8, 4, 2, 1])


def once():
    base = exact_model(ONCE)
    return replace(base, convention=replace(base.convention, ends=(1,)))


def test_stopping_changes_no_law_of_texts_that_end_once():
    """One token at a time is exact, with and without; evaluations differ."""
    law = ONCE.enumerate()[1]
    for stop in (True, False):
        result = redraft.run(Generate(replace(ONE_BY_ONE, stop=stop)), once(), problems(8000), progress=False)
        counts = torch.bincount((result.samples * PLACES).sum(1), minlength=16)
        assert counts_p(counts[law > 1e-6], law[law > 1e-6]) > FALSE_ALARM
        assert (result.ledger.nfe < 4).any() == stop


def test_moves_of_ended_texts_leave_the_tilted_law_as_it_is():
    sequences, law = ONCE.enumerate()
    reward = torch.linspace(-1, 1, 16, dtype=torch.float64).flip(0)
    law = law * (reward / 0.5).exp()
    start = sequences[torch.multinomial(law, 6000, True, generator=torch.Generator().manual_seed(0))]

    def verifier(samples, given):
        return reward[(samples * PLACES).sum(1)]

    method = IterRef((0.0,), 0.5, moves=3, rounds=2, reward=Reward(0.5), sampler=ONE_BY_ONE)
    result = redraft.run(method, once(), problems(6000), verifier=verifier, start=start, progress=False)
    assert 0.05 < result.trace["acceptance"].nanmean() < 0.999
    counts = torch.bincount((result.samples * PLACES).sum(1), minlength=16)
    assert counts_p(counts[law > 1e-6], law[law > 1e-6]) > FALSE_ALARM


@pytest.mark.parametrize("broken", [False, True])
def test_a_text_that_ended_on_the_way_is_noised_as_one_that_had_not_been_filled(broken, monkeypatch):
    """From level 1/2 to 3/4: what lies behind the end has the law of noised tokens, whatever was filled in."""
    x = torch.tensor([[0, 1, 1, 1]]).expand(20_000, 4)
    state = problems(20_000).state()
    state = state.to(x, torch.zeros_like(state.t))
    streams = redraft.core.streams.Streams.root(1, state.problem)
    noisy = MaskDiffusion(2).renoise(state, state.free, torch.full_like(state.t, 0.5), streams)
    sampler = Unmask(4)
    walk, _ = walk_at(sampler, once(), noisy.x, 2)
    assert 0.2 < walk.settled.double().mean() < 0.35
    if broken:
        behind = sampler._behind
        calls = iter([True])
        monkeypatch.setattr(Unmask, "_behind", lambda _, *given: behind(*given) & (not next(calls, False)))
    up = sampler.rewind(once(), walk, 0.75, streams.fold("up"), at=0.5)
    hidden = torch.tensor(list(product([False, True], repeat=4)))
    law = torch.where(hidden, 0.75, 0.25).double().prod(1)
    ended = ~hidden[:, :2].any(1)
    law = torch.cat([law[~ended], law[ended].sum()[None]])
    place = ((up.state.x == 2) * PLACES).sum(1)
    counts = torch.bincount(place, minlength=16)
    counts = torch.cat([counts[hidden[:, :2].any(1)], counts[ended].sum()[None]])
    assert (counts_p(counts, law) < CERTAIN) if broken else (counts_p(counts, law) > FALSE_ALARM)


def test_ends_are_ids_of_the_vocabulary():
    with pytest.raises(redraft.RedraftError, match="end id 12"):
        Convention(12, 11, ends=(12,))
