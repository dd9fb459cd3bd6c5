"""Each command of README and docs is one that there is, with names, options and values that it knows."""

import json
import re
from pathlib import Path

import pytest
from documented import PAGES, PROGRAMS, ROOT, blocks, inline, lines, variants

import redraft
from redraft.bench.experiment import load
from redraft.cli import COMMANDS, COMPLETION, Group, main, parsed
from redraft.commands.search import Search, guides
from redraft.commands.sized import plan
from redraft.core.registry import MODELS, TASKS, VERIFIERS
from redraft.models.hub import HUB_ID

TYPED = [each for page in PAGES for block in blocks(page) for each in lines(block)]
OURS = [(command, comment) for command, comment in TYPED if command.split()[0] == "redraft"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with the files that commands speak of."""
    monkeypatch.chdir(tmp_path)
    (grid,) = re.findall(r"```yaml\n(name: ipr-sudoku.*?)```", (ROOT / "docs" / "bench.md").read_text(), re.DOTALL)
    Path("my.yaml").write_text(grid)
    Path("prompts.txt").write_text("one\n" * 200)


def check(words):
    """Raise unless a command line of ours is understood, and its names and values are known."""
    if words[1] in COMPLETION:  # which is tested by what it writes
        return None
    command = parsed(words[1:])
    for name, known in (("model", MODELS), ("task", TASKS), ("verifier", VERIFIERS)):
        for given in _named(command, name):
            assert given in known or (name == "model" and HUB_ID.fullmatch(given)), given
    if isinstance(command, Search):
        plan(command.method, command.batch, command.settings)
    if words[1:3] == ["bench", "run"]:
        load(Path(command.file) if str(command.file) == "my.yaml" else command.file, command.size, command.set)
    if hasattr(command, "preset"):
        (presets,) = re.findall(r"^ +preset: (.*)", type(command).__doc__, re.MULTILINE)
        assert f"'{command.preset}'" in presets
    return command


def _named(command, name):
    given = getattr(command, name, None)
    if given is None:
        return []
    if name != "verifier" or not isinstance(command, Search):
        return [given]
    _, parts, apart = guides(command.verifier, command.held_out)
    return [*parts, *apart]


@pytest.mark.parametrize(("command", "comment"), OURS)
def test_it_is_understood(here, command, comment):
    for choices in variants(command, comment):
        failures = []
        for words in choices:
            try:
                check(words)
                break
            except (SystemExit, redraft.RedraftError, AssertionError) as error:
                failures.append(error)
        else:
            pytest.fail(f"{command} # {comment}: {failures}")


@pytest.mark.parametrize("wrong", [
    "redraft train critic --modle python", "redraft train python --preset gpv", "redraft bench run ipr-sudoko",
    "redraft sample --model pyton generate", "redraft bench run ipr-sudoku --size smok",
    "redraft search --model a/b --prompt x --verifier clipp", "redraft train pythons",
    "redraft bench run my.yaml --set problems.m=20",
])  # fmt: skip
def test_what_is_not_there_would_be_found(here, wrong, capsys):
    ((words,),) = variants(wrong, "")
    with pytest.raises((SystemExit, redraft.RedraftError, AssertionError)):
        check(words)


@pytest.mark.parametrize("command", sorted({c for c in inline() if c.startswith("redraft")}))
def test_commands_in_sentences_exist(command, here, capsys):
    words = command.replace("NAME", "ipr-sudoku").split()
    if words[1].startswith("--"):
        assert main(words[1:]) == 0
        return
    group = COMMANDS[words[1]]
    assert not isinstance(group, Group) or not words[2:] or words[2] in group.commands
    if any(word.startswith("-") for word in words):
        check(words)


def test_other_programs_are_given_what_there_is():
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    extras = re.search(r"optional-dependencies\]\n(.*?)\n\n", (ROOT / "pyproject.toml").read_text(), re.DOTALL)[1]
    for command in [command for command, _ in TYPED] + [c for c in inline() if c.startswith("python")]:
        program, *words = command.split()
        assert program in PROGRAMS, command
        if program == "make":
            assert words[0] in targets
        if program == "pip":
            assert set(re.search(r"\[(.*)\]", command)[1].split(",")) <= set(re.findall(r"^(\w+) =", extras, re.M))
        if program == "python":
            assert (ROOT / words[0]).exists(), command
        if program == "ray":
            assert check(["redraft", *command.partition(" redraft ")[2].replace("my.yaml", "ipr-sudoku").split()])


SMALLER = {"--n": "1", "--budget": "260", "--steps": "4", "--sampler.steps": "4", "--iterations": "1"}


@pytest.mark.parametrize("command", [c for c, _ in OURS if c.split()[1] in ("sample", "list")])
def test_samples_can_be_drawn_as_they_say(here, command, capsys):
    ((words,),) = variants(command, "")
    given = [SMALLER.get(before, word) for before, word in zip(words, words[1:], strict=False)]
    assert main(given) == 0
    out = capsys.readouterr().out
    assert json.loads(out)["samples"] if "--json" in words else out
    if "--out" in words:
        assert (Path(words[words.index("--out") + 1]) / "samples.jsonl").exists()


def test_a_critic_is_trained_as_it_says(here):
    (command,) = (command for command, _ in OURS if "train critic" in command)
    cut = ["--preset", "smoke", "--steps", "2", "--rows", "8", "--evaluate", "4"]
    assert main([*command.split()[1:], *cut]) == 0
    assert Path("runs/critic/model.safetensors").exists()


def test_completion_is_written_as_it_says(here):
    for command in (command for command, _ in OURS if "completion" in command):
        words = command.replace("~", ".").split()
        assert main(words[1:]) == 0
        assert "--refine.steps-per-region" in Path(words[-1]).read_text()
