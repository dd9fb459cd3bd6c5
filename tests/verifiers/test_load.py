"""Verifiers by name."""

import pytest

import redraft
from redraft import RedraftError
from redraft.verifiers import Metric


def test_a_constraint_gets_its_task():
    verifier = redraft.load_verifier("violations", redraft.load_task("sudoku-tokens"))
    assert isinstance(verifier, Metric)
    assert redraft.load_verifier("metric", redraft.load_task("python"), name="length").blind is False


@pytest.mark.parametrize(
    ("name", "words"),
    [("violation", "violations"), ("violations", "needs task"), ("classifier", "needs model, label, text")],
)
def test_what_cannot_be_made_is_told_in_one_sentence(name, words):
    with pytest.raises(RedraftError, match=words):
        redraft.load_verifier(name)


def test_a_setting_that_a_verifier_does_not_have_is_refused():
    with pytest.raises(RedraftError, match="unknown setting of verifier 'grader' 'retrys'; did you mean 'retries'"):
        redraft.load_verifier("grader", llm="some-model", retrys=3)
