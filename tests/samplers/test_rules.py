"""What a step of a masked sampler may see, and what its parts say of themselves."""

from dataclasses import dataclass, replace

import pytest
import torch
from tokens import ByToken, exact_model, problems, walk_at

import redraft
from redraft import Generate, RedraftError, Unmask, preset
from redraft.samplers.budgets import EntropyBound, Even, OnSchedule, Proportional, Refresh, Remask, Threshold
from redraft.samplers.revising import Corrector
from redraft.samplers.rules import Rule
from redraft.samplers.scorers import Confidence, EndsLast, Entropy, Halton, Judge, Margin, Planner, Quality
from redraft.samplers.unmask_walk import UnmaskWalk
from redraft.tasks.markov import Markov

TASK = Markov(length=6)
MODEL = TASK.model
START = torch.full((3, 6), TASK.states)


@dataclass(frozen=True)
class Watching:
    """Reveals the first mask, and keeps what it sees."""

    seen: list
    remembers: bool = True
    revises, passes, needs = False, 0, ()

    def __call__(self, now):
        self.seen.append(now)
        return now.masked & (now.masked.cumsum(1) == 1), torch.zeros_like(now.masked)


def watched(remembers=True, model=MODEL):
    seen = []
    sampler = Unmask(6, Watching(seen, remembers))
    walk, streams = walk_at(sampler, model, START, 0)
    return sampler, walk, streams, seen


@pytest.mark.parametrize("timeless", [True, False])
def test_a_rule_that_remembers_sees_the_prediction_before(timeless):
    model = replace(MODEL, timeless=timeless)
    sampler, walk, streams, seen = watched(model=model)
    for _ in range(3):
        walk = sampler.step(model, walk, streams)
    assert [now.remembered.tolist() for now in seen] == [[False] * 3, [True] * 3, [True] * 3]
    assert torch.equal(seen[0].before.logits, seen[0].prediction.logits)
    for before, now in zip(seen, seen[1:], strict=False):
        assert torch.equal(now.before.logits, before.prediction.logits)
        assert not torch.equal(now.before.logits, now.prediction.logits)


def test_for_others_nothing_is_kept():
    sampler, walk, streams, seen = watched(remembers=False)
    walk = sampler.step(MODEL, sampler.step(MODEL, walk, streams), streams)
    assert walk.before is None
    assert seen[1].before is None


def test_rows_keep_their_own_past_when_they_are_joined_and_lose_it_when_they_go_back():
    sampler, walk, streams, seen = watched()
    later = sampler.step(MODEL, walk, streams)
    joined = UnmaskWalk.cat([walk[:1], later[1:]])
    sampler.step(MODEL, joined, streams)
    assert seen[-1].remembered.tolist() == [False, True, True]
    assert torch.equal(seen[-1].before.logits[0], seen[-1].prediction.logits[0])
    assert torch.equal(seen[-1].before.logits[1:], seen[0].prediction.logits[1:])
    back = sampler.rewind(MODEL, later, 1.0, streams)
    sampler.step(MODEL, back, streams)
    assert not seen[-1].remembered.any()


def test_parts_may_remember_too():
    class Past(Even):
        remembers = True

    assert Rule(Past()).remembers
    assert Unmask(4, Rule(Past()))._remembers()
    assert not Rule(Even(), Confidence()).remembers


@pytest.mark.parametrize(
    ("part", "random"),
    [
        (Remask(), True),
        (Corrector(), True),
        (Refresh(), True),
        (Refresh(number=2), False),
        (OnSchedule(), False),
        (Even(), False),
        (Proportional(), False),
        (Threshold(), False),
        (EntropyBound(), False),
        (Confidence(), False),
        (EndsLast(), False),
        (Margin(), False),
        (Entropy(), False),
        (Planner(), False),
        (Planner(fresh=True), True),
        (Judge(), False),
        (Quality(), True),
        (Halton(), False),
    ],
)
def test_parts_say_whether_they_draw(part, random):
    assert part.random is random


def test_the_level_that_a_step_leads_to():
    sampler, walk, streams, seen = watched()
    for _ in range(3):
        walk = sampler.step(MODEL, walk, streams)
    assert torch.stack([now.t_next[0, 0] for now in seen]).tolist() == pytest.approx([5 / 6, 4 / 6, 3 / 6])


def test_end_tokens_last_needs_a_model_that_knows_them():
    with pytest.raises(RedraftError, match="offers 'ends'"):
        redraft.run(Generate(preset("llada", steps=4, ends_last=True)), exact_model(), problems(1))


def test_masks_make_up_for_confidence_alone():
    with pytest.raises(RedraftError, match="compensated=False is of sigma='confidence' alone, not of 'cap'"):
        Remask("cap", 0.1, compensated=False)
    with pytest.raises(RedraftError, match="end is 1.5"):
        Proportional(1.5)


def test_a_fresh_draw_s_noise_is_the_row_s_own():
    """A row alone ends as in a batch, whatever the chunks that the noise is drawn in."""
    sampler = preset("p2-released", steps=4)
    model, given = exact_model(star=ByToken(0.0, vocabulary=3)), problems(40)
    whole = redraft.run(Generate(sampler), model, given).samples
    for row in (0, 17, 39):
        assert torch.equal(redraft.run(Generate(sampler), model, given[row : row + 1]).samples[0], whole[row])
