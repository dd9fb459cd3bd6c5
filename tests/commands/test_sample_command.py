"""`redraft sample`: every method on every model, what it writes, and how it speaks."""

import json
import re
import shlex

import pytest
import torch
from tiny_models import NETS, tiny_models

import redraft
from redraft.cli import main
from redraft.commands.sample import USUAL, Sample
from redraft.commands.words import Options
from redraft.core.method import settled
from redraft.core.registry import METHODS
from redraft.core.result import texts_of
from redraft.core.task import Problems
from redraft.models.tokens import Convention, TokenModel

SMALL = {
    "beam": ["--beams", "1"],
    "best-of-n": ["--n", "2"],
    "draft-then-verify": ["--candidates", "2", "--finalists", "1"],
    "evolution": ["--population", "2", "--elites", "1", "--levels", "1.0"],
    "fk": ["--particles", "2", "--every", "16"],
    "generate": [],
    "halving": ["--candidates", "2", "--levels", "0.5"],
    "ipr": ["--iterations", "1"],
    "iterref": ["--levels", "0.0", "--moves", "1"],
    "particle-gibbs": ["--rounds", "1", "--particles", "2", "--every", "16"],
    "paths": ["--paths", "1", "--width", "2", "--backward", "0.9"],
    "svdd": ["--children", "2"],
    "zero-order": ["--rounds", "1", "--neighbours", "1"],
}
"""The least that each method does."""
CANNOT = {
    ("ipr", "digits"): "choose another --model, or another method",
    ("zero-order", "python"): "use best-of-n or iterref",
    ("zero-order", "sudoku-tokens"): "use best-of-n or iterref",
    ("evolution", "python"): "use best-of-n or iterref",
    ("evolution", "sudoku-tokens"): "use best-of-n or iterref",
}
EASY = {"sudoku": ["--difficulty", "easy"], "sudoku-tokens": ["--difficulty", "easy"]}
PYTHONIC = re.compile(r"redraft\.|run\(|\w=|[a-z]\(")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_models(tmp_path_factory.mktemp("tiny"))


def sample(tiny, model, *words):
    return main(["sample", "--model", tiny[model], "--n", "1", *EASY.get(model, []), *words])


@pytest.mark.parametrize("model", NETS)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs_on_every_model_as_it_is_or_says_what_to_change(tiny, capsys, method, model):
    code = sample(tiny, model, method, *SMALL[method])
    captured = capsys.readouterr()
    if (method, model) in CANNOT:
        assert code == 2
        assert CANNOT[method, model] in captured.err
        assert captured.err.count("\n") == 1
        assert not PYTHONIC.search(captured.err)
    else:
        assert code == 0
        assert "NFE" in captured.out


def test_a_model_that_ships_needs_nothing_but_its_name(capsys):
    assert main(["sample", "--model", "digits", "--n", "2", "best-of-n"]) == 0
    assert "200 NFE, 4 verifier calls per problem" in capsys.readouterr().out


def test_the_result_says_what_was_used_and_how_to_do_it_again(tiny, tmp_path):
    first = ["--out", str(tmp_path / "first"), "fk", "--particles", "2", "--every", "8"]
    assert sample(tiny, "digits", *first) == 0
    settings = json.loads((tmp_path / "first" / "result.json").read_text())["settings"]
    assert settings["method"]["sampler"] == {"type": "Parallel"} | vars(redraft.Parallel(50, stochasticity=1.0))
    assert (settings["task"], settings["verifier"], settings["n"]) == ("digits", "digit-classifier", 1)
    program, *words = shlex.split(settings["command"])
    assert program == "redraft"
    assert main([words[0], "--out", str(tmp_path / "again"), *words[1:]]) == 0
    results = [redraft.Result.load(tmp_path / name) for name in ("first", "again")]
    assert torch.equal(results[0].samples, results[1].samples)
    assert results[0].settings == results[1].settings


@pytest.mark.parametrize("method", METHODS)
def test_the_line_that_does_it_again_is_understood(tiny, monkeypatch, method):
    seen = []
    monkeypatch.setattr(redraft, "run", lambda *given, **how: seen.append(given[0]) or 1 / 0)
    model = redraft.load_model("digits")
    whole = settled(METHODS[method](), model)
    line = Sample(method=whole, model=tiny["digits"], n=1)._command(whole, {"task": "digits", "verifier": None})
    with pytest.raises(ZeroDivisionError):
        main(shlex.split(line)[1:])
    assert seen == [whole]


def test_pictures_and_what_is_known_of_each_are_written(tiny, tmp_path):
    for model in ("sudoku", "digits"):
        out = tmp_path / model
        assert sample(tiny, model, "--out", str(out), "--n", "2", "--verifier", USUAL[model], "generate") == 0
        rows = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
        result = redraft.Result.load(out)
        assert [row["problem"] for row in rows] == result.ids.tolist()
        assert [row["nfe"] for row in rows] == result.ledger.nfe.tolist()
        assert all(isinstance(row["score"], float) for row in rows)
        assert [row["picture"] for row in rows] == ["pictures/0000.png", "pictures/0001.png"]
        assert all((out / row["picture"]).read_bytes().startswith(b"\x89PNG") for row in rows)
        assert (out / "samples.png").read_bytes().startswith(b"\x89PNG")
        assert not (out / "samples.txt").exists()
        assert result.ledger.verifier_calls.tolist() == [0, 0]  # the method does not ask


def test_texts_are_written_up_to_their_end(tiny, tmp_path, capsys):
    for model in ("python", "sudoku-tokens"):
        out = tmp_path / model
        assert sample(tiny, model, "--out", str(out), "--n", "2", "generate") == 0
        rows = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
        result = redraft.Result.load(out)
        texts = redraft.load_model(tiny[model]).text(result.samples)
        assert [row["text"] for row in rows] == texts == result.texts
        assert all(text in (out / "samples.txt").read_text() for text in texts)
        assert all(text in capsys.readouterr().out for text in texts[:1])
        assert not (out / "samples.png").exists()


def test_a_text_ends_before_its_end_token():
    model = tokens_with_end()
    problems = Problems(torch.arange(1), torch.zeros(1, 4, dtype=torch.int64), torch.zeros(1, 4, dtype=torch.bool))
    assert texts_of(model, torch.tensor([[1, 2, 0, 3]]), problems) == ["12"]


def tokens_with_end():
    codec = lambda ids: ["".join(map(str, row)) for row in ids.tolist()]  # noqa: E731
    return TokenModel("ends", lambda x, state: None, Convention(5, 4, ends=(0,)), 4, codec)


def test_json_is_all_that_is_printed(tiny, capsys):
    assert sample(tiny, "python", "--json", "--budget", "128", "generate") == 0
    about = json.loads(capsys.readouterr().out)
    assert about["method"]["type"] == "Generate"
    assert (about["model"], about["task"], about["seed"]) == ("python", "python", 0)
    assert about["budget"] == {"nfe": 128, "verifier_calls": None}
    assert about["means"].keys() >= {"parses", "length"}
    (row,) = about["samples"]
    assert row.keys() >= {"problem", "nfe", "text", "parses"}


def test_quiet_prints_nothing_and_verbose_a_line_for_each_draft(tiny, capsys):
    assert sample(tiny, "sudoku", "-q", "ipr", "--iterations", "1") == 0
    assert capsys.readouterr() == ("", "")
    assert sample(tiny, "sudoku", "-v", "ipr", "--iterations", "1") == 0
    captured = capsys.readouterr()
    told = captured.err.splitlines()
    assert [line.split()[0] for line in told] == [
        "model", "task", "problems", "method", "verifier", "draft", "draft"
    ]  # fmt: skip
    assert "violations" in told[-1]
    assert max(map(len, told)) < 700
    assert "NFE per problem" in captured.out


LLADA = ["sampler:preset", "--sampler.name", "llada"]
HEUN = ["refine:parallel", "--refine.order", "2", "--refine.stochasticity", "1"]
RANDOM = "such as sampler:parallel --sampler.steps 50 --sampler.stochasticity 1.0"


@pytest.mark.parametrize(
    ("model", "words", "sentence"),
    [
        (
            "digits",
            ["generate", "sampler:sequential"],
            "gradient, guidance: choose sampler:parallel --sampler.steps 50",
        ),
        ("sudoku", ["fk", "sampler:parallel"], RANDOM),
        ("python", ["fk", *LLADA], f"such as {' '.join(LLADA)} --sampler.temperature 1.0"),
        ("sudoku", ["iterref", "sampler:sequential"], "set --levels 0.0"),
        ("sudoku", ["halving", "sampler:sequential"], "use sampler:parallel or a masked sampler"),
        ("sudoku", ["ipr", "--ratio", "3"], "--ratio is 3.0: it must be a number in (0, 1]"),
        ("sudoku", ["ipr", *HEUN], "set --refine.stochasticity 0 or --refine.order 1"),
        ("digits", ["--budget", "20", "generate"], "--budget 20 is too small for one draft, which takes 50 NFE"),
        ("digits", ["--budget", "20", "generate"], "give --budget 50 or more, or fewer steps"),
        ("python", ["--task", "sudoku", "generate"], "choose a --task that suits --model"),
        ("python", ["--verifier", "violations", "svdd"], "the task 'python' has no rules"),
        ("digits", ["generate", "sampler:preset", "--sampler.name", "maskgt"], "did you mean 'maskgit'?"),
    ],
)
def test_errors_speak_of_options(tiny, capsys, model, words, sentence):
    assert sample(tiny, model, *words) == 2
    captured = capsys.readouterr()
    assert sentence in captured.err
    assert captured.err.count("\n") == 1
    assert not PYTHONIC.search(captured.err)
    assert captured.out == ""


def test_a_command_without_methods_of_its_own_has_samplers_by_their_settings():
    said = Options(["search", "--steps", "3"], frozenset({"steps", "stochasticity", "path"})).said
    assert said("such as Scheduled(30, stochasticity=1.0)") == "such as --steps 30 --stochasticity 1.0"
    assert said("steps is 0: it must be 1 or more") == "--steps is 0: it must be 1 or more"
    assert said("write name=value, such as cosine=0.9") == "write name=value, such as cosine=0.9"
    assert (
        said("it needs a verifier: give run(..., verifier=...)") == "it needs a verifier: give run(..., verifier=...)"
    )
