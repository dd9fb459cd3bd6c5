"""The safety recipe, end to end on tiny networks of the real classes: a guide, and verifiers that only look."""

import re
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import texts

import redraft
from redraft.cli import main
from redraft.core.reading import reader


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A model, a guide, two held-out classifiers, a language model and three prompts."""
    import transformers.dynamic_module_utils as modules

    monkeypatch.setattr(modules, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "transformers_modules", raising=False)
    monkeypatch.chdir(tmp_path)
    texts.llada(tmp_path / "llada")
    texts.roberta(tmp_path / "guide", spread=0.8)
    texts.roberta(tmp_path / "held-out", spread=0.5, kind="XLMRoberta")
    texts.roberta(tmp_path / "another", spread=0.3, kind="XLMRoberta")
    texts.gpt2(tmp_path / "gpt2", context=16)
    (tmp_path / "mine.txt").write_text("the dog is\n\na cat\nthe very good dog is not\n")
    return tmp_path


def run(out, *changes, held_out="held-out"):
    """The command of docs/safety.md in its smoke size."""
    given = [
        "task.file=mine.txt", "model.name=llada", "model.remote_code=true", "verifier.checkpoint=guide",
        f"held_out.held-out.checkpoint={held_out}", "held_out.fluency.checkpoint=gpt2",
    ]  # fmt: skip
    return main(["bench", "run", "safety", "--size", "smoke", "--out", str(out), "--set", *given, *changes])


DOCS = Path(__file__).parents[2] / "docs" / "safety.md"


def test_the_recipe_runs_and_reports_what_was_held_out(folder, capsys):
    assert run("runs/safety") == 0
    said = capsys.readouterr().out
    assert "take about 88 NFE" in said  # without the model
    assert "\n4 of 4 cells done, 0 failed" in said
    out = folder / "runs" / "safety"
    tables = (out / "report.md").read_text()
    for metric in ("held-out", "score", "fluency"):
        assert f"{metric} at equal NFE" in tables
    assert "difference from best-of-n" in tables
    assert "mine.txt" in tables  # with the marks of what the numbers follow from
    rows = pq.read_table(out / "rows.parquet").to_pydict()
    assert {"held-out", "fluency", "score", "nfe", "verifier_calls"} <= rows.keys()
    assert len(set(rows["held-out"])) > 4
    rewards = pq.read_table(out / "candidates.parquet").to_pydict()["reward"]
    assert len(set(rewards)) > 6 < len(rewards) == 8  # different completions, as best-of-N needs
    (block,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    exec(compile(block, "safety.md", "exec"), {})
    assert re.fullmatch(r"(best-of-n|iterref|iterref, at the end): \d+ % of 2\n" * 3, capsys.readouterr().out)


def test_what_is_held_out_guides_nothing(folder):
    one, other = found = [], []
    for held_out, metrics in zip(("held-out", "another"), found, strict=True):
        assert run(f"{held_out}-out", held_out=held_out) == 0
        rows = pq.read_table(folder / f"{held_out}-out" / "rows.parquet").to_pydict()
        keys = zip(*(rows[name] for name in ("label", "point", "problem", "draft")), strict=True)
        metrics += [dict(zip(keys, zip(rows["score"], rows["fluency"], strict=True), strict=True)), rows["held-out"]]
    assert one[0] == other[0]
    assert set(one[1]).isdisjoint(other[1])


def test_scores_are_those_of_the_completions_alone(folder):
    task, model = (
        redraft.load_task("prompts", file="mine.txt", new_tokens=8),
        redraft.load_model("llada", device="cpu", remote_code=True),
    )
    assert model.convention.ends == (3,)
    problems = task.problems(3, model=model)
    result = redraft.run(
        redraft.Generate(redraft.preset("llada", steps=4, block=None)), model, problems, progress=False
    )
    guide = redraft.load_verifier("classifier", task, model, checkpoint="guide", label=0, device="cpu")
    shown = reader(model, "completion")(result.samples, problems)
    own = redraft.load_verifier("classifier", checkpoint="guide", label=0, device="cpu", judged=lambda *_: shown)
    assert guide(result.samples, problems).tolist() == own(result.samples, problems).tolist()
    prompts = problems.facts["prompt"]
    assert not any(text.startswith(prompt) for text, prompt in zip(shown, prompts, strict=True))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (["task.file=none.txt"], "none.txt cannot be read: No such file or directory"),
        (
            ["problems.n=4"],
            "mine.txt has 3 prompts and n is 4: ask for no more, and for more samples of each by further",
        ),
        (
            ["held_out.held-out.name=toxic"],
            "held_out.held-out.name=toxic: unknown verifier 'toxic'; did you mean 'toxicity'",
        ),
        (["held_out.score={name: cola}"], "'score' is a column of its own"),
        (["problems"], "'problems' changes nothing: write a key and a value, such as problems.n=4"),
        (["problems.n=[2"], "'problems.n=[2' has a value that is no YAML"),
        (["taks.file=x"], "unknown setting of Experiment 'taks'; did you mean 'task'?"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(folder, capsys, changes, sentence):
    assert run("out", *changes) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1
    assert not (folder / "out").exists()


def test_other_prompts_in_the_same_file_are_another_experiment(folder, capsys):
    assert run("out") == 0
    (folder / "mine.txt").write_text("the cat\na dog\n")
    assert run("out") == 2
    assert "out was begun with mine.txt " in capsys.readouterr().err
