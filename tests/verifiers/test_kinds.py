"""Kinds of Python lines: by the syntax tree, and by the classifier that ships."""

import pytest
import torch

import redraft
from redraft import RedraftError
from redraft.models.characters import encode
from redraft.tasks.python import LINE_KINDS, kind_of
from redraft.training.kinds import TrainPythonKinds
from redraft.verifiers import LineKind

LINES = {
    "raise ValueError(message)": "raise",
    "return self.value": "return",
    "x += 1": "assignment",
    "name: str = 'a'": "assignment",
    "print(value, end='')": "call",
    "'a text by itself'": "text",
    "import os": "other",
    "a, b": "other",
}


@pytest.mark.parametrize(("text", "kind"), LINES.items())
def test_the_tree_tells_the_kind(text, kind):
    assert kind_of(text) == kind


def test_what_does_not_parse_has_no_kind():
    assert kind_of("return (") is None


def test_the_task_measures_the_kind_that_it_is_asked_for():
    task = redraft.load_task("python", line_kind="raise")
    texts = ["raise ValueError(message)", "raise (", "return self.value"]
    assert task.evaluate(encode(texts), task.problems(3))["of_kind"].tolist() == [True, False, False]
    assert "of_kind" not in redraft.load_task("python").evaluate(encode(texts), task.problems(3))
    with pytest.raises(RedraftError, match="raise"):
        redraft.load_task("python", line_kind="rise")


def test_the_classifier_finds_the_kind_of_clear_lines():
    texts = [text for text, kind in LINES.items() if kind in ("raise", "return", "assignment", "call")]
    scores = torch.stack([LineKind(kind)(encode(texts), None) for kind in LINE_KINDS], 1)
    assert [LINE_KINDS[i] for i in scores.argmax(1)] == [LINES[text] for text in texts]
    assert torch.allclose(scores.exp().sum(1), torch.ones(len(texts)).double())  # probabilities of all kinds
    alone = LineKind("raise")(encode(texts[:1]), None)
    assert torch.allclose(alone, scores[:1, LINE_KINDS.index("raise")])


def test_it_is_a_verifier_by_name():
    assert redraft.load_verifier("line-kind", kind="return") == LineKind("return")
    with pytest.raises(RedraftError, match="raise"):
        LineKind("rise")


def test_training_makes_a_folder_that_the_verifier_reads(tmp_path, capsys):
    net = TrainPythonKinds(tmp_path, lines=200, steps=30, batch=16).run()
    assert "held-out lines told right" in capsys.readouterr().out
    scores = LineKind("assignment", str(tmp_path))(encode(["x = 1", "raise A(b)"]), None)
    assert scores[0] > scores[1]
    assert net.config["kinds"] == list(LINE_KINDS)
