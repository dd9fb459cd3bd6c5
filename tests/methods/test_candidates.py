"""What searches tell of their candidates: every one, what it cost, and its noise again bit for bit."""

from dataclasses import replace

import pytest
import torch
from models_exact import LinearGaussian
from tokens import exact_model, problems

import redraft
from redraft import (
    IPR,
    BestOfN,
    Budget,
    DraftThenVerify,
    Evolution,
    Halving,
    Parallel,
    Paths,
    Preset,
    RedraftError,
    Result,
    ZeroOrder,
)
from redraft.core.checkpoint import Checkpoint
from redraft.core.distinct import prints
from redraft.core.state import Draft
from redraft.core.streams import Streams
from redraft.samplers import sample
from redraft.verifiers import MeanRank

MODEL, STEPS = LinearGaussian(values=3), 10
SAMPLER = Parallel(STEPS)
METHODS = [
    BestOfN(6, 2, SAMPLER),
    ZeroOrder(4, 3, sampler=SAMPLER),
    ZeroOrder(12, 2, 0.3, decay=0.8, patience=1, sampler=SAMPLER),
    Evolution(5, (1.0, 1.0, 0.5, 0.3), sampler=SAMPLER),
    Paths(2, 3, level=0.3, forward=0.4, backward=0.5, sampler=SAMPLER),
    DraftThenVerify(6, 2, Parallel(3), SAMPLER),
    Halving(8, (0.7, 0.4), sampler=SAMPLER),
]
NOISE_DECIDES = METHODS[:3] + METHODS[5:]  # what a walk draws on its way is fixed, and none is taken up again
each = pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)


def verifier(samples, given):
    return -(samples.double().flatten(1) - 1.5).square().sum(1)


def given(n=4, frozen=()):
    return MODEL.problems(MODEL.draw(n, 3), frozen)


def searched(method, problem=None, by=verifier, **settings):
    return redraft.run(method, MODEL, given() if problem is None else problem, verifier=by, **settings)


def large(samples, given):
    return samples.double().flatten(1).sum(1)


class Asked:
    """A verifier that keeps what it was shown of each problem, once each, in order."""

    def __init__(self, by):
        self.by, self.relative, self.seen = by, getattr(by, "relative", False), {}

    def __call__(self, samples, given):
        for problem, one in zip(given.ids.tolist(), prints(samples).tolist(), strict=True):
            if one not in self.seen.setdefault(problem, []):
                self.seen[problem].append(one)
        return self.by(samples, given)


def last(result, name):
    return result.trace[name][result.trace["draft"] == result.trace["draft"].max()]


class Watched(Parallel):
    """A sampler that keeps the noise that walks begin from."""

    seen: list

    def init(self, model, state, streams):
        type(self).seen.append(state.x.clone())
        return super().init(model, state, streams)


@each
class TestEvery:
    def test_all_candidates_together_cost_what_the_run_did(self, method):
        result = searched(method)
        table = result.candidates
        for problem in result.ids.tolist():
            mine = table["problem"] == problem
            assert table["candidate"][mine].tolist() == list(range(int(mine.sum())))
            assert float(table["nfe"][mine].sum()) == pytest.approx(int(result.ledger.nfe[problem]))
            assert (table["nfe"][mine] > 0).all()
            assert (table["parent"][mine] < table["candidate"][mine]).all()

    def test_the_winner_is_one_of_them_and_was_scored_as_it_is(self, method):
        result = searched(method)
        table, winner = result.candidates, last(result, "candidate")
        for problem in result.ids.tolist():
            mine = table["problem"] == problem
            scores = table["score"][mine]
            assert scores[int(winner[problem])] == last(result, "reward")[problem]
            assert scores[int(winner[problem])] == verifier(result.samples, None)[problem]

    @pytest.mark.parametrize("by", [verifier, MeanRank({"near": verifier, "large": large})], ids=["scores", "ranks"])
    def test_each_says_which_sample_the_verifier_was_shown(self, method, by):
        if isinstance(method, ZeroOrder) and method.patience and by is not verifier:
            pytest.skip("it compares scores of different calls")
        asked = Asked(by)
        result = searched(method, by=asked)
        table, winner = result.candidates, last(result, "candidate")
        for problem in result.ids.tolist():
            mine = table["problem"] == problem
            shown = table["shown"][mine]
            assert torch.equal(shown == 0, table["score"][mine].isnan())
            assert [each for each in dict.fromkeys(shown.tolist()) if each] == asked.seen[problem]
            assert shown[int(winner[problem])] == prints(result.samples[problem : problem + 1])[0]

    def test_noise_comes_again_bit_for_bit_in_any_batch(self, method):
        problem, watched = given(3, (1,)), type("Sampler", (Watched,), {"seen": []})
        rough = {"draft": watched(3)} if hasattr(method, "finalists") else {}
        method = replace(method, sampler=watched(STEPS), **rough)
        result = searched(method, problem)
        table, rows = result.candidates, torch.cat(watched.seen)
        for place in range(3):
            mine = table["problem"] == place
            for number in table["candidate"][mine].tolist():
                noise = redraft.noise(MODEL, problem[place : place + 1], table, number)
                assert (rows == noise).flatten(1).all(1).any()
                assert torch.equal(noise[:, 1], problem.x[place : place + 1, 1])

    def test_a_problem_alone_tells_the_same(self, method):
        whole, alone = searched(method).candidates, searched(method, given()[2:3]).candidates
        mine = whole["problem"] == 2
        for name in [name for name in alone if name != "shown"]:  # which is of every last bit
            same = whole[name][mine].double(), alone[name].double()
            assert torch.allclose(*same, rtol=1e-4, atol=1e-5, equal_nan=True), name
        for name in ("parent", "key0", "key1", "nfe", "round"):
            assert torch.equal(whole[name][mine], alone[name]), name

    def test_a_run_that_was_stopped_tells_of_all_and_so_does_its_folder(self, method, tmp_path, monkeypatch):
        monkeypatch.setattr(Checkpoint.__init__, "__defaults__", (0.0,))
        whole = searched(method)

        def stop(samples, trace):
            if int(trace["draft"].max()) == 1:
                raise KeyboardInterrupt

        settings = {"checkpoint": tmp_path / "run", "on_draft": stop}
        searched(method, **settings)
        again = searched(method, checkpoint=tmp_path / "run")
        assert again.candidates == whole.candidates
        assert torch.equal(again.samples, whole.samples)
        again.save(tmp_path / "result")
        assert Result.load(tmp_path / "result").candidates == whole.candidates


@pytest.mark.parametrize("method", NOISE_DECIDES, ids=lambda method: type(method).__name__)
def test_the_winner_s_noise_makes_the_winner(method):
    result, problem = searched(method), given()
    for place, winner in enumerate(last(result, "candidate").tolist()):
        one = problem[place : place + 1]
        noise = redraft.noise(MODEL, one, result.candidates, winner)
        state = one.state()
        clean = sample(SAMPLER, MODEL, state.to(noise, torch.ones_like(state.t)), Streams.root(0, one.ids))
        assert torch.allclose(clean.x[0], result.samples[place], atol=1e-5)


@pytest.mark.parametrize("method", [METHODS[0], METHODS[1], *METHODS[3:]], ids=lambda method: type(method).__name__)
def test_ranks_of_one_verifier_lead_to_the_same_samples_as_its_scores(method):
    ranked = searched(method, by=MeanRank({"one": verifier}))
    assert torch.equal(ranked.samples, searched(method).samples)
    assert (ranked.ledger.verifier_calls >= method.verifier_calls(MODEL, Draft(given().state()))).all()


def test_candidates_descend_from_those_that_were_chosen():
    """Halving and drafts go on with their own noise, paths are widened side by side, of the best of their round."""
    for method in METHODS[4:]:
        table = searched(method).candidates
        mine = {name: table[name][table["problem"] == 1] for name in table}
        for number in sorted(set(mine["round"].tolist()))[1:]:
            before, here = mine["round"] == number - 1, mine["round"] == number
            parent = mine["parent"][here]
            scores, chosen = mine["score"][before], parent.unique()
            if isinstance(method, Paths):
                assert (parent.view(method.paths, method.width).diff(dim=1) == 0).all()
            else:
                assert torch.equal(mine["key0"][here], mine["key0"][parent])
            if not scores.isnan().any():
                assert torch.equal(
                    scores.sort(descending=True).values[: len(chosen)].sum(), mine["score"][chosen].sum()
                )


def test_ranks_keep_to_a_budget_of_verifier_calls():
    """Where ranks count, the best so far is asked about again with each new batch: 2, then 3 a draft."""
    result = searched(METHODS[0], by=MeanRank({"one": verifier}), budget=Budget(verifier_calls=7))
    assert (result.ledger.verifier_calls == 5).all()


def test_ranks_with_patience_are_refused():
    with pytest.raises(RedraftError, match="zero-order search compares scores of different calls"):
        searched(METHODS[2], by=MeanRank({"one": verifier}))


def test_guidance_is_in_a_candidate_s_cost():
    guided = LinearGaussian(values=3)
    guided.nfe_per_row = 2
    result = redraft.run(METHODS[0], guided, given(), verifier=verifier)
    assert (result.candidates["nfe"] == 2 * STEPS).all()


def test_candidates_of_masked_models_are_told_too():
    score = lambda samples, given: samples.double().sum(1)  # noqa: E731
    result = redraft.run(BestOfN(4, 2, Preset("ancestral", 8)), exact_model(), problems(3), verifier=score)
    assert len(result.candidates) == 12
    for problem in range(3):
        mine = result.candidates["problem"] == problem
        assert result.candidates["nfe"][mine].sum() == pytest.approx(int(result.ledger.nfe[problem]))


def test_a_method_that_tells_nothing_leaves_no_table(tmp_path):
    result = redraft.run(IPR(iterations=1), MODEL, given())
    result.save(tmp_path)
    assert not (tmp_path / "candidates.parquet").exists()
    assert not len(Result.load(tmp_path).candidates)
    with pytest.raises(RedraftError, match="tells nothing of its candidates"):
        redraft.noise(MODEL, given()[:1], result.candidates, 0)


@pytest.mark.parametrize("number", [-1, 6, 1000])
def test_a_candidate_that_is_not_there_is_one_sentence(number):
    with pytest.raises(RedraftError, match="problem 1 has no candidate"):
        redraft.noise(MODEL, given()[1:2], searched(METHODS[0]).candidates, number)
