"""Samplers that go on until no mask is left: what they cost at most, what a cap forces, and what their levels are."""

from dataclasses import replace

import pytest
import torch
from tokens import exact_model, problems

import redraft
from redraft import (
    FK,
    IPR,
    SVDD,
    Beam,
    Generate,
    Halving,
    IterRef,
    ParticleGibbs,
    Preset,
    RedraftError,
    Reward,
    Unmask,
    preset,
)
from redraft.core.counting import CountedModel
from redraft.core.ledger import Ledger
from redraft.core.state import Draft
from redraft.core.streams import Streams
from redraft.models.tokens import Convention, TokenModel
from redraft.processes.categorical import Draw
from redraft.samplers import descend, looks
from redraft.samplers.budgets import EntropyBound, Even, Factor, Threshold
from redraft.samplers.revising import Corrector, Edit
from redraft.samplers.rules import Rule
from redraft.samplers.scorers import Confidence, Entropy
from redraft.tasks.markov import Markov

TASK = Markov(length=24)
MODEL = TASK.model
PACED = {
    "threshold": Unmask(None, Rule(Threshold(0.8), Confidence())),
    "factor": Unmask(None, Rule(Factor(0.8), Confidence())),
    "entropy": Unmask(None, Rule(EntropyBound(0.2), Entropy())),
    "quota": Unmask(None, Rule(Threshold(0.95, least=3, extra=2), Confidence())),
    "blocks": Unmask(None, Rule(Threshold(0.9), Confidence()), block=16),
    "edited": Unmask(None, Rule(Threshold(0.6), Confidence()), edit=Edit(0.4, 5)),
    "edited blocks": Unmask(None, Rule(Threshold(0.6), Confidence()), block=7, edit=Edit(0.4, 5)),
}


def unsure(rows=1, length=256, words=4):
    """Masks whose tokens are all but equally likely, so that no threshold is reached, and their problems."""

    def forward(x, state):
        logits = torch.linspace(0, 0.1, words).expand(*x.shape, words)
        return torch.cat([logits, torch.full((*x.shape, 1), -torch.inf)], 2), None

    return TokenModel("unsure", forward, Convention(words + 1, words), length=length), problems(rows, length)


def test_presets_run_until_no_mask_is_left_and_never_reveal_the_rest_at_once():
    model, given = unsure()
    for name in ("threshold", "entropy-bounded", "llada2"):
        result = redraft.run(Generate(preset(name)), model, given, progress=False)
        assert (result.ledger.nfe == 256).all()
        assert "forced" not in result.trace
        assert (Generate(preset(name)).nfe(model, Draft(given.state())) >= 256).all()
    assert Generate(preset("threshold")).nfe(model, Draft(given.state())).tolist() == [256]


@pytest.mark.parametrize(
    ("name", "steps", "forced"), [("threshold", 128, 128), ("threshold", 256, 0), ("entropy-bounded", 64, 192)]
)
def test_a_cap_on_the_steps_says_how_many_tokens_it_forced(name, steps, forced):
    """In 8 blocks of 32, 16 steps each: 15 tokens by the rule, and 17 in the last step, of which 1 would have come."""
    model, given = unsure()
    result = redraft.run(Generate(preset(name, steps=steps)), model, given, progress=False)
    assert result.trace["forced"].tolist() == [forced]
    assert (result.ledger.nfe == steps).all()
    assert Generate(preset(name, steps=steps)).nfe(model, Draft(given.state())).tolist() == [steps]


def test_what_is_forced_is_told_for_each_row():
    given = TASK.problems(8)
    capped = redraft.run(Generate(Unmask(4, PACED["threshold"].rule)), MODEL, given, progress=False)
    free = redraft.run(Generate(PACED["threshold"]), MODEL, given, progress=False)
    assert (capped.trace["forced"] > 0).sum() > 0
    assert torch.equal(capped.trace["forced"] == 0, free.ledger.nfe <= 4)
    assert "forced" not in redraft.run(Generate(Unmask(6)), MODEL, given, progress=False).trace


def test_a_quota_is_shared_out_as_published():
    """32 positions in 12 steps: 3 in each of the first 8, then 2; in 40 steps one at least."""
    model, given = unsure(1, 32)
    for steps, calls in ((12, 12), (40, 32), (32, 32), (5, 5), (1, 1)):
        assert redraft.run(Generate(preset("llada2", steps=steps)), model, given, progress=False).ledger.nfe == calls
    assert preset("llada2", steps=12).rule.budget == Threshold(0.95, 2, 8, shaped=True)


@pytest.mark.parametrize("name", PACED)
def test_walks_cost_no_more_than_is_foretold(name):
    sampler, given = PACED[name], TASK.problems(8, given=0.2)
    result = redraft.run(Generate(sampler), MODEL, given, progress=False)
    assert (result.samples < TASK.states).all()
    assert torch.equal(result.samples[given.frozen], given.x[given.frozen])
    assert (result.ledger.nfe <= Generate(sampler).nfe(MODEL, Draft(given.state()))).all()
    for i in (0, 7):
        alone = redraft.run(Generate(sampler), MODEL, given[i : i + 1], progress=False)
        assert torch.equal(alone.samples[0], result.samples[i])
        assert alone.ledger.nfe[0] == result.ledger.nfe[i]


@pytest.mark.parametrize("name", [name for name in PACED if "blocks" not in name])
@pytest.mark.parametrize(("high", "low"), [(1.0, 0.0), (0.8, 0.3), (0.31, 0.3), (0.2, 0.2)])
def test_a_part_of_a_walk_costs_no_more_than_is_foretold(name, high, low):
    """And begins with the masks that its level says; the ceiling is met where no token is sure."""
    for model, given in ((MODEL, TASK.problems(6)), unsure(2, 24)):
        sampler, ledger = PACED[name], Ledger(len(given))
        state, streams, counted = given.state(), Streams.root(0, given.ids), CountedModel(model, ledger)
        up = sampler.rewind(counted, sampler.arrived(counted, state), high, streams.fold("up"))
        assert ((up.state.x == model.convention.mask).sum(1) == -(-24 * high // 1)).all()
        down = descend(sampler, counted, up, low, streams.fold("down"))
        assert (sampler.level(down) <= low + 1e-6).all()
        assert (down.done | (sampler.level(down) > 0)).all()
        foretold = sampler.between(model, state.free.sum(1), high, low)
        assert (ledger.nfe <= foretold).all()
        assert model is MODEL or name in ("quota", "edited") or (ledger.nfe == foretold).all()


def test_the_level_is_the_share_of_masks_that_are_left():
    sampler, given = PACED["threshold"], TASK.problems(6)
    streams = Streams.root(0, given.ids)
    walk = sampler.init(MODEL, MODEL.process.prior(given.state(), given.state().free, streams), streams)
    assert (sampler.level(walk) == 1).all()
    while not walk.done.all():
        walk = walk.put(~walk.done, sampler.step(MODEL, walk[~walk.done], streams[~walk.done]))
        share = (walk.state.x == TASK.states).double().mean(1)
        assert torch.allclose(sampler.level(walk), share)
        assert torch.allclose(walk.state.t.amax(1).double(), share, atol=1e-6)


def test_a_look_is_foretold_where_masks_are_left():
    sampler, regions = PACED["threshold"], torch.tensor([0, 4, 10])
    assert looks(sampler, MODEL, regions, 0.2).tolist() == [0, 0, 1]
    assert looks(sampler, MODEL, regions, 0.0).tolist() == [0, 0, 0]
    assert PACED["blocks"].between(None, regions, 0.5, 0.2).tolist() == PACED["blocks"].nfe(regions).tolist()


def total(samples, given):
    return samples.double().sum(1)


@pytest.mark.parametrize(
    "method",
    [
        Halving(8, (0.9, 0.6, 0.3)),
        FK(3),
        SVDD(2),
        Beam(2, 2),
        ParticleGibbs(2, 2),
        IterRef((0.5, 0.125, 0.0), 0.2, moves=2, reward=Reward(5.0)),
    ],
    ids=lambda method: type(method).__name__,
)
@pytest.mark.parametrize("name", ["threshold", "edited"])
def test_methods_cost_no_more_than_they_say_on_such_walks(method, name):
    method, given = replace(method, sampler=PACED[name]), TASK.problems(4)
    result = redraft.run(method, MODEL, given, verifier=total, progress=False)
    foretold, draft = torch.zeros(4, dtype=torch.int64), Draft(given.state())
    for number in range(method.total()):
        foretold = foretold + method.nfe(MODEL, replace(draft, number=number - 1))
    assert (result.ledger.nfe <= foretold).all()
    assert (result.samples < TASK.states).all()


@pytest.mark.parametrize("level", [1.0, 0.3])
def test_redraws_by_such_samplers_are_clean_and_within_their_cost(level):
    method = IPR(4, 0.3, level=level, initial=PACED["blocks"], refine=PACED["threshold"])
    given = TASK.problems(5)
    result = redraft.run(method, MODEL, given, progress=False)
    foretold = method.nfe(MODEL, Draft(given.state())) + 4 * method.nfe(MODEL, Draft(given.state(), 0))
    assert (result.ledger.nfe <= foretold).all()
    assert (result.samples < TASK.states).all()


def test_edits_are_told_as_redraws():
    """Each token was revealed for good by the rule, so what is redrawn was edited."""
    given, rule = TASK.problems(16), Rule(Threshold(0.3), Confidence())
    edited, plain = (
        redraft.run(Generate(Unmask(None, rule, edit=edit)), MODEL, given, progress=False) for edit in (Edit(0.1), None)
    )
    assert edited.trace["redraws"].sum() > 0 == plain.trace["redraws"].sum()
    assert not torch.equal(edited.samples, plain.samples)


def test_given_tokens_are_never_edited():
    given = TASK.problems(12, given=0.5)
    wrong = replace(given, x=(given.x + 1) % TASK.states)
    sampler = Unmask(None, Rule(Threshold(0.3), Confidence()), draw=Draw(0), edit=Edit(0.1))
    assert torch.equal(redraft.run(Generate(sampler), MODEL, wrong).samples[wrong.frozen], wrong.x[wrong.frozen])


def test_a_preset_by_name_has_its_own_steps():
    assert Preset("threshold").nfe(torch.tensor([256])).tolist() == [256]
    assert Preset("threshold", 64).nfe(torch.tensor([256])).tolist() == [64]
    assert Preset().nfe(torch.tensor([256])).tolist() == [128]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Unmask(None), "steps=None needs a budget that reveals a mask in every step"),
        (lambda: Unmask(None, Rule(Even(), Confidence())), "give steps"),
        (lambda: Unmask(None, Rule(Threshold(), Confidence(), joint=True)), "give steps"),
        (lambda: Unmask(None, Rule(Threshold(), Confidence()), on=0.5), "give steps"),
        (lambda: Unmask(None, Rule(Threshold(), Confidence()), corrector=Corrector()), "no corrector"),
        (lambda: Unmask(8, Rule(Threshold(), Confidence()), edit=Edit()), "set steps=None"),
        (lambda: Edit(1.5), "confidence is 1.5"),
        (lambda: Edit(steps=0), "steps is 0"),
        (lambda: Factor(0), "factor is 0"),
        (lambda: Threshold(least=0), "least is 0"),
        (lambda: preset("llada2", steps=0), "steps is 0 and block 32"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(make, words):
    with pytest.raises(RedraftError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_editing_needs_raw_logits():
    model = exact_model()
    carried = replace(model, convention=replace(model.convention, carried=True))
    with pytest.raises(RedraftError, match="raw logits"):
        redraft.run(Generate(preset("llada2.1")), carried, problems(1))
