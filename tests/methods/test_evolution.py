"""Evolutionary search, on a linear-Gaussian model whose sampler maps noise to samples linearly, and on masks."""

from dataclasses import replace

import pytest
import torch
from models_exact import LinearGaussian
from tokens import exact_model, problems
from toys import Toy, toy_problems

import redraft
from redraft import BestOfN, Budget, Evolution, Parallel, Preset, RedraftError, Sequential
from redraft.core.state import Draft
from redraft.core.streams import Streams
from redraft.methods.evolution import mutated
from redraft.verifiers import MeanRank

MODEL, STEPS = LinearGaussian(), 10
SAMPLER = Parallel(STEPS)
METHOD = Evolution(6, (1.0, 1.0, 0.5), sampler=SAMPLER)


def verifier(samples, given):
    return -(samples.double().flatten(1) - 1.5).square().sum(1)


def given(n=6, frozen=()):
    return MODEL.problems(MODEL.draw(n, 3), frozen)


def searched(method=METHOD, n=6, frozen=(), by=verifier, **settings):
    return redraft.run(method, MODEL, given(n, frozen), verifier=by, **settings)


def drafts(method, n=6):
    return list(method.drafts(MODEL, Draft(given(n).state()), Streams.root(0, given(n).ids), verifier))


def test_a_mutant_of_noise_is_noise_and_keeps_what_is_given():
    parent, fresh = (torch.randn(4000, 3, 2, generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    free = torch.tensor([True, True, False]).expand(4000, 3)
    for beta in (0.2, 0.9, 1.0):
        child = mutated(parent, fresh, free, beta)
        assert torch.equal(child[:, 2], parent[:, 2])
        values = child[:, :2].flatten(1)
        covariance = values.T @ values / 4000
        assert (covariance - torch.eye(4)).abs().max() < 0.08  # five standard errors
        correlation = (values * parent[:, :2].flatten(1)).mean()
        assert abs(float(correlation) - (1 - beta**2) ** 0.5) < 0.03


def test_the_first_draft_is_the_best_of_a_population_of_samples():
    first, *_ = drafts(METHOD, 40)
    rewards = torch.stack([searched(BestOfN(6, 6, SAMPLER), 40).trace["reward"], first.scores["reward"]])
    assert abs(float(rewards.mean(1).diff())) < 1
    assert torch.allclose(verifier(first.state.x, None), first.scores["reward"])
    members = first.carry["x"].flatten(0, 1)
    assert torch.allclose(verifier(members, None), first.carry["rewards"].flatten())


def test_elites_live_on_and_the_best_never_falls():
    before, *others = drafts(METHOD)
    for after in others:
        for place in range(METHOD.elites):
            lived = (after.carry["number"] == before.carry["number"][:, place : place + 1]).any(1)
            beaten = (after.carry["rewards"] > before.carry["rewards"][:, place : place + 1]).sum(1) > place
            assert (lived | beaten).all()
        assert (after.scores["reward"] >= before.scores["reward"]).all()
        assert (after.carry["rewards"].diff(dim=1) <= 0).all()
        before = after
    assert (others[-1].scores["reward"] > drafts(METHOD)[0].scores["reward"]).any()


def test_children_descend_from_better_members_the_larger_the_tournament():
    """Ranks of the parents, uniform without selection: (N - 1) / 2 in the mean, 0 if all take part."""
    streams = Streams.root(0, torch.arange(500))
    means = [float(replace(METHOD, tournament=k)._parents(streams).double().mean()) for k in (1, 3, 200)]
    assert abs(means[0] - 2.5) < 0.15
    assert abs(means[1] - sum((1 - k / 6) ** 3 for k in range(1, 6))) < 0.12  # E min = sum of P(min >= k)
    assert means[2] == 0


def test_little_mutation_keeps_children_near_their_parents_and_much_does_not():
    far = {}
    for beta in (0.01, 1.0):
        first, second = drafts(Evolution(6, (1.0,), beta=beta, sampler=SAMPLER), 20)
        table, own = second.candidates, first.carry["x"].flatten(2)
        child = second.carry["x"].flatten(2)
        born = second.carry["number"] >= 6
        place = (second.carry["number"] - 6).clamp_min(0)
        parent = table["parent"].gather(1, place)
        where = (first.carry["number"][:, None] == parent[:, :, None]).int().argmax(2)
        old = torch.stack([own[p, where[p]] for p in range(20)])
        far[beta] = float((child - old)[born].norm())
    assert far[0.01] < 0.05 * far[1.0]


def test_a_low_level_changes_a_sample_less_than_a_high_one():
    moved = {}
    for level in (0.1, 0.9):
        first, second = drafts(Evolution(4, (level,), elites=1, sampler=SAMPLER), 30)
        moved[level] = float(
            (second.carry["x"][:, :, None] - first.carry["x"][:, None]).square().sum((3, 4)).amin(2).mean()
        )
    assert moved[0.1] < 0.5 * moved[0.9]


def test_it_beats_independent_samples_at_equal_cost():
    """A linear map and a smooth reward are where local moves pay."""
    method = Evolution(6, (1.0,) * 6, elites=1, beta=0.4, sampler=SAMPLER)
    evolved = searched(method, 100)
    independent = searched(BestOfN(int(evolved.ledger.nfe[0]) // STEPS, sampler=SAMPLER), 100)
    assert (evolved.ledger.nfe == independent.ledger.nfe).all()
    gain = verifier(evolved.samples, None) - verifier(independent.samples, None)
    assert gain.mean() > 2 * gain.std() / 10


def test_it_costs_what_it_says():
    method = replace(METHOD, levels=(1.0, 0.55, 0.3))
    result = searched(method)
    assert (result.ledger.nfe == 6 * STEPS + 4 * (STEPS + 6 + 3)).all()
    assert (result.ledger.verifier_calls == 6 + 3 * 4).all()
    nfe, calls, draft = 0, 0, Draft(given().state())
    for after in drafts(method):
        nfe, calls = nfe + method.nfe(MODEL, draft), calls + method.verifier_calls(MODEL, draft)
        draft = after
        spent = result.trace["draft"] == draft.number
        assert torch.equal(result.trace["nfe"][spent], nfe)
        assert torch.equal(result.trace["verifier_calls"][spent], calls)


@pytest.mark.parametrize("sampler", [SAMPLER, Parallel(STEPS, stochasticity=1.0)])
def test_alone_as_among_others_and_what_is_given_stays(sampler):
    method = replace(METHOD, sampler=sampler)
    whole, problem = searched(method, 5, (1,)), given(5, (1,))
    assert torch.equal(whole.samples[:, 1], problem.x[:, 1])
    alone = redraft.run(method, MODEL, problem[2:3], verifier=verifier)
    assert torch.allclose(alone.samples[0], whole.samples[2], atol=1e-5)
    assert torch.equal(alone.candidates["parent"], whole.candidates["parent"][whole.candidates["problem"] == 2])


def test_ranks_guide_it_as_scores_do():
    """With one verifier, ranks within a call choose as its scores do; elites are ranked again with their children."""
    ranked = searched(by=MeanRank({"one": verifier}))
    assert torch.equal(ranked.samples, searched().samples)
    assert (ranked.ledger.verifier_calls == 4 * 6).all()


def test_masked_models_evolve_on_their_way():
    method = Evolution(4, (0.8, 0.4), elites=1, sampler=Preset("ancestral", 8))
    score = lambda samples, given: samples.double().sum(1)  # noqa: E731
    result = redraft.run(method, exact_model(), problems(3), verifier=score)
    rewards = torch.stack(list(result.trace.by_draft("reward").values()))
    assert torch.equal(rewards[-1], score(result.samples, None))
    assert (rewards.diff(dim=0) >= 0).all()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Evolution(4, elites=4), "elites is 4"),
        (lambda: Evolution(tournament=0), "tournament is 0"),
        (lambda: Evolution(beta=0.0), "beta is 0.0"),
        (lambda: Evolution(levels=(0.5, 0.8)), "never rise"),
        (lambda: Evolution(levels=(0.0,)), "each item a number in"),
        (lambda: searched(Evolution(sampler=Sequential())), "take walks up on their way"),
        (lambda: searched(by=None), "needs a verifier"),
        (lambda: redraft.run(Evolution(), exact_model(), problems(2), verifier=verifier), "masks tokens"),
        (lambda: searched(start=given().x), "cannot begin from finished ones"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(make, words):
    with pytest.raises(RedraftError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_without_generations_the_first_population_is_all():
    result = redraft.run(
        Evolution(levels=(), sampler=Parallel(2)), Toy(), toy_problems([0]), budget=Budget(nfe=1000),
        verifier=lambda samples, problems: samples.flatten(1).sum(1),
    )  # fmt: skip
    assert result.trace["draft"].tolist() == [0]


@pytest.mark.parametrize("level", [0.8, 0.5])
def test_children_do_not_walk_by_the_numbers_that_made_their_parent(level):
    """Of parents with the data's own law and equal rewards, children have it too; with old numbers 10 % too wide."""
    gaussian = LinearGaussian(regions=1)
    given, seen = gaussian.problems(gaussian.draw(6000, 0)), []

    class Watched(Evolution):
        def _rewards(self, model, draft, drawn, verifier):
            seen.append(drawn.x.double().std() / draft.carry["x"][:, 0].double().std())
            return super()._rewards(model, draft, drawn, verifier)

    method = Watched(2, (level,), elites=1, tournament=8, sampler=Parallel(50, stochasticity=1.0))
    redraft.run(method, gaussian, given, verifier=lambda x, _: torch.zeros(len(x)), progress=False)
    assert abs(seen[0] - 1) < 0.04
