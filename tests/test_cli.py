import re
import shlex
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import redraft
from redraft import cli
from redraft.cli import COMMANDS, first_line, main
from redraft.commands.demo import Demo
from redraft.commands.sample import table
from redraft.core import registry as names
from redraft.core.registry import METHODS, MODELS, SAMPLERS, TASKS, VERIFIERS
from redraft.models.nets.board import BoardNet
from redraft.models.weights import save_network
from redraft.report.story import Story
from redraft.tasks.load import task_of


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A folder with a network of random weights."""
    folder = tmp_path_factory.mktemp("tiny")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = BoardNet(width=8, message=4, hidden=8, layers=1, passes=1, cell=16)
    save_network(net, folder, "", {"model": "sudoku"})
    return str(folder)


def demo(tiny, out, *more):
    sizes = ["--n", "2", "--iterations", "2", "--difficulty", "easy"]
    return main(["demo", *sizes, "--model", tiny, "--out", str(out), *more])


def interrupt_after(monkeypatch, drafts):
    """Ctrl-C while the demo takes in draft number `drafts`, from 0."""
    add = Story.add

    def interrupted(story, samples, trace):
        if len(story.steps) == drafts:
            raise KeyboardInterrupt
        return add(story, samples, trace)

    monkeypatch.setattr(Story, "add", interrupted)


def test_demo_writes_a_page_that_needs_nothing_else(tiny, tmp_path, capsys):
    assert demo(tiny, tmp_path / "out") == 0
    html = (tmp_path / "out" / "index.html").read_text()
    assert "http://" not in html
    assert "https://" not in html
    assert not re.search(r"(src|href)=\"(?!data:)|url\(|@import", html)
    assert html.count('src="data:image/png;base64,') == 3 + 2 * 2  # frames of one board, two boards before and after
    assert "prefers-color-scheme: dark" in html
    assert "Stopped early" not in html
    assert (tmp_path / "out" / "picture.png").read_bytes().startswith(b"\x89PNG")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:-1]] == ["0", "1", "2"]
    assert re.fullmatch(r"invalid boards: \d+ % -> \d+ %; page: .*index\.html", lines[-1])


def test_demo_that_is_interrupted_writes_what_there_is(tiny, tmp_path, capsys, monkeypatch):
    interrupt_after(monkeypatch, 2)
    assert demo(tiny, tmp_path) == 130
    assert "Stopped early, after 2 of 3 drafts" in (tmp_path / "index.html").read_text()
    assert capsys.readouterr().err.count("\n") == 1


def test_demo_that_is_interrupted_in_its_first_draft_ends_with_one_sentence(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(redraft.IPR, "_generate", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert demo(tiny, tmp_path) == 130
    assert capsys.readouterr().err == "redraft: interrupted\n"
    assert not (tmp_path / "index.html").exists()


def test_demo_ends_when_its_time_is_over(tiny, tmp_path):
    assert demo(tiny, tmp_path, "--seconds", "0") == 0
    assert "Stopped early, after 1 of 3 drafts" in (tmp_path / "index.html").read_text()


def test_demo_without_refinement_draws_too(tiny, tmp_path):
    Demo(n=1, iterations=0, difficulty="easy", model=tiny, out=tmp_path).run()
    assert (tmp_path / "index.html").exists()


def test_sample_writes_a_result_that_loads(tiny, tmp_path, capsys):
    options = ["--model", tiny, "--n", "3", "--difficulty", "easy", "--out", str(tmp_path / "result")]
    options += ["--checkpoint", str(tmp_path / "checkpoint")]
    method = ["ipr", "--iterations", "2", "refine:parallel", "--refine.steps", "2"]
    assert main(["sample", *options, *method]) == 0
    result = redraft.Result.load(tmp_path / "result")
    assert result.samples.shape == (3, 81, 8, 8)
    assert result.settings["method"]["iterations"] == 2
    assert result.settings["method"]["refine"] == {"type": "Parallel"} | vars(redraft.Parallel(steps=2))
    out = capsys.readouterr().out
    assert re.search(r"^valid +\d+\.\d % +\d+\.\d to \d+\.\d %$", out, re.MULTILINE)
    assert "solved" not in out  # easy boards may have other solutions
    assert "NFE per problem" in out


def test_the_table_of_a_sample_has_no_interval_beyond_what_its_metrics_can_be():
    few = table({"violations": torch.tensor([0, 0, 12]), "valid": torch.tensor([True, True, False])})
    assert re.search(r"^violations +4   n < 5$", few, re.MULTILINE)
    assert re.search(r"^valid +66\.7 %   20\.8 to 93\.9 %$", few, re.MULTILINE)
    many = table({"violations": torch.tensor([0] * 7 + [20]), "confidence": torch.tensor([0.2] + [1.0] * 7)})
    for name, most in (("violations", 20), ("confidence", 1)):
        low, high = re.search(rf"^{name} +\S+   (\S+) to (\S+)$", many, re.MULTILINE).groups()
        assert 0 <= float(low) < float(high) <= most


def test_sample_keeps_to_its_budget(tiny, tmp_path):
    options = ["--model", tiny, "--n", "2", "--difficulty", "easy", "--budget", "100", "--out", str(tmp_path)]
    assert main(["sample", *options]) == 0
    assert redraft.Result.load(tmp_path).ledger.nfe.max() <= 100


def test_sample_without_options_of_its_method_takes_the_defaults(tiny, monkeypatch):
    seen = []
    monkeypatch.setattr(redraft, "run", lambda method, *_, **__: seen.append(method) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["sample", "--model", tiny, "--n", "1"])
    assert seen == [redraft.IPR()]


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["sample", "--model", "sudoko"], "did you mean 'sudoku'?"),
        (["demo", "--model", "sudoko"], "did you mean 'sudoku'?"),
        (["sample", "--task", "sudok"], "did you mean 'sudoku'?"),
        (["sample", "ipr", "--ratio", "3"], "ratio is 3.0"),
        (["sample", "--model", "TINY", "--difficulty", "hart"], "did you mean 'hard'?"),
        (["sample", "--task", "digits", "--difficulty", "hard"], "the task 'digits' knows no difficulty"),
        (["sample", "--model", "TINY", "--budget", "1"], "too small"),
        (
            ["sample", "--n", "99999999999"],
            "n is 99999999999: it must be a whole number of 1 or more, 16777215 at most",
        ),
        (["sample", "--model", ""], "the model has no name: give a name, folder, hub id or pipeline"),
        (["sample", "--model", "gpt2"], "unknown model 'gpt2'; known: .*; a hub id has the form owner/name"),
        (["train", "sudoku", "--preset", "tpu"], "unknown preset"),
        (["demo", "--model", "TINY", "--out", "FILE/below"], "cannot be written"),
        (["sample", "--model", "TINY", "--out", "FILE/below"], "cannot be written"),
    ],
)
def test_what_a_user_can_mend_is_one_sentence(tiny, tmp_path, monkeypatch, capsys, argv, sentence):
    monkeypatch.chdir(tmp_path)
    Path("FILE").touch()
    assert main([tiny if word == "TINY" else word for word in argv]) == 2
    captured = capsys.readouterr()
    assert sentence in captured.err or re.search(sentence, captured.err)
    assert captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.parametrize("given", [5, None, ["python"], 2.5, redraft.IPR, {}])
def test_what_can_be_no_model_says_what_to_give(given):
    with pytest.raises(redraft.RedraftError, match="is no model: give a name, folder, hub id or pipeline"):
        redraft.load_model(given)


def test_the_task_is_the_one_of_the_model_s_name_unless_given(tiny, tmp_path, capsys):
    assert main(["sample", "--model", "sudoku-tokens", "--n", "1", "--difficulty", "easy", "generate"]) == 0
    assert "violations" in capsys.readouterr().out
    assert main(["sample", "--model", "python", "--n", "1", "generate"]) == 0
    assert "repetition" in capsys.readouterr().out
    assert main(["sample", "--model", "python", "--task", "sudoku", "--n", "1", "generate"]) == 2
    assert "but 'python' works on (64,)" in capsys.readouterr().err
    (tmp_path / "config.json").write_text('{"model": "digits"}')
    named = {"python": "python", "markov": "markov", str(tmp_path): "digits", tiny: "sudoku", "owner/name": None}
    (tmp_path / "empty").mkdir()
    named[str(tmp_path / "empty")] = None
    assert {model: task_of(model) for model in named} == named


def test_list_names_everything(capsys):
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    for registry in (MODELS, TASKS, METHODS, SAMPLERS, VERIFIERS):
        for name in registry:
            assert f"  {name:19} {registry[name].__doc__.partition(chr(10))[0]}" in out


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """Other packages whose entry points cannot be imported, each for another reason, one for each registry."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "raising").mkdir()
    (tmp_path / "raising" / "__init__.py").write_text("raise RuntimeError('no licence')")
    (tmp_path / "raising" / "parts.py").write_text("class Part:\n    pass\n")
    (tmp_path / "slip.py").write_text("def def")
    points = {"lost": "not_installed.parts:Part", "raises": "raising.parts:Part", "slips": "slip:Part"}
    found = [SimpleNamespace(name=name, value=value) for name, value in points.items()]
    monkeypatch.setattr(names, "entry_points", lambda group: found)
    yield points
    sys.modules.pop("raising", None)


def test_what_another_package_breaks_is_listed_with_the_reason_and_breaks_nothing_else(broken, capsys):
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert out.count("lost                (not_installed.parts cannot be found)") == 5
    assert out.count("raises              (raising.parts cannot be imported: no licence)") == 5
    assert out.count("slips               (slip cannot be imported: invalid syntax") == 5
    assert "ipr  " in out
    assert {name for name, _ in METHODS.usable()} == set(METHODS) - set(broken)
    for name in broken:
        with pytest.raises(
            redraft.RedraftError, match=f"the method '{name}', .* of another package, cannot be imported"
        ):
            METHODS[name]


def test_the_version_is_told(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"redraft {redraft.__version__}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_the_options_of_all_levels(shell, capsys):
    assert main(["--tyro-print-completion", shell]) == 0
    out = capsys.readouterr().out
    for option in ("gpus-per-worker", "held-out", "on-policy", "refine.steps-per-region", "python-kinds"):
        assert option in out


def test_the_completed_words_are_those_of_the_level(capsys, tmp_path):
    assert main(["--tyro-write-completion", "bash", str(tmp_path / "redraft")]) == 0
    assert completed(tmp_path, "redraft", "train", "") >= {*COMMANDS["train"].commands}
    assert completed(tmp_path, "redraft", "bench", "run", "--") >= {"--size", "--workers"}
    assert completed(tmp_path, "redraft", "sample", "iterref", "--") >= {"--moves", "--reward.alpha"}


def completed(folder, *words):
    """What bash offers for the last of the words."""
    given = " ".join(map(shlex.quote, words))
    script = f"source {folder}/redraft; COMP_WORDS=({given}); COMP_CWORD={len(words) - 1}; _tyro_redraft"
    call = ["bash", "-c", f'{script}; printf "%s\\n" "${{COMPREPLY[@]}}"']
    return set(subprocess.run(call, capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--tyro-print-completion", "tcsh"], "unknown shell 'tcsh'"),
        (["--tyro-write-completion", "bash", "FILE/below"], "cannot be written"),
    ],
)
def test_completion_that_cannot_be_had_is_one_sentence(tmp_path, monkeypatch, capsys, argv, sentence):
    monkeypatch.chdir(tmp_path)
    Path("FILE").touch()
    assert main(argv) == 2
    assert sentence in capsys.readouterr().err


def test_a_warning_is_a_sentence_without_a_place_in_the_code(tiny, monkeypatch, capsys):
    class Warns(Demo):
        def run(self):
            warnings.warn("careful", stacklevel=1)

    monkeypatch.setattr(cli, "_load", lambda target: Warns)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda *told: sys.stderr.write(warnings.formatwarning(*told[:4]))
        assert main(["demo"]) == 0
    assert capsys.readouterr().err == "redraft: careful\n"


def test_first_line_of_what_cannot_be_found():
    assert first_line("no_such_package.at_all:Thing") == "(no_such_package.at_all cannot be found)"


@pytest.mark.parametrize(
    "argv", [[], ["--help"], ["train"], ["train", "reader", "--help"], ["sample", "ipr", "--help"]]
)
def test_help(argv, capsys):
    assert main(argv) == 0
    assert "usage: redraft" in capsys.readouterr().out


def test_help_describes_every_command(capsys):
    main(["--help"])
    out = capsys.readouterr().out
    assert all(name in out for name in COMMANDS)


@pytest.mark.parametrize("argv", [["demos"], ["demo", "--boards", "3"], ["demo", "--n", "many"], ["train", "writer"]])
def test_a_wrong_option_is_told_and_is_no_crash(argv, capsys):
    assert main(argv) == 2
    assert capsys.readouterr().err
