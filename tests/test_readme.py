"""What the README says is true: its example runs, and its tables are what the stored rows say."""

import re
import subprocess
import sys
from functools import reduce
from pathlib import Path

import pytest

import redraft
from redraft.core.build import PARTS
from redraft.core.registry import METHODS, MODELS, SAMPLERS, TASKS, VERIFIERS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_example_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    refine, masked, verified = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names = {}
    exec(compile(refine.replace("n=8", "n=2").replace("iterations=6", "iterations=1"), "README.md", "exec"), names)
    assert (tmp_path / "runs" / "first" / "samples.safetensors").exists()
    assert "tensor([" in capsys.readouterr().out
    exec(compile(masked, "README.md", "exec"), names)
    text, ledger = capsys.readouterr().out.splitlines()
    assert len(eval(text)) == 4
    assert eval(ledger)["spent"]["critic"] > 0
    exec(compile(verified, "README.md", "exec"), names)
    assert capsys.readouterr().out.count("tensor(") == 2


def test_parts_of_one_s_own_are_what_the_guide_says(capsys):
    page = (ROOT / "docs" / "own_parts.md").read_text()
    blocks, names = re.findall(r"```python\n(.*?)```", page, re.DOTALL), {"__name__": "own_parts"}
    assert len(blocks) == 7
    for block in blocks:
        exec(compile(block, "own_parts.md", "exec"), names)
    drawn, best = map(float, re.findall(r"tensor\(([^,)]+)", capsys.readouterr().out))
    assert best > drawn
    groups = {name for _, name in re.findall(r'(entry-points\.")(redraft\.\w+)"', page)}
    assert groups == {f"redraft.{each.kind}s" for each in (MODELS, TASKS, VERIFIERS, METHODS, SAMPLERS)}


@pytest.mark.parametrize("page", ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))])
def test_every_name_of_redraft_is_an_attribute_of_it(page):
    text = (ROOT / page).read_text()
    for name in set(re.findall(r"\bredraft((?:\.[A-Za-z_]\w*)+)", text)):
        assert reduce(getattr, name[1:].split("."), redraft) is not None


def test_parts_of_samplers_have_one_home():
    text = re.search(r"`(Unmask\(.*?\))`", README)[1]
    assert isinstance(eval(text, vars(redraft.samplers)), redraft.Unmask)
    for kind, parts in PARTS.items():
        if kind.startswith("samplers."):
            assert all(hasattr(redraft.samplers, part) for part in parts)


def test_the_tables_are_what_the_stored_rows_say():
    check = subprocess.run([sys.executable, ROOT / "bench" / "tables.py", "--check"], check=False)
    assert check.returncode == 0


def test_a_changed_table_fails_that_check(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "bench")
    from tables import filled

    changed = re.sub(r"(<!-- table: kinds -->.*?)\d\d\.\d %", r"\g<1>12.3 %", README, count=1, flags=re.DOTALL)
    assert changed != README
    assert filled(changed) == README


def test_a_changed_number_in_a_sentence_fails_that_check(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "bench")
    from claims import lacking

    page = (ROOT / "docs" / "sudoku.md").read_text()
    assert not [*lacking("docs/sudoku.md", page)]
    (wrong,) = lacking("docs/sudoku.md", page.replace("it has 88.5 %", "it has 89.5 %"))
    assert wrong.startswith("it has 88.5 %")


def test_the_files_and_pictures_it_points_to_exist():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
