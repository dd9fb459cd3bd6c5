"""Iterative partial refinement: what it redraws, what it leaves, what it costs, and that it can stop anywhere."""

import pytest
import torch
from toys import Toy, toy_problems

import redraft
from redraft import IPR, Budget, Disagreement, Parallel, RedraftError, Sequential, Sweep, Uncertainty, Uniform
from redraft.core.state import Draft
from redraft.core.streams import Streams

QUICK = Sequential(steps_per_region=2)
GIVEN = [0, 1, 3, 5]


def drafts_of(method, model=None, problems=None, **settings):
    """The result, and the samples after every draft."""
    problems = problems or toy_problems(GIVEN)
    seen = []
    result = redraft.run(
        method, model or Toy(), problems, on_draft=lambda samples, trace: seen.append(samples.clone()), **settings
    )
    return result, seen


@pytest.mark.parametrize("ratio", [0.01, 0.34, 0.7, 1.0])
@pytest.mark.parametrize("level", [0.5, 1.0])
@pytest.mark.parametrize("select", [Uniform(), Sweep(), Uncertainty(), Disagreement()])
def test_an_iteration_moves_k_free_regions_and_leaves_the_rest_bit_for_bit(ratio, level, select):
    problems = toy_problems(GIVEN)
    method = IPR(iterations=4, ratio=ratio, level=level, initial=QUICK, refine=QUICK, select=select)
    _, seen = drafts_of(method)
    assert len(seen) == 5
    k = (torch.tensor([6, 5, 3, 1]) * ratio + 1e-9).floor().clamp_min(1)
    for before, after in zip(seen, seen[1:], strict=False):
        changed = (before != after).any(2)
        assert torch.equal((before != after).all(2), changed)
        assert torch.equal(changed.sum(1), k.long())
        assert not (changed & problems.frozen).any()
    for samples in seen:
        assert torch.equal(samples[problems.frozen], problems.x[problems.frozen])


def test_decimal_ratios_are_exact():
    """0.29 * 100 is 28.999999999999996 in binary."""
    method = IPR(iterations=1, ratio=0.29, initial=Parallel(steps=1), refine=Sequential(steps_per_region=1))
    result, _ = drafts_of(method, Toy(regions=100), toy_problems([0], regions=100))
    assert result.trace["nfe"].tolist() == [1, 30]


@pytest.mark.parametrize(
    ("given", "initial", "k", "each", "total"),
    [(0, 243, 20, 48, 2643), (17, 192, 16, 40, 2192), (26, 165, 13, 34, 1865)],
)
def test_the_papers_settings_cost_what_the_reference_takes(given, initial, k, each, total):
    method = IPR(initial=Sequential(steps_per_region=3), refine=Sequential(steps_per_region=10, overlap=0.8))
    assert (method.iterations, method.ratio, method.level) == (50, 0.25, 1.0)
    assert method == IPR()
    state = toy_problems([given], regions=81, values=1).state()
    assert int(method.nfe(Toy(), Draft(state))) == initial
    assert int(method.nfe(Toy(), Draft(state, number=0))) == each
    assert initial + method.iterations * each == total
    short = IPR(iterations=2)
    result, seen = drafts_of(short, Toy(81, 1), toy_problems([given], regions=81, values=1))
    assert result.trace["nfe"].tolist() == [initial, initial + each, initial + 2 * each]
    assert int((seen[0] != seen[1]).any(2).sum()) == k


def test_putting_a_whole_board_right_takes_no_first_draft():
    problems = toy_problems([0], regions=81, values=1)
    result, _ = drafts_of(IPR(iterations=3), Toy(81, 1), problems, start=problems.x)
    assert result.trace["nfe"].tolist() == [0, 48, 96, 144]  # 720 in the reference's 15 iterations


@pytest.mark.parametrize("select", [Uniform(), Uncertainty(), Disagreement(draws=3)])
@pytest.mark.parametrize("keep", [None, Disagreement(draws=2)])
@pytest.mark.parametrize("noise", ["fresh", "fixed"])
def test_the_cost_is_what_was_foretold(select, keep, noise):
    method, model = IPR(iterations=3, initial=QUICK, refine=QUICK, select=select, keep=keep, noise=noise), Toy()
    state = toy_problems(GIVEN).state()
    streams = Streams.root(0, torch.arange(4))
    draft = Draft(state)
    for _ in range(4):
        foretold, before = int(method.nfe(model, draft).sum()), model.rows
        draft = next(method.drafts(model, draft, streams))
        assert model.rows - before == foretold


def test_a_kept_redraft_never_has_more_disagreement():
    method = IPR(iterations=12, initial=QUICK, refine=QUICK, keep=Disagreement(draws=2))
    problems = toy_problems(GIVEN)
    result, seen = drafts_of(method)
    scores = torch.stack(list(result.trace.by_draft("disagreement").values()))
    kept = torch.stack(list(result.trace.by_draft("kept").values()))[1:].bool()
    assert scores[0].isnan().all()
    assert (scores[2:] <= scores[1:-1]).all()
    assert kept.any()
    assert not kept.all()
    for before, after, was_kept, score in zip(seen, seen[1:], kept, scores[1:], strict=False):
        assert torch.equal((before != after).flatten(1).any(1), was_kept)
        state = problems.state()
        state = state.to(after, torch.zeros_like(state.t))
        amount = method.keep.measure(Toy(), state, Streams.root(0, problems.ids).fold("keep"))
        torch.testing.assert_close((amount * state.free).sum(1) / state.free.sum(1), score.float())


def test_without_keep_the_disagreement_may_rise():
    """The control of the test above: the same redrafts, scored and never refused, get worse at times."""
    problems = toy_problems(GIVEN)
    _, seen = drafts_of(IPR(iterations=12, initial=QUICK, refine=QUICK))
    state, streams = problems.state(), Streams.root(0, problems.ids).fold("keep")
    scores = [
        (Disagreement(draws=2).measure(Toy(), state.to(x, torch.zeros_like(state.t)), streams) * state.free).sum(1)
        for x in seen
    ]
    assert any((b > a).any() for a, b in zip(scores, scores[1:], strict=False))


@pytest.mark.parametrize("noise", ["fresh", "fixed"])
def test_fixed_noise_is_that_of_the_first_draft_in_every_round(noise):
    """One step from level 1 of one region: the model sees the noise itself."""
    seen = []

    class Watched(Toy):
        def predict(self, state):
            seen.append((state.t.clone(), state.x.clone()))
            return super().predict(state)

    one = Sequential(steps_per_region=1)
    drafts_of(IPR(iterations=6, ratio=0.2, initial=Parallel(steps=1), refine=one, noise=noise), Watched(),
              toy_problems([0]))  # fmt: skip
    (t, first), *rounds = seen
    assert (t == 1).all()
    assert len(rounds) == 6
    for t, x in rounds:
        assert (t == 1).sum() == 1
        assert torch.equal(x[t == 1], first[t == 1]) == (noise == "fixed")


@pytest.mark.parametrize("level", [0.3, 1.0])
def test_regions_walk_from_the_level_that_they_were_taken_to(level):
    seen = []

    class Watched(Toy):
        def predict(self, state):
            seen.append(state.t.max(1).values.tolist())
            return super().predict(state)

    problems = toy_problems([0, 2])
    drafts_of(IPR(iterations=1, ratio=0.1, level=level, refine=QUICK), Watched(), problems, start=problems.x)
    torch.testing.assert_close(torch.tensor(seen), torch.tensor([[level] * 2, [level / 2] * 2]))


SETTINGS = [{}, {"keep": Disagreement()}, {"select": Sweep()}, {"select": Uncertainty()}, {"noise": "fixed"}]


@pytest.mark.parametrize("settings", SETTINGS)
def test_drafts_go_on_from_any_draft_with_all_rows_or_some(settings):
    problems = toy_problems(GIVEN)
    method = IPR(iterations=4, initial=QUICK, refine=QUICK, **settings)
    streams = Streams.root(0, problems.ids)
    whole = list(method.drafts(Toy(), Draft(problems.state()), streams))
    assert [d.number for d in whole] == [0, 1, 2, 3, 4]
    for stop in range(4):
        for rows in (torch.arange(4), torch.tensor([2, 0])):
            rest = list(method.drafts(Toy(), whole[stop][rows], streams[rows]))
            assert [d.number for d in rest] == list(range(stop + 1, 5))
            for a, b in zip(rest, whole[stop + 1 :], strict=True):
                assert torch.equal(a.state.x, b.state.x[rows])
                assert {k: v.tolist() for k, v in a.carry.items()} == {k: v[rows].tolist() for k, v in b.carry.items()}


def test_a_run_from_another_runs_first_draft_is_that_run_with_more_iterations():
    first = redraft.run(IPR(iterations=0, initial=QUICK, refine=QUICK), Toy(), toy_problems(GIVEN))
    method = IPR(iterations=3, initial=QUICK, refine=QUICK)
    onward = redraft.run(method, Toy(), toy_problems(GIVEN), start=first.samples)
    whole = redraft.run(method, Toy(), toy_problems(GIVEN))
    assert torch.equal(onward.samples, whole.samples)
    assert torch.equal(onward.trace["nfe"] + first.ledger.nfe.repeat(4), whole.trace["nfe"])


def test_more_iterations_only_add_drafts():
    _, few = drafts_of(IPR(iterations=2, initial=QUICK, refine=QUICK))
    _, many = drafts_of(IPR(iterations=5, initial=QUICK, refine=QUICK))
    assert all(torch.equal(a, b) for a, b in zip(few, many, strict=False))


def test_the_number_of_drafts_is_known():
    assert IPR(iterations=7).total() == 8


@pytest.mark.parametrize("offers", [(), ("uncertainty",)])
def test_a_model_without_regions_is_refused_before_anything_is_spent(offers):
    model = Toy(offers=offers)
    with pytest.raises(RedraftError, match="IPR needs a model that offers 'regions'; 'toy' offers"):
        redraft.run(IPR(initial=Parallel(steps=2)), model, toy_problems([0]), budget=Budget(nfe=3000))
    assert model.rows == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ratio": 0}, "ratio is 0: it must be a number in"),
        ({"ratio": 1.01}, "ratio is 1.01"),
        ({"ratio": -0.5}, "ratio is -0.5"),
        ({"level": 0}, "level is 0"),
        ({"level": 1.5}, "level is 1.5"),
        ({"iterations": -1}, "iterations is -1"),
        ({"noise": "old"}, "unknown noise 'old'; known: fixed, fresh"),
    ],
)
def test_settings_without_a_meaning_are_refused(settings, message):
    with pytest.raises(RedraftError, match=message):
        IPR(**settings)
