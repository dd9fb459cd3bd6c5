"""Statistics against theory, brute force and simulation."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from redraft.bench.compare import Comparison
from redraft.bench.curves import Curve, Units
from redraft.bench.experiment import checked
from redraft.bench.plain import Map
from redraft.report.statistics import best_of_k, bootstrap_weights, percentiles, ranks, weighted_means

RNG = np.random.default_rng


def units(problems, seeds):
    return Units(np.arange(problems), np.arange(seeds))


def comparison(*curves, truths=("valid",), **more):
    method = {"method": "generate"}
    made = checked(
        Map(
            {
                "name": "x", "task": "sudoku-tokens", "model": ["sudoku-tokens"], "problems": {"n": 1},
                "metrics": {"valid": "max"}, "methods": {curve.name: method for curve in curves},
            }
            | more,
            {},
        )
    )  # fmt: skip
    return Comparison(made, list(curves), frozenset(truths))


def curve(name, values, nfe=None, count=None, model="m"):
    """One row a unit, of `values` (problems, seeds)."""
    flat = np.asarray(values, dtype=float).ravel()
    n = np.arange(len(flat))
    cost = np.full(len(flat), 8.0) if nfe is None else nfe
    columns = {"valid": flat, "nfe": cost, "seconds": cost / 10, "verifier_calls": 0 * cost, "calls": cost}
    return Curve(name, units(*np.shape(values)), n, 0 * n, columns, (model, name))


def test_best_of_k_is_the_mean_over_all_subsets_ties_and_holes_included():
    rewards = np.array([2.0, -1.0, 2.0, 0.5, 0.5, 3.0, -1.0])
    values = np.stack([rewards, RNG(0).normal(size=7), [1, 2, np.nan, 4, 5, np.nan, 7.0]], 1)
    found = best_of_k(rewards, values)
    for k in range(1, 8):
        total, weight = np.zeros(3), np.zeros(3)
        for subset in combinations(range(7), k):
            best = [i for i in subset if rewards[i] == max(rewards[list(subset)])]
            for i in best:  # any of them may come first
                known = ~np.isnan(values[i])
                total += np.where(known, values[i], 0) / len(best)
                weight += known / len(best)
        with np.errstate(invalid="ignore"):
            np.testing.assert_allclose(found[k - 1], total / weight, rtol=1e-12)
    np.testing.assert_allclose(best_of_k(np.arange(200.0), np.ones((200, 1))), 1)


def test_the_bootstrap_has_the_variance_that_theory_gives():
    values = RNG(1).normal(size=(12, 1)) + 0.7 * RNG(2).normal(size=(12, 4))
    weights = bootstrap_weights(12, 4, draws=20000)
    np.testing.assert_allclose(weights.sum(1), 1)
    means = weights @ values.ravel()
    theory = values.mean(1).var() / 12
    assert means.var() == pytest.approx(theory, rel=0.04)
    within = values[:1].var() / 4  # of an only problem the seeds are drawn
    assert (bootstrap_weights(1, 4, draws=20000) @ values[0]).var() == pytest.approx(within, rel=0.04)
    assert means.mean() == pytest.approx(values.mean(), abs=0.01)
    flat = bootstrap_weights(48, 1, draws=20000) @ values.ravel()  # as if all were independent: far too sure
    assert flat.var() < 0.7 * theory
    np.testing.assert_array_equal(weights, bootstrap_weights(12, 4, draws=20000))
    assert (bootstrap_weights(12, 4, draws=5, seed=1) != weights[:5]).any()


def test_intervals_cover_as_often_as_they_say():
    weights, rng = bootstrap_weights(40, 2, draws=400), RNG(3)
    for between in (0.0, 1.0):  # problems that do not differ, whose seeds do, and problems that do
        values = between * rng.normal(size=(40, 1, 600)) + rng.normal(size=(40, 2, 600))
        low, high = percentiles(weights @ values.reshape(80, 600))
        assert 0.90 < ((low <= 0) & (high >= 0)).mean() < 0.97  # with seeds drawn anew 0.98 without differences


def test_missing_values_count_for_nothing():
    values = np.array([[1.0, np.nan], [3.0, np.nan], [np.nan, np.nan]])
    means = weighted_means(np.array([[0.5, 0.25, 0.25], [0.0, 0.0, 1.0]]), values)
    assert means[0, 0] == pytest.approx((0.5 + 0.75) / 0.75)
    assert np.isnan(means[0, 1])
    assert np.isnan(means[1]).all()


def test_ranks_share_ties():
    means = np.array([[0.1, 0.5, 0.5, 0.2]])
    np.testing.assert_array_equal(ranks(means), [[4, 1.5, 1.5, 3]])
    np.testing.assert_array_equal(ranks(means, largest=False), [[1, 3.5, 3.5, 2]])


def test_a_curve_is_read_at_its_last_draft_within_a_budget():
    rng = RNG(4)
    unit, step = np.repeat(np.arange(6), 5), np.tile(np.arange(5), 6)
    nfe = rng.integers(1, 9, size=30).astype(float)
    nfe = np.concatenate([np.sort(part) for part in nfe.reshape(6, 5)])
    shuffled = rng.permutation(30)
    columns = {"nfe": nfe[shuffled], "valid": np.arange(30.0)[shuffled]}
    made = Curve("c", units(3, 2), unit[shuffled], step[shuffled], columns)
    budgets = np.array([0.5, 1, 3, 5.5, 8, np.inf])
    found = made.at("nfe", budgets, "valid")
    for u in range(6):
        for k, budget in enumerate(budgets):
            within = [i for i in range(30) if unit[i] == u and nfe[i] <= budget]
            assert found[u, k] == max(within) if within else np.isnan(found[u, k])


def test_a_budget_that_some_unit_has_no_draft_within_is_left_blank():
    nfe = np.array([4.0, 4.0, 9.0, 4.0])
    made = comparison(curve("a", np.ones((2, 2)), nfe))
    values = made.values(made.curves[0], "nfe", np.array([4.0, 9.0]), "valid")
    assert np.isnan(values[:, 0]).all()
    assert (values[:, 1] == 1).all()
    table = made.at_budgets("nfe", [4, 9], "valid")
    assert table.rows[0][1] == ""
    assert table.rows[0][2].startswith("1 (")


def test_differences_are_paired_by_problem():
    rng = RNG(5)
    level = (rng.random((60, 2)) < rng.random((60, 1))).astype(float)  # puzzles differ much
    better = np.maximum(level, rng.random((60, 2)) < 0.15)
    made = comparison(curve("a", level), curve("b", better), curve("same", level), baseline="a")
    rows = {row[0]: row[1] for row in made.differences("nfe", [8], "valid").rows}
    assert rows["same"] == "0 (0 to 0)"
    gain, low, high = (float(word.strip("()")) for word in rows["b"].replace(" to ", " ").split())
    assert gain == pytest.approx((better - level).mean(), rel=1e-3)
    assert low > 0
    point = np.array([8.0])
    one, other = (made.of(c, "nfe", point, "valid") for c in made.curves[:2])
    apart = one.draws.var() + other.draws.var()  # as if the puzzles had been different ones
    assert ((high - low) / 3.92) ** 2 < 0.5 * apart
    ranking = {row[0]: row[1] for row in made.ranking("nfe", [8], "valid").rows}
    assert ranking["b"].startswith("1.0 (1 to 1), best 100 %")
    assert ranking["a"] == ranking["same"] == "2.5 (2.5 to 2.5), best 0 %"


@pytest.mark.parametrize("direction", ["max", "min"])
def test_differences_are_from_the_best_that_the_baseline_has_within_the_budget(direction):
    base, other = (RNG(i).normal(size=(20, 3)) for i in (9, 10))
    base[:, 1] += 5 if direction == "max" else -5  # the middle cost is best
    unit, cost = np.repeat(np.arange(20), 3), np.tile([2.0, 4.0, 8.0], 20)
    curves = []
    for name, values in {"base": base, "other": other}.items():
        columns = {"valid": values.ravel(), "nfe": cost, "verifier_calls": 0 * cost, "calls": cost, "seconds": cost}
        curves.append(Curve(name, units(20, 1), unit, np.tile(np.arange(3), 20), columns, ("m", name)))
    found = comparison(*curves, truths=(), baseline="base", metrics={"valid": direction})
    (row,) = found.differences("nfe", [3, 4, 9], "valid").rows
    means = [float(word.split()[0]) for word in row[1:]]
    expected = [(other[:, k] - base[:, min(k, 1)]).mean() for k in range(3)]
    assert means == pytest.approx(expected, rel=1e-3)


def test_a_baseline_without_a_draft_within_the_budget_leaves_differences_blank():
    late = curve("base", np.ones((4, 1)), nfe=np.full(4, 16.0))
    found = comparison(late, curve("other", np.zeros((4, 1))), baseline="base")
    (row,) = found.differences("nfe", [8, 16], "valid").rows
    assert row[1] == ""
    assert row[2] != ""


def test_differences_are_from_the_baseline_with_the_same_model():
    first, second = curve("a", np.zeros((3, 2))), curve("b", np.ones((3, 2)))
    third, fourth = curve("a", np.full((3, 2), 0.25), model="n"), curve("b", np.ones((3, 2)), model="n")
    made = comparison(first, second, replace(third, name="n, a"), replace(fourth, name="n, b"), baseline="a")
    rows = made.differences("nfe", [8], "valid").rows
    assert rows == [["b", "1 (1 to 1)"], ["n, b", "0.75 (0.75 to 0.75)"]]


def test_what_is_not_known_is_ranked_last():
    np.testing.assert_array_equal(ranks(np.array([[0.1, np.nan, 0.5]])), [[2, 3, 1]])
    np.testing.assert_array_equal(ranks(np.array([[0.1, np.nan, 0.5]]), largest=False), [[1, 3, 2]])


def test_a_share_without_spread_has_wilsons_interval_and_other_metrics_do_not():
    made = comparison(curve("a", np.ones((20, 2))))
    end = made.of(made.curves[0], "nfe", np.array([8.0]), "valid")
    assert end.words() == "1 (0.8389 to 1)"
    other = comparison(curve("a", np.ones((20, 2))), truths=())
    assert other.of(other.curves[0], "nfe", np.array([8.0]), "valid").words() == "1 (1 to 1)"


def test_words_know_no_rounding_errors():
    values = np.array([[0.1 + 0.2 - 0.3], [-1e-17]])
    assert comparison(curve("a", np.ones((1, 2)))).estimate(values).words() == "0 (0 to 0)"


def test_units_that_are_missing_do_not_blank_a_method():
    whole, part = curve("a", np.ones((3, 2))), curve("b", np.zeros((3, 2)))
    keep = np.array([0, 1, 4])
    part = Curve("b", part.units, part.unit[keep], part.step[keep], {n: c[keep] for n, c in part.columns.items()})
    made = comparison(whole, part)
    assert [row[1] for row in made.summary().rows] == ["6", "3"]
    assert made.of(part, "nfe", np.array([8.0]), "valid").mean[0] == 0
