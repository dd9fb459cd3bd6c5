"""The folder of `redraft search`: what is damaged, what is another's, who is at work in it, and what is left alone."""

import json
import multiprocessing
import os
from pathlib import Path

import pytest
from searches import arguments, files, summary

import redraft
from redraft.cli import main
from redraft.commands.hunt import Hunt
from redraft.commands.shown import Shown, Small
from redraft.core.errors import RedraftError
from redraft.core.lock import locked

pytestmark = [
    pytest.mark.filterwarnings(r"ignore::DeprecationWarning:diffusers(\..*)?"),  # numpy's, inside it
    pytest.mark.usefixtures("names", "loaded"),
]
WINNER, BASELINE = "prompts/0000/winner-0.png", "prompts/0000/baseline-0.png"
SUMMARY, TRACE = "prompts/0000/summary.json", "prompts/0000/trace.parquet"
ANEW = "delete the folder {out}/prompts/0000 and give the same command again, which searches for this prompt anew"
AGAIN = "delete it and give the same command again; prompts that are done are kept"


@pytest.fixture(scope="module")
def before(folder, tmp_path_factory):
    """Files of a search for two prompts that has ended, by name."""
    out = tmp_path_factory.mktemp("before")
    with pytest.MonkeyPatch.context() as patch:
        for name, target in (("bright", "looks:Bright"), ("red", "looks:Red")):
            patch.setitem(redraft.VERIFIERS._builtin, name, target)
        assert main(command(folder, out)) == 0
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.fixture
def out(before, tmp_path):
    """A folder with the search that has ended."""
    for name, content in before.items():
        path = tmp_path / "out" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "out"


def command(folder, out, *more, texts="a\nb\n"):
    (Path(out).parent / "set.txt").write_text(texts)
    return arguments(folder, out, "--prompts", str(Path(out).parent / "set.txt"), *more, budget=12)


def told(capsys):
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    return captured.err


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def garbled(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 3 : len(content) // 3 + 40] = bytes(40)
    path.write_bytes(content)


def deep(path):
    path.write_text("[" * 99_999)


def other(path):
    path.write_text('{"a": 1}')


def number(path):
    path.write_text("3")


def pipe(path):
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def folder_there(path):
    path.unlink(missing_ok=True)
    path.mkdir()


def gone(path):
    path.unlink()


def scoreless(path):
    about = json.loads(path.read_text())
    about["images"][0]["winner"].pop("red")
    path.write_text(json.dumps(about))


PLAIN = "is no plain file: move it away"
DAMAGE = [
    ("search.json", cut, AGAIN), ("search.json", deep, AGAIN), ("search.json", number, AGAIN),
    ("search.json", garbled, AGAIN), ("search.json", pipe, PLAIN), ("search.json", folder_there, PLAIN),
    (SUMMARY, cut, ANEW), (SUMMARY, deep, ANEW), (SUMMARY, other, ANEW), (SUMMARY, number, ANEW),
    (SUMMARY, scoreless, ANEW), (SUMMARY, pipe, PLAIN), (SUMMARY, folder_there, PLAIN),
    (TRACE, cut, ANEW), (TRACE, deep, ANEW), (TRACE, gone, ANEW), (TRACE, pipe, PLAIN), (TRACE, folder_there, PLAIN),
    (WINNER, cut, ANEW), (WINNER, garbled, ANEW), (WINNER, deep, ANEW), (WINNER, gone, ANEW), (WINNER, pipe, PLAIN),
    (WINNER, folder_there, PLAIN), (BASELINE, cut, ANEW), ("prompts/0000/candidates-0.png", cut, ANEW),
    ("prompts/0000/candidates.parquet", pipe, PLAIN), ("index.html", pipe, PLAIN), (".lock", pipe, PLAIN),
    (".lock", folder_there, PLAIN), ("index.html", folder_there, PLAIN),
]  # fmt: skip


@pytest.mark.parametrize(("name", "damage", "words"), DAMAGE, ids=[f"{n} {d.__name__}" for n, d, _ in DAMAGE])
def test_damage_is_one_sentence_that_names_the_file_and_comes_before_the_page(
    folder, out, capsys, monkeypatch, name, damage, words
):
    damage(out / name)
    page = out / "index.html"
    page_before = page.read_bytes() if page.is_file() else None
    monkeypatch.setattr(redraft, "run", None)  # no compute is spent
    assert main(command(folder, out)) == 2
    sentence = told(capsys)
    assert f"{out / name} is " in sentence
    assert "prompts are done and in" not in sentence  # as it is found out first
    assert words.format(out=out) in sentence
    assert not page.is_file() or page.read_bytes() == page_before


def test_what_a_sentence_advises_mends_the_folder(folder, out, before, capsys):
    cut(out / WINNER)
    assert main(command(folder, out)) == 2
    for path in (out / "prompts" / "0000").iterdir():
        path.unlink()
    assert main(command(folder, out)) == 0
    assert (out / WINNER).read_bytes() == before[WINNER]
    (out / "search.json").write_text("{")
    assert main(command(folder, out)) == 2
    (out / "search.json").unlink()
    times = {path: path.stat().st_mtime_ns for path in (out / "prompts").rglob("*.png")}
    assert main(command(folder, out)) == 0
    assert (out / "search.json").read_bytes() == before["search.json"]
    assert times == {path: path.stat().st_mtime_ns for path in (out / "prompts").rglob("*.png")}


@pytest.mark.parametrize(
    "more", [["--seed", "1"], ["--budget", "18"], ["--verifier", "bright:1"], ["--settings", "n=1"], ["--held-out", ""]]
)
def test_without_search_json_pictures_of_another_search_are_not_taken_for_this_one_s(folder, out, capsys, more):
    (out / "search.json").unlink()
    kept = files(out)
    for argv in (command(folder, out, *more), command(folder, out, texts="c\nb\n"), command(folder, out, texts="b\na")):
        assert main(argv) == 2
        assert f"{out}/prompts/0000 is another search's: choose another folder or delete it" in told(capsys)
    assert files(out) == kept


def test_prompts_folders_that_change_places_are_seen(folder, out, capsys):
    (out / "prompts" / "0000").rename(out / "prompts" / "x")
    (out / "prompts" / "0001").rename(out / "prompts" / "0000")
    (out / "prompts" / "x").rename(out / "prompts" / "0001")
    assert main(command(folder, out)) == 2
    assert "prompts/0000 is another search's" in told(capsys)


@pytest.mark.parametrize("name", ["thesis.tex", "index.html", "prompts/mine.txt", "work/0000.txt", "run.safetensors"])
def test_a_folder_that_is_no_search_s_is_refused_and_left_as_it_is(folder, tmp_path, capsys, name):
    out = tmp_path / "out"
    (out / name).parent.mkdir(parents=True)
    (out / name).write_text("mine")
    assert main(command(folder, out)) == 2
    assert f"{out} holds {name}, which no search wrote: choose another folder by --out" in told(capsys)
    assert [(path.relative_to(out), path.read_text()) for path in out.rglob("*") if path.is_file()] == [
        (Path(name), "mine")
    ]


def test_what_a_search_did_not_write_stays_where_it_is(folder, out, before):
    mine = [out / name for name in ("a.txt", "prompts/a.txt", "prompts/0000/a.txt", "work/0000/a.txt", "work/a.txt")]
    for path in mine:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    (out / SUMMARY).unlink()  # the prompt is searched for again
    assert main(command(folder, out)) == 0
    assert all(path.read_text() == "mine" for path in mine)
    assert (out / SUMMARY).read_bytes() == before[SUMMARY]


@pytest.mark.parametrize("name", ["cat.png", "1_2.png", "1_2_3_4_5.png", "x_0_1_2.png", "0_0_z_0.5.png"])
def test_strange_files_among_the_small_pictures_are_passed_over(folder, tmp_path, monkeypatch, name):
    kept = []
    monkeypatch.setattr(Hunt, "clear", lambda self, work, shown: kept.append(shown))
    assert main(command(folder, tmp_path / "out", texts="a\n")) == 0
    (shown,) = kept
    monkeypatch.undo()
    (shown / name).write_text("mine")
    assert len(Shown(None, shown).seen[0]) == 2
    assert (shown / name).read_text() == "mine"


def test_a_damaged_small_picture_is_named(tmp_path):
    path = tmp_path / "0_0_1_0.5.png"
    path.write_bytes(b"\x89PNG")
    with pytest.raises(RedraftError, match=r"0_0_1_0\.5\.png is damaged .*: delete it"):
        Small.all(tmp_path)[0].pixels()


def test_a_second_search_in_the_same_folder_is_told_who_is_at_work(folder, out, before, capsys):
    with locked(out):
        assert main(command(folder, out)) == 2
        sentence = told(capsys)
        assert f"another run, process {os.getpid()} on " in sentence
        assert f"is at work in {out}: wait for it, or end it" in sentence
    assert main(command(folder, out)) == 0
    assert all((out / name).read_bytes() == content for name, content in before.items() if name != ".lock")


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_process_that_is_killed_leaves_no_lock(tmp_path):
    ready = multiprocessing.get_context("fork").Event()
    holder = multiprocessing.get_context("fork").Process(target=hold, args=(tmp_path, ready))
    holder.start()
    assert ready.wait(60)
    with pytest.raises(RedraftError, match=f"process {holder.pid} on .* is at work in"), locked(tmp_path):
        pass
    holder.kill()
    holder.join()
    with locked(tmp_path):
        assert (tmp_path / ".lock").read_text().startswith(f"process {os.getpid()} on ")
    assert not (tmp_path / ".lock").read_text()


def hold(folder, ready):
    with locked(folder):
        ready.set()
        multiprocessing.Event().wait(60)


def test_a_summary_says_what_made_it(folder, out):
    first, second = summary(out, 0), summary(out, 1)
    assert len(first["mark"]) == 12
    assert first["mark"] != second["mark"]
