"""The schedule of blocks, against a second reading of its formulas and against what walks do."""

from fractions import Fraction
from math import ceil, floor

import pytest
import torch
from toys import Toy, toy_problems

from redraft import Parallel, RedraftError, Sequential
from redraft.core.counting import CountedModel
from redraft.core.ledger import Ledger
from redraft.core.streams import Streams
from redraft.samplers import sample
from redraft.samplers.sequential import schedule

SETTINGS = [(3, "0"), (30, "0.9"), (10, "0.9"), (10, "0.8"), (5, "0.5"), (7, "1")]


def reference(n, p, o):
    """T, L and all s_b, written down again: a/b are integers, o = a / b."""
    a, b = Fraction(o).numerator, Fraction(o).denominator
    total = p * b + (n - 1) * (b - a) * p  # T before rounding, times b
    steps = -(-total // b)
    stretch = Fraction(steps * b, (n - 1) * (b - a) + b)  # l
    starts = [floor(stretch * k * (b - a) / b) for k in range(n)]
    return steps, ceil(stretch), starts


def begin(model, problems, seed=0):
    """A state of noise, and the streams to walk it with."""
    state, streams = problems.state(), Streams.root(seed, problems.ids)
    return model.process.prior(state, state.free, streams.fold("noise")), streams


@pytest.mark.parametrize(("p", "o"), SETTINGS)
def test_schedules_follow_the_formulas_for_every_number_of_blocks(p, o):
    overlap = Fraction(o)
    nfe = Sequential(steps_per_region=p, overlap=float(o)).nfe(torch.arange(257))
    assert nfe[0] == 0
    for n in range(1, 257):
        plan, (steps, length, starts) = schedule(n, p, overlap), reference(n, p, o)
        assert (plan.steps, plan.length, list(plan.starts)) == (steps, length, starts)
        assert plan.steps == nfe[n] == ceil(p + (n - 1) * (1 - overlap) * p)
        assert plan.starts[0] == 0
        assert all(
            0 <= later - earlier <= ceil(p * (1 - overlap)) for earlier, later in zip(starts, starts[1:], strict=False)
        )
        assert plan.starts[-1] + plan.length <= plan.steps  # every region ends
        assert plan.length >= p


PAPER = [(30, 0.9, 64, 219), (30, 0.9, 16, 75), (10, 0.9, 256, 265), (10, 0.9, 64, 73), (3, 0.0, 81, 243)]


@pytest.mark.parametrize(("p", "o", "n", "total"), [*PAPER, (10, 0.8, 20, 48)])
def test_walks_take_as_many_evaluations_as_the_papers_settings_do(p, o, n, total):
    assert Sequential(steps_per_region=p, overlap=o).nfe(torch.tensor([n])) == total


@pytest.mark.parametrize(("p", "o"), [(3, "0"), (10, "0.8"), (5, "0.5"), (4, "1"), (1, "0.5"), (2, "0.9")])
@pytest.mark.parametrize("per_block", [1, 3])
def test_regions_start_with_their_block_and_walk_in_equal_steps_to_their_end(p, o, per_block):
    model = Toy(regions=10)
    problems = toy_problems([0, 4, 9, 7], regions=10)
    sampler = Sequential(steps_per_region=p, overlap=float(o), regions_per_block=per_block)
    state, streams = begin(model, problems)
    for row in range(len(state)):
        free = int(state.free[row].sum())
        steps, length, starts = reference(-(-free // per_block), p, o)
        walk = sampler.init(model, state[row : row + 1], streams[row : row + 1])
        for step in range(steps):
            assert not walk.done.any()
            walk = sampler.step(model, walk, streams[row : row + 1])
            started = walk.begin[0] >= 0
            assert not (started & state.frozen[row]).any()
            level = torch.where(started, 1 - (step + 1 - walk.begin[0]) / length, walk.top[0]).clamp_min(0)
            torch.testing.assert_close(walk.state.t[0], level)
        assert walk.done.all()
        assert (walk.state.t == 0).all()
        times = [s for s in starts for _ in range(per_block)][:free]
        assert walk.begin[0][state.free[row]].sort().values.tolist() == times


@pytest.mark.parametrize(
    "sampler",
    [
        Sequential(),
        Sequential(steps_per_region=5, overlap=0.6, order="random", stochasticity=1.0),
        Sequential(steps_per_region=4, overlap=0.5, regions_per_block=2, order="graph"),
        Sequential(steps_per_region=4, overlap=1.0, order="raster"),
        Parallel(steps=7, stochasticity=1.0),
        Parallel(steps=7, order=2),
    ],
)
@pytest.mark.parametrize("variance", [None, 0.3])
class TestOneBatch:
    """Rows with 6, 4, 1, 3 and no free regions in one batch."""

    GIVEN = [0, 2, 5, 3, 6, 0]  # noqa: RUF012

    def test_rows_cost_what_the_formula_says(self, sampler, variance):
        model, problems = Toy(variance=variance), toy_problems(self.GIVEN)
        ledger = Ledger(len(problems))
        state, streams = begin(model, problems)
        out = sample(sampler, CountedModel(model, ledger), state, streams)
        assert ledger.nfe.tolist() == sampler.nfe(state.free.sum(1)).tolist()
        assert ledger.nfe[4] == 0
        assert int(ledger.nfe.sum()) == model.rows
        assert torch.equal(out.problem, torch.arange(6))
        assert (out.t == 0).all()

    def test_given_regions_stay_bit_for_bit_and_all_others_move(self, sampler, variance):
        model, problems = Toy(variance=variance), toy_problems(self.GIVEN)
        state, streams = begin(model, problems)
        out = sample(sampler, model, state, streams)
        assert torch.equal(out.x[problems.frozen], problems.x[problems.frozen])
        assert (out.x != state.x)[state.free].all()

    def test_a_row_alone_is_bit_for_bit_the_row_in_a_batch(self, sampler, variance):
        model, problems = Toy(variance=variance), toy_problems(self.GIVEN)
        state, streams = begin(model, problems)
        together = sample(sampler, model, state, streams).x
        for rows in [[i] for i in range(6)] + [[5, 4, 3, 2, 1, 0], [2, 0], [1, 1, 3]]:
            rows = torch.tensor(rows)
            assert torch.equal(sample(sampler, model, state[rows], streams[rows]).x, together[rows])

    def test_the_seed_and_the_id_decide(self, sampler, variance):
        model, problems = Toy(variance=variance), toy_problems(self.GIVEN)
        state, streams = begin(model, problems)
        first = sample(sampler, model, state, streams).x
        again = sample(sampler, model, state, streams).x
        assert torch.equal(first, again)
        other = sample(sampler, model, *begin(model, problems, seed=1)).x
        assert (first != other)[state.free].all()


def walked(order, model, problems):
    """The order (B, R) in which free regions start, one block after another."""
    sampler = Sequential(steps_per_region=1, order=order, stochasticity=0)
    state, streams = begin(model, problems)
    walk = sampler.init(model, state, streams)
    while not walk.done.all():
        walk = sampler.step(model, walk, streams)
    return walk.begin


def test_raster_starts_regions_by_number():
    problems = toy_problems([0, 2])
    begun = walked("raster", Toy(), problems[:1])
    assert begun.tolist() == [[0, 1, 2, 3, 4, 5]]
    free = ~problems.frozen[1]
    assert walked("raster", Toy(), problems[1:])[0][free].tolist() == [0, 1, 2, 3]


def test_the_surest_region_starts_first():
    class Sure(Toy):
        def predict(self, state):
            prediction = super().predict(state)
            prediction.uncertainty.copy_(torch.tensor([0.3, 0.1, 0.9, 0.5, 0.2, 0.7]))
            return prediction

    assert walked("uncertainty", Sure(), toy_problems([0])).tolist() == [[2, 0, 5, 3, 1, 4]]


def test_the_graph_order_starts_next_to_what_is_known():
    """On a path with region 2 given: its neighbours first (1 or 3), and always one beside a known one."""
    problems = toy_problems([1] * 40)
    problems.frozen.copy_(torch.arange(6) == 2)
    begun = walked("graph", Toy(), problems)
    for row in begun.tolist():
        known = {2}
        for region in sorted((r for r in range(6) if r != 2), key=lambda r: row[r]):
            assert known & {region - 1, region + 1}
            known.add(region)
    assert {row.index(0) for row in begun.tolist()} == {1, 3}


def test_the_random_order_is_uniform():
    begun = walked("random", Toy(regions=3), toy_problems([0] * 3000, regions=3))
    for step in range(3):
        share = (begun == step).float().mean(0)
        assert (share - 1 / 3).abs().max() < 4 * (2 / 9 / 3000) ** 0.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"overlap": 1.1}, "overlap is 1.1: it must be a number in"),
        ({"overlap": -0.1}, "overlap is -0.1"),
        ({"stochasticity": 2}, "stochasticity is 2"),
        ({"temperature": -1.0}, "temperature is -1"),
        ({"steps_per_region": 0}, "steps_per_region is 0"),
        ({"regions_per_block": 0}, "regions_per_block is 0"),
        ({"order": "uncertain"}, "unknown order 'uncertain'; did you mean 'uncertainty'"),
    ],
)
def test_settings_without_a_meaning_are_refused(settings, message):
    with pytest.raises(RedraftError, match=message):
        Sequential(**settings)


@pytest.mark.parametrize(
    ("order", "offers", "message"),
    [
        ("raster", (), "sequential sampler needs a model that offers 'regions'"),
        ("uncertainty", ("regions",), "order='uncertainty' needs a model that offers 'uncertainty'"),
        ("graph", ("regions",), "order='graph' needs a model that offers 'graph'"),
    ],
)
def test_a_model_that_lacks_what_the_order_needs_is_refused(order, offers, message):
    model = Toy(offers=offers)
    with pytest.raises(RedraftError, match=message):
        sample(Sequential(order=order), model, *begin(model, toy_problems([0])))
