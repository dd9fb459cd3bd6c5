"""Verifiers together: sums and ranks against numbers worked out by hand, and columns beside the one that guides."""

import pytest
import torch
from toys import Toy, toy_problems

import redraft
from redraft import BestOfN, Budget, Generate, RedraftError, Sequential
from redraft.core.counting import CountedVerifier
from redraft.core.ledger import Ledger
from redraft.verifiers import Batched, MeanRank, VerifierError, WeightedSum, held_out

PROBLEMS = toy_problems([0, 0, 0, 0, 0])


def first(samples, problems):
    return samples[:, 0]


def second(samples, problems):
    return samples[:, 1]


class Blaming:
    def __init__(self, scale):
        self.scale = scale

    def __call__(self, samples, problems):
        return self.scale * samples[:, 0]

    def blame(self, samples, problems):
        return self.scale * samples[:, :1].expand(-1, 6)


# ---- sums


def test_a_sum_is_weighted_and_shows_its_parts():
    samples = torch.tensor([[1.0, 10.0], [2.0, -4.0]])
    both = WeightedSum({"first": (first, 2.0), "second": (second, -0.5)})
    assert both(samples, PROBLEMS[:2]).tolist() == [2 - 5, 4 + 2]
    assert {name: s.tolist() for name, s in both.parts(samples, PROBLEMS[:2]).items()} == {
        "first": [1, 2], "second": [10, -4]
    }  # fmt: skip


def test_a_sum_costs_one_for_each_of_its_verifiers_and_sums_nest():
    inner = WeightedSum({"a": (first, 1.0), "b": (second, 1.0)})
    outer = WeightedSum({"inner": (inner, 3.0), "first": (first, 1.0)})
    ledger, samples = Ledger(5), torch.tensor([[1.0, 2.0], [1.0, 2.0], [5.0, 6.0]])
    scores = CountedVerifier(outer, PROBLEMS, ledger)(samples, torch.tensor([0, 0, 3]))
    assert scores.tolist() == [10, 10, 38]
    assert ledger.spent["verifier"].tolist() == [3, 0, 0, 3, 0]
    assert ledger.saved["verifier"].tolist() == [3, 0, 0, 0, 0]


def test_blame_is_that_of_the_parts_that_give_any_and_weigh_more_than_nothing():
    samples = torch.tensor([[1.0, 9.0], [2.0, 9.0]])
    parts = {"a": (Blaming(1.0), 2.0), "b": (Blaming(10.0), 0.5), "against": (Blaming(100.0), -1.0), "c": (first, 1.0)}
    both = WeightedSum(parts)
    assert both.blames
    assert both.blame(samples, PROBLEMS[:2]).tolist() == [[7.0] * 6, [14.0] * 6]
    for name in ("against", "c"):
        without = WeightedSum({name: parts[name]})
        assert not without.blames
        with pytest.raises(RedraftError, match="no verifier of the sum that weighs more than 0 gives blame"):
            without.blame(samples, PROBLEMS[:2])
        with pytest.raises(RedraftError, match="gives no blame"):
            Batched(without).blame(samples, PROBLEMS[:2])


def test_an_error_says_which_verifier_and_which_sample():
    def broken(samples, problems):
        return torch.where(samples[:, 0] == 3, torch.nan, samples[:, 0])

    samples = torch.arange(5.0)[:, None].expand(-1, 2)
    nested = WeightedSum({"pair": (WeightedSum({"good": (first, 1.0), "bad": (broken, 1.0)}), 1.0)})
    for verifier in (nested, Batched(nested, size=2)):
        with pytest.raises(
            VerifierError, match="verifier 'pair.bad' gave NaN or infinity .sample number 3, for problem 103"
        ):
            CountedVerifier(verifier, PROBLEMS, Ledger(5))(samples, torch.arange(5))


def test_the_retries_of_a_wrapper_reach_the_parts(monkeypatch):
    waits, calls = [], []
    monkeypatch.setattr("time.sleep", waits.append)

    def flaky(samples, problems):
        calls.append(len(samples))
        if len(calls) == 1:
            raise ConnectionError
        return samples[:, 0]

    scores = Batched(WeightedSum({"flaky": (flaky, 1.0)}), retries=1)
    assert scores(torch.ones(1, 2), PROBLEMS[:1]).tolist() == [1]
    assert waits == [1]


@pytest.mark.parametrize("weight", [float("nan"), float("inf")])
def test_a_weight_is_a_number(weight):
    with pytest.raises(RedraftError, match="the weight of verifier 'a' is"):
        WeightedSum({"a": (first, weight)})


def test_nothing_cannot_be_combined():
    for combine in (WeightedSum, MeanRank, held_out):
        with pytest.raises(RedraftError, match="no verifiers to combine"):
            combine({})


def test_what_is_blind_together():
    def blind(samples, problems):
        return samples[:, 0]

    blind.blind = True
    assert WeightedSum({"a": (blind, 1.0)}).blind
    assert not WeightedSum({"a": (blind, 1.0), "b": (first, 1.0)}).blind


# ---- ranks


def test_ranks_are_those_worked_out_by_hand():
    """Problem 100 has four samples, two of them equal under the first verifier; problem 104 has one."""
    samples = torch.tensor([[5.0, 0.1], [7.0, 0.4], [1.0, 0.2], [5.0, 0.3], [99.0, 99.0]])
    problems = PROBLEMS[torch.tensor([0, 0, 0, 0, 4])]
    by_first = [(2.5 - 0.5) / 4, (4 - 0.5) / 4, (1 - 0.5) / 4, (2.5 - 0.5) / 4, 0.5]
    by_second = [(1 - 0.5) / 4, (4 - 0.5) / 4, (2 - 0.5) / 4, (3 - 0.5) / 4, 0.5]
    expected = [(a + b) / 2 for a, b in zip(by_first, by_second, strict=True)]
    scores = MeanRank({"first": first, "second": second})
    assert scores(samples, problems).tolist() == pytest.approx(expected, abs=1e-12)
    order = torch.tensor([4, 2, 0, 3, 1])
    assert scores(samples[order], problems[order]).tolist() == pytest.approx([expected[i] for i in order], abs=1e-12)


def test_ranks_do_not_depend_on_scale_nor_on_other_problems():
    samples = torch.rand(5, 2, generator=torch.Generator().manual_seed(0))
    problems = PROBLEMS[torch.tensor([1, 1, 2, 2, 2])]
    scores = MeanRank({"first": first, "second": second})(samples, problems)
    scaled = MeanRank({"first": lambda s, p: s[:, 0].exp() * 1e6, "second": second})
    assert torch.equal(scaled(samples, problems), scores)
    assert torch.equal(scaled(samples[2:], problems[2:]), scores[2:])


def test_a_run_ranks_a_problems_different_samples_and_counts_each_verifier():
    samples = torch.tensor([[1.0, 1.0], [1.0, 1.0], [2.0, 2.0]])
    ledger = Ledger(5)
    counted = CountedVerifier(MeanRank({"first": first, "second": second}), PROBLEMS, ledger)
    assert counted.relative
    assert counted(samples, torch.tensor([3, 3, 3])).tolist() == [0.25, 0.25, 0.75]
    assert ledger.spent["verifier"].tolist() == [0, 0, 0, 4, 0]
    assert WeightedSum({"rank": (MeanRank({"first": first}), 1.0)}).relative


def test_memory_is_the_parts_affair_and_ranks_stay_whole():
    def hungry(samples, problems):
        if len(samples) > 2:
            raise MemoryError
        return samples[:, 0]

    samples = torch.arange(5.0)[:, None].expand(-1, 2)
    scores = Batched(MeanRank({"hungry": hungry}))(samples, PROBLEMS[torch.zeros(5, dtype=torch.int64)])
    assert scores.tolist() == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9])


# ---- held out


def flat(index):
    return lambda samples, problems: samples[:, 0, index]


def go(evaluate):
    return redraft.run(Generate(Sequential(2)), Toy(), toy_problems([0, 4]), evaluate=evaluate)


def test_held_out_verifiers_are_columns_of_the_trace_and_cost_nothing():
    both = held_out({"left": flat(0), "right": flat(1)}, lambda s, p: {"id": p.ids}, lambda s, p: {"zero": 0 * p.ids})
    result = go(both)
    assert torch.equal(result.trace["left"], result.samples[:, 0, 0].double())
    assert torch.equal(result.trace["right"], result.samples[:, 0, 1].double())
    assert result.trace["id"].tolist() == [100, 101]
    assert result.trace["zero"].tolist() == [0, 0]
    assert result.ledger.verifier_calls.tolist() == [0, 0]


def test_columns_of_one_name_are_refused():
    with pytest.raises(RedraftError, match="two metrics are called 'left'"):
        go(held_out({"left": flat(0)}, lambda s, p: {"left": p.ids}))
    with pytest.raises(RedraftError, match="two metrics are called 'id'"):
        go(held_out({"left": flat(0)}, lambda s, p: {"id": p.ids}, lambda s, p: {"id": p.ids}))
    with pytest.raises(RedraftError, match="the trace has a column 'nfe' of its own"):
        held_out({"nfe": flat(0)})


def test_a_held_out_verifier_that_fails_is_named():
    with pytest.raises(
        RedraftError, match="the verifier 'left' gave NaN or infinity .sample number 0, for problem 100"
    ):
        go(held_out({"left": lambda s, p: torch.full((len(s),), torch.nan)}))


def test_a_budget_of_calls_is_a_ceiling_where_a_sample_takes_two():
    def total(samples, problems):
        return samples.flatten(1).sum(1)

    both, method = WeightedSum({"a": (total, 1.0), "b": (total, 1.0)}), BestOfN(8, sampler=Sequential(1))
    result = redraft.run(method, Toy(), PROBLEMS[:2], verifier=both, budget=Budget(verifier_calls=5))
    assert result.ledger.verifier_calls.tolist() == [4, 4]
    with pytest.raises(RedraftError, match="which takes .* NFE and 2 verifier calls"):
        redraft.run(method, Toy(), PROBLEMS[:2], verifier=both, budget=Budget(verifier_calls=1))
