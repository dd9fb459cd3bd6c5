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
    [("violation", "violations"), ("violations", "needs task"), ("classifier", "needs checkpoint, label")],
)
def test_what_cannot_be_made_is_told_in_one_sentence(name, words):
    with pytest.raises(RedraftError, match=words):
        redraft.load_verifier(name)


def test_a_setting_that_a_verifier_does_not_have_is_refused():
    with pytest.raises(RedraftError, match="unknown setting of verifier 'grader' 'retrys'; did you mean 'retries'"):
        redraft.load_verifier("grader", llm="some-model", retrys=3)


def test_a_verifier_of_text_is_given_the_model_whose_samples_it_judges(tmp_path):
    python = redraft.load_model("python", device="cpu")
    with pytest.raises(RedraftError, match="given no model: give the language model whose samples it judges"):
        redraft.load_verifier("perplexity")
    with pytest.raises(RedraftError, match="given a SudokuModel, which writes no text"):
        redraft.load_verifier("toxicity", None, redraft.load_model("sudoku", device="cpu"), label=0)
    with pytest.raises(RedraftError, match="cannot be loaded by transformers"):  # it got as far as its own checkpoint
        redraft.load_verifier("classifier", None, python, checkpoint=str(tmp_path), label=0, judged="all")
