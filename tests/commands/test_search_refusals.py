"""What `redraft search` refuses before a pipeline is loaded, and what it says of prompts that are too long."""

import os
import re
from pathlib import Path

import pytest
from searches import arguments

import redraft
from redraft.cli import main

pytestmark = [
    pytest.mark.filterwarnings(r"ignore::DeprecationWarning:diffusers(\..*)?"),  # numpy's, inside it
    pytest.mark.usefixtures("names"),
]
A = ["--prompt", "a"]
REFUSED = [
    ([*A, "--verifier", "brigth"], "unknown verifier 'brigth'; did you mean 'bright'"),
    ([*A, "--held-out", "rad"], "unknown verifier 'rad'; did you mean 'red'"),
    ([*A, "--verifier", "violations"], "'violations' judges what a task asks for, and a prompt is none"),
    ([*A, "--verifier", "grader"], """'grader' needs llm: give --verifier-options '{"grader": {"llm": "..."}}'"""),
    ([*A, "--verifier", "mean-rank"], "'mean-rank' is made of verifiers: name these, as in --verifier clip,aesthetic"),
    ([*A, "--verifier-options", '{"bright": {"facto": 2}}'], "unknown setting of verifier 'bright' 'facto'"),
    ([*A, "--verifier-options", "[" * 99_999], "--verifier-options is neither JSON by verifier nor a file"),
    ([*A, "--verifier-options", '{"bright": ' + "[" * 99_999], "--verifier-options is neither JSON by verifier"),
    ([*A, "--verifier-options", "DEEP"], "--verifier-options is neither JSON by verifier nor a file"),
    ([*A, "--verifier-options", "FOLDER"], "--verifier-options is neither JSON by verifier nor a file"),
    ([*A, "--verifier-options", '{"fussy": {}}', "--verifier", "fussy"], "'fussy' cannot be followed: size is missing"),
    ([*A, "--method", "best-of-m"], "unknown --method 'best-of-m'"),
    ([*A, "--settings", "size=2"], "unknown setting of random 'size'; known: at_once, n"),
    ([*A, "--settings", "sampler=3"], "it is made of --steps, --stochasticity and --path"),
    ([*A, "--settings", "n=" + "[" * 99_999], "is not name=value with a number"),
    ([*A, "--settings", "n=0"], "n is 0"),
    ([*A, "--method", "zero-order", "--settings", "cosine=2"], "cosine is 2"),
    ([*A, "--method", "evolution", "--settings", "elites=0"], "elites is 0"),
    ([*A, "--budget", "0"], "--budget is 0: it must be 1 or more"),
    ([*A, "--batch", "-1"], "--batch is -1: it must be 1 or more"),
    ([*A, "--stochasticity", "2"], "--stochasticity is 2.0: it must lie in [0, 1]"),
    ([*A, "--stochasticity", "nan"], "--stochasticity is nan: it must lie in [0, 1]"),
    ([*A, "--path", "vp"], "--path vp is for random steps, as the pipeline's solver has levels of its own: add"),
    ([*A, "--dtype", "float12"], "unknown dtype 'float12'"),
    ([*A, "--dtype", "auto"], "unknown dtype 'auto'"),
    ([*A, "--device", "abacus"], "unknown device 'abacus'"),
    ([*A, "--height", "7"], "height is given without width"),
    ([*A, "--guidance-scale", "nan"], " is nan: it must be"),
    (["--prompt", "\udcff"], "--prompt is '\\udcff', which is no text in UTF-8"),
    ([*A, "--negative-prompt", "\udcff"], "--negative-prompt is '\\udcff', which is no text in UTF-8"),
    (["--prompts", "NOWHERE"], "NOWHERE cannot be read: No such file or directory"),
    (["--prompts", "N" * 300], "cannot be read: File name too long"),
    (["--prompts", "FOLDER", "--set", "text"], "FOLDER cannot be read: Is a directory"),
    (["--prompts", "FOLDER"], "there are no prompts in FOLDER"),
    (["--prompts", "BYTES"], "BYTES is not a text file in UTF-8"),
    (["--prompts", "ZEROES"], "ZEROES is not a text file in UTF-8"),
    (["--prompts", "DEEP", "--set", "json"], "line 1 of DEEP is not of the form"),
    (["--prompts", "HALF.json"], "HALF.json is not a text file in UTF-8: it holds 'a\\ud800'"),
    ([*A, "--out", "FILE"], "the folder FILE cannot be written: File exists"),
    ([*A, "--out", "FILE/below"], "the folder FILE/below cannot be written: Not a directory"),
    ([*A, "--out", "O" * 300], "cannot be written: File name too long"),
    ([*A, "--out", "FOLDER"], "FOLDER holds mine.txt, which no search wrote: choose another folder by --out"),
    ([*A, "--method", "fk", "--verifier", "bright,failing"], "weigh them, as in --verifier bright:1,failing:1"),
]


@pytest.fixture
def unloaded(monkeypatch):
    """No model may be loaded."""

    def load(*args, **options):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(redraft, "load_model", load)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with files of all kinds."""
    monkeypatch.chdir(tmp_path)
    Path("FOLDER").mkdir()
    Path("FOLDER/mine.txt").write_text("mine")
    Path("FILE").touch()
    Path("BYTES").write_bytes(b"\xff\xfea\x00")
    Path("ZEROES").write_bytes(b"a\x00b\n")
    Path("DEEP").write_text("[" * 99_999)
    Path("HALF.json").write_text('{"prompt": "a\\ud800"}\n')
    return tmp_path


@pytest.mark.usefixtures("unloaded")
@pytest.mark.parametrize(("more", "words"), REFUSED, ids=[words[:40] for _, words in REFUSED])
def test_what_can_be_known_before_is_refused_before_a_model_is_loaded(here, capsys, more, words):
    assert main(arguments("nobody/nothing", "new", *more)) == 2
    sentence = capsys.readouterr().err
    assert words in sentence
    assert sentence.count("\n") == 1
    assert (here / "FOLDER" / "mine.txt").read_text() == "mine"
    assert [path.name for path in (here / "FOLDER").iterdir()] == ["mine.txt"]


@pytest.mark.usefixtures("unloaded")
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is closed to this user")
def test_a_folder_that_takes_no_files_is_refused_before_a_model_is_loaded(tmp_path, capsys):
    tmp_path.chmod(0o500)
    assert main(arguments("nobody/nothing", tmp_path, *A)) == 2
    assert "cannot be written: Permission denied" in capsys.readouterr().err


@pytest.mark.usefixtures("loaded")
def test_a_size_that_is_set_and_does_not_fit_the_budget_is_refused_before_compute(folder, tmp_path, capsys, model):
    how = ["--settings", "n=4", "at_once=4"]
    assert main([*arguments(folder, tmp_path, *A, budget=23), *how]) == 2
    assert "a budget of 23 NFE is too small for random, which takes 24 or more" in capsys.readouterr().err
    assert main([*arguments(folder, tmp_path, *A, method="halving", budget=8), "--settings", "candidates=2"]) == 2
    assert "too small for halving" in capsys.readouterr().err


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["a b c d a b"], "the prompt is longer than the pipeline reads, which cuts off the rest: 8 tokens, and its"),
        (["a", "a b c d a b"], "prompt number 2 is longer than the pipeline reads, which cuts off the rest: 8 tokens"),
        (["a", "a b c d a b", "a b c d a b c"], "2 of 3 prompts are longer than the pipeline reads, which cuts"),
        (["a b c d a"], None),
    ],
)
def test_prompts_that_are_cut_off_are_told_once_and_first(folder, tmp_path, capsys, texts, words):
    (tmp_path / "set.txt").write_text("\n".join(texts))
    assert main(arguments(folder, tmp_path / "out", "--prompts", str(tmp_path / "set.txt"), budget=12)) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if re.search("longer|truncated", line)]
    assert len(lines) == (words is not None)
    assert all(words in line for line in lines)
