"""Search for noise and over paths, on a linear-Gaussian model whose sampler maps noise to samples linearly."""

from dataclasses import replace

import pytest
import torch
from models_exact import LinearGaussian
from tokens import exact_model, problems

import redraft
from redraft import BestOfN, DraftThenVerify, Generate, Halving, Parallel, Paths, RedraftError, Sequential, ZeroOrder
from redraft.core.state import Draft
from redraft.core.streams import Streams
from redraft.methods.zero_order import neighbour
from redraft.samplers import sample

MODEL, STEPS = LinearGaussian(), 10
SAMPLER = Parallel(STEPS)
METHODS = [
    ZeroOrder(4, 3, sampler=SAMPLER),
    ZeroOrder(4, 3, 0.5, decay=0.8, patience=1, sampler=SAMPLER),
    Paths(2, 3, level=0.3, forward=0.4, backward=0.5, sampler=SAMPLER),
    DraftThenVerify(6, 2, Parallel(3), SAMPLER),
    Halving(8, (0.7, 0.4), sampler=SAMPLER),
]


def verifier(samples, given):
    """A reward that is highest in the middle of nowhere."""
    return -(samples.double().flatten(1) - 1.5).square().sum(1)


def given(n=6, frozen=()):
    return MODEL.problems(MODEL.draw(n, 3), frozen)


def searched(method, n=6, frozen=()):
    return redraft.run(method, MODEL, given(n, frozen), verifier=verifier)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
class TestEvery:
    def test_it_beats_a_sample_and_reports_the_winner_s_own_score(self, method):
        result = searched(method, 40)
        base = verifier(redraft.run(Generate(SAMPLER), MODEL, given(40)).samples, None).mean()
        last = result.trace["draft"] == result.trace["draft"].max()
        assert torch.allclose(result.trace["reward"][last], verifier(result.samples, None))
        assert result.trace["reward"][last].mean() > base + 1

    def test_alone_as_among_others_and_what_is_given_stays(self, method):
        whole, problem = searched(method, 5, (1,)), given(5, (1,))
        assert torch.equal(whole.samples[:, 1], problem.x[:, 1])
        alone = redraft.run(method, MODEL, problem[2:3], verifier=verifier)
        assert torch.allclose(alone.samples[0], whole.samples[2], atol=1e-5)

    def test_it_costs_no_more_than_it_says(self, method):
        result, draft = searched(method), Draft(given().state())
        nfe = calls = 0
        for place in range(method.total()):
            nfe, calls = nfe + method.nfe(MODEL, draft), calls + method.verifier_calls(MODEL, draft)
            draft = replace(draft, number=place)
        assert (result.ledger.nfe <= nfe).all()
        assert (result.ledger.verifier_calls <= calls).all()


def test_a_neighbour_has_the_pivot_s_norm_and_the_cosine_asked_for():
    streams = Streams.root(0, torch.arange(7))
    pivot, fresh = (streams.fold(name).normal((5, 3)) for name in ("a", "b"))
    free = torch.ones(7, 5, dtype=torch.bool)
    free[:, 2] = False
    for cosine in (0.0, 0.6, 0.95):
        near = neighbour(pivot, fresh, free, cosine)
        assert torch.equal(near[:, 2], pivot[:, 2])
        a, b = pivot[free].view(7, -1), near[free].view(7, -1)
        assert torch.allclose(b.norm(dim=1), a.norm(dim=1), rtol=1e-5)
        assert torch.allclose(torch.cosine_similarity(a, b), torch.tensor(cosine), atol=1e-5)


class TestZeroOrder:
    method = METHODS[0]

    def test_the_pivot_is_scored_once_and_kept_unless_beaten(self):
        result = searched(self.method)
        assert (result.ledger.nfe == STEPS * (1 + 4 * 3)).all()
        assert (result.ledger.verifier_calls == 1 + 4 * 3).all()
        rewards = torch.stack(list(result.trace.by_draft("reward").values()))
        assert (rewards.diff(dim=0) >= 0).all()
        assert (rewards.diff(dim=0) > 0).any(0).all()

    def test_the_winner_s_noise_makes_the_winner_again(self):
        streams = Streams.root(0, given().ids)
        *_, draft = self.method.drafts(MODEL, Draft(given().state()), streams, verifier)
        noisy = draft.state.to(draft.carry["noise"], torch.ones_like(draft.state.t))
        assert torch.allclose(sample(SAMPLER, MODEL, noisy, streams.fold("initial")).x, draft.state.x, atol=1e-5)

    def test_neighbours_stay_near(self):
        """A cosine near 1 moves samples little in one round, a low one far."""
        moved = {}
        for cosine in (0.999, 0.3):
            start = searched(ZeroOrder(0, 3, cosine, sampler=SAMPLER), 30).samples
            end = searched(ZeroOrder(1, 3, cosine, sampler=SAMPLER), 30).samples
            moved[cosine] = float((end - start).norm())
        assert moved[0.999] < 0.15 * moved[0.3]

    def test_patience_begins_anew_and_keeps_the_best(self):
        """A verifier that likes the first sample only: with patience the noise moves, the sample stays."""
        first = redraft.run(ZeroOrder(0, sampler=SAMPLER), MODEL, given(1), verifier=verifier).samples

        def loyal(samples, problem):
            return -(samples.double() - first.double()).flatten(1).abs().sum(1)

        result = redraft.run(
            ZeroOrder(5, 2, patience=2, sampler=SAMPLER), MODEL, given(1), verifier=loyal, on_draft=lambda s, t: None
        )
        assert torch.equal(result.samples, first)
        assert result.trace["moved"][result.trace["draft"] == 3] == 1
        still = redraft.run(ZeroOrder(5, 2, sampler=SAMPLER), MODEL, given(1), verifier=loyal)
        assert still.trace["moved"][still.trace["draft"] > 0].sum() == 0


def test_drafts_by_the_full_sampler_are_best_of_n():
    same = searched(DraftThenVerify(6, 1, SAMPLER, SAMPLER), 20)
    several = searched(DraftThenVerify(6, 6, Parallel(2), SAMPLER), 20)
    assert torch.allclose(same.trace["reward"], several.trace["reward"])


def test_halving_without_levels_is_best_of_its_candidates():
    whole = searched(Halving(8, (), sampler=SAMPLER), 30).trace["reward"].mean()
    best = searched(BestOfN(8, 8, SAMPLER), 30).trace["reward"].mean()
    halved = searched(Halving(8, (0.7, 0.4), sampler=SAMPLER), 30)
    assert abs(whole - best) < 0.5
    assert halved.trace["reward"].mean() > best - 0.8
    assert (halved.ledger.nfe < 0.7 * 8 * STEPS).all()


def test_paths_end_at_level_zero_whatever_the_grid():
    for level, forward, backward in ((0.11, 0.78, 0.81), (0.25, 0.3, 0.37)):
        method = Paths(2, 2, level=level, forward=forward, backward=backward, sampler=Parallel(7))
        assert method.level_after(method.rounds - 1) == 0
        result = searched(method)
        assert torch.allclose(result.trace["reward"], verifier(result.samples, None))


def test_the_best_paths_go_on():
    wide = searched(replace(METHODS[2], width=8), 60).trace["reward"].mean()
    narrow = searched(replace(METHODS[2], width=1), 60).trace["reward"].mean()
    assert wide > narrow + 0.3


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ZeroOrder(cosine=1.0), "cosine is 1.0"),
        (lambda: ZeroOrder(neighbours=0), "neighbours is 0"),
        (lambda: ZeroOrder(patience=0), "patience is 0"),
        (lambda: Paths(forward=0.8, backward=0.5), "forward is 0.8: it must be less than backward"),
        (lambda: Paths(width=0), "width is 0"),
        (lambda: DraftThenVerify(2, 3), "finalists is 3"),
        (lambda: Halving(kept=1.0), "kept"),
        (lambda: searched(Paths(sampler=Sequential())), "on their way"),
        (lambda: searched(Halving(sampler=Sequential())), "on their way"),
        (lambda: redraft.run(ZeroOrder(), MODEL, given()), "needs a verifier"),
        (
            lambda: redraft.run(ZeroOrder(), exact_model(), problems(2), verifier=lambda s, p: torch.zeros(len(s))),
            "masks tokens",
        ),
        (
            lambda: redraft.run(ZeroOrder(), MODEL, given(), verifier=verifier, start=given().x),
            "cannot begin from finished samples",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(make, words):
    with pytest.raises(RedraftError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)
