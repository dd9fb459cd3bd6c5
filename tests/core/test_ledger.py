"""Compute is charged to the problem it is for."""

import pytest
import torch
from toys import Toy, toy_problems

from redraft import Budget, RedraftError
from redraft.core.counting import CountedModel, CountedVerifier
from redraft.core.ledger import Ledger


def test_rows_are_charged_to_their_problems_as_often_as_these_are_named():
    ledger = Ledger(4)
    ledger.charge("denoiser", torch.tensor([2, 0, 2, 2]))
    ledger.charge("critic", torch.tensor([0]), 5)
    ledger.charge("verifier", torch.tensor([3, 3]), torch.tensor([1, 2]))
    ledger.credit("denoiser", torch.tensor([1]))
    assert ledger.nfe.tolist() == [6, 0, 3, 0]
    assert ledger.verifier_calls.tolist() == [0, 0, 0, 3]
    assert ledger.totals() == {
        "spent": {"denoiser": 4, "critic": 5, "verifier": 3},
        "saved": {"denoiser": 1, "critic": 0, "verifier": 0},
    }


def test_a_counted_model_charges_each_row_and_twice_where_guidance_doubles_the_batch():
    ledger, model, state = Ledger(5), Toy(), toy_problems([0, 1, 2, 0, 0]).state()
    counted = CountedModel(model, ledger)
    counted.predict(state[torch.tensor([1, 1, 4])])
    assert ledger.nfe.tolist() == [0, 2, 0, 0, 1]
    model.nfe_per_row = 2
    counted.predict(state[:1])
    assert ledger.nfe.tolist() == [2, 2, 0, 0, 1]
    assert counted.shape == model.shape


def test_a_counted_verifier_charges_each_row_and_gets_each_row_its_problem():
    ledger, problems = Ledger(3), toy_problems([0, 1, 2])
    verifier = CountedVerifier(lambda samples, asked: samples[:, 0, 0] + asked.ids, problems, ledger)
    scores = verifier(torch.zeros(3, 6, 2), torch.tensor([2, 2, 0]))
    assert scores.tolist() == [102, 102, 100]
    assert ledger.verifier_calls.tolist() == [1, 0, 1]  # problem 2 has the same sample twice
    assert ledger.saved["verifier"].tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (lambda s, p: torch.zeros(2), "the verifier gave shape"),
        (lambda s, p: torch.tensor([0.0, torch.nan, 1.0]), "NaN or infinity .sample number 1, for problem 101"),
        (lambda s, p: 1 / 0, "the verifier raised ZeroDivisionError"),
    ],
)
def test_a_bad_verifier_is_one_sentence(scores, message):
    verifier = CountedVerifier(scores, toy_problems([0, 1, 2]), Ledger(3))
    with pytest.raises(RedraftError, match=message):
        verifier(torch.zeros(3, 6, 2), torch.arange(3))


@pytest.mark.parametrize("name", ["nfe", "verifier_calls"])
def test_a_budget_below_one_is_refused(name):
    assert Budget(**{name: 1})
    for value in (0, -3):
        with pytest.raises(RedraftError, match=f"{name} is {value}"):
            Budget(**{name: value})
