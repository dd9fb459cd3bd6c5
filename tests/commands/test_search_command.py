"""`redraft search` on a tiny pipeline with random weights, text encoder and all."""

import errno
import json
import multiprocessing
import os
import re
import signal
import time
from dataclasses import replace
from pathlib import Path

import looks
import numpy as np
import pipelines
import pytest
import torch
from safetensors.torch import load_file, save_file
from searches import arguments, files, summary

import redraft
from redraft.cli import main
from redraft.commands.search import OF_RANDOM_STEPS, guides
from redraft.commands.shown import Shown, drawn
from redraft.commands.sized import SIZES, cost, plan, together
from redraft.core.checkpoint import Checkpoint
from redraft.core.distinct import prints
from redraft.core.errors import RedraftError
from redraft.core.files import write
from redraft.core.registry import VERIFIERS
from redraft.core.trace import Trace
from redraft.report.found import Found
from redraft.report.gallery import pixels, sheet, small

pytestmark = [
    pytest.mark.filterwarnings(r"ignore::DeprecationWarning:diffusers(\..*)?"),  # numpy's, inside it
    pytest.mark.usefixtures("names"),
]


def test_a_prompt_is_searched_for_and_shown(folder, tmp_path, capsys):
    out = tmp_path / "out"
    more = ["--prompt", "a <cat>", "--guidance-scale", "2", "--n-images", "2"]
    assert main(arguments(folder, out, *more)) == 0
    here = out / "prompts" / "0000"
    assert {path.name for path in here.iterdir()} == {
        *(f"{kind}-{number}.png" for kind in ("baseline", "winner", "candidates") for number in (0, 1)),
        "trace.parquet", "candidates.parquet", "summary.json",
    }  # fmt: skip
    assert not list((out / "work").iterdir())
    first, second = summary(out)["images"]
    assert first["nfe"] == second["nfe"] == 48  # 8 candidates of 3 steps, each twice
    assert first["baseline_nfe"] == 6
    assert first["winner"]["bright"] > first["baseline"]["bright"]
    table = Trace.load(here / "candidates.parquet")
    assert len(table) == 2 * 8
    for image in (first, second):
        mine = table["problem"] == image["problem"]
        best = table["score"][mine].max()
        assert image["winner"]["bright"] == best == table["score"][mine][image["candidate"]]
        assert image["baseline"]["bright"] == pytest.approx(float(table["score"][mine][0]), rel=1e-5)
        mean = red_and_bright(here / f"winner-{image['problem']}.png")
        assert mean == pytest.approx((image["winner"]["bright"], image["winner"]["red"]), abs=0.003)
    html = (out / "index.html").read_text()
    assert not re.search(r"https?://|(src|href)=\"(?!data:)|url\(|@import|<cat>", html)
    assert len(re.findall('src="data:image/(?:jpeg|png);base64,', html)) == 2 * 2 + 2
    assert "a &lt;cat&gt;" in html
    assert "held out" in html
    assert re.search(r"1/1 'a <cat>': bright 0\.\d+ -> 0\.\d+, red .*\(held out\)", capsys.readouterr().out)


def red_and_bright(path):
    from PIL import Image

    with Image.open(path) as image:
        values = np.asarray(image) / 255.0
    return values.mean(), values[..., 0].mean() - values.mean()


def test_the_winner_s_noise_makes_its_picture_by_the_pipeline_itself(folder, tmp_path, loaded, model):
    main(arguments(folder, tmp_path, "--prompt", "a", method="zero-order"))
    image = summary(tmp_path)["images"][0]
    table = Trace.load(tmp_path / "prompts" / "0000" / "candidates.parquet")
    noise = redraft.noise(model, redraft.prompts(model, ["a"]), table, image["candidate"])
    model.pipeline.set_progress_bar_config(disable=True)
    picture = model.pipeline("a", latents=noise[:, 0], num_inference_steps=3, output_type="pt").images
    assert float(picture.double().mean()) == pytest.approx(image["winner"]["bright"], abs=1e-5)


@pytest.mark.parametrize(
    "method", ["zero-order", "paths", "halving", "draft-then-verify", "evolution", "svdd", "beam", "fk"]
)
def test_every_method_fills_its_budget_and_no_more(folder, tmp_path, loaded, method, model):
    verifiers = ["--verifier", "bright:1,red:2", "--held-out", ""]
    more = ["--settings", "level=0.9", "forward=0.1", "backward=0.5"] if method == "paths" else []
    assert main([*arguments(folder, tmp_path, "--prompt", "a", method=method, budget=72), *verifiers, *more]) == 0
    image = summary(tmp_path)["images"][0]
    assert image["nfe"] <= 72
    settings = json.loads((tmp_path / "search.json").read_text())["method"]
    sampler = redraft.Scheduled(3, stochasticity=float(method in OF_RANDOM_STEPS))
    open_plan = plan(method, sampler=sampler, draft=replace(sampler, steps=1), given=tuple(more[1:]))
    problem, beside = redraft.prompts(model, ["a"]), 0 if method == "zero-order" else image["baseline_nfe"]
    assert cost(open_plan.of(settings[open_plan.size]), model, problem) + beside <= 72
    assert cost(open_plan.of(settings[open_plan.size] + 1), model, problem) + beside > 72


@pytest.mark.parametrize("method", sorted({*SIZES, "random"} - {"best-of-n"}))
@pytest.mark.parametrize("sign", [1, -1])
def test_no_search_ends_below_its_baseline_on_its_own_guide(folder, tmp_path, loaded, method, sign):
    """Both of a guide and of its opposite, which cannot both be met by luck with as small a search."""
    more = ["--settings", "level=0.9", "forward=0.1", "backward=0.5", "paths=1"] if method == "paths" else []
    how = ["--verifier", f"bright:{sign}", "--held-out", "red", "--n-images", "3", "--batch", "1", *more]
    assert main([*arguments(folder, tmp_path, "--prompt", "a", method=method, budget=60), *how]) == 0
    images = summary(tmp_path)["images"]
    assert all(sign * image["winner"]["bright"] >= sign * image["baseline"]["bright"] for image in images)
    for image in images:
        mean = red_and_bright(tmp_path / "prompts" / "0000" / f"winner-{image['problem']}.png")
        assert mean == pytest.approx((image["winner"]["bright"], image["winner"]["red"]), abs=0.003)


@pytest.mark.parametrize("method", ["random", "zero-order"])
def test_the_baseline_is_the_first_candidate(folder, tmp_path, loaded, method):
    assert main([*arguments(folder, tmp_path, "--prompt", "a", method=method), "--batch", "1"]) == 0
    here = tmp_path / "prompts" / "0000"
    first = float(Trace.load(here / "candidates.parquet")["score"][0])
    assert summary(tmp_path)["images"][0]["baseline"]["bright"] == pytest.approx(first, rel=1e-5)


def test_random_steps_are_asked_for_where_walks_part_and_on_demand(folder, tmp_path, loaded, capsys):
    assert main([*arguments(folder, tmp_path / "a", "--prompt", "a", method="fk")]) == 0
    assert json.loads((tmp_path / "a" / "search.json").read_text())["stochasticity"] == 1
    assert main([*arguments(folder, tmp_path / "b", "--prompt", "a", "--stochasticity", "0.5")]) == 0
    assert json.loads((tmp_path / "b" / "search.json").read_text())["stochasticity"] == 0.5
    argv = arguments(folder, tmp_path / "c", "--prompt", "a", "--stochasticity", "0", method="svdd")
    assert main(argv) == 2
    assert "leave out --stochasticity, or give --stochasticity 1" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["random", "zero-order", "evolution", "halving"])
def test_several_verifiers_guide_by_their_mean_rank(folder, tmp_path, loaded, method):
    more = ["--prompt", "a", "--verifier", "bright,red", "--held-out", ""]
    assert main(arguments(folder, tmp_path, *more, method=method)) == 0
    trace = Trace.load(tmp_path / "prompts" / "0000" / "trace.parquet")
    assert ((trace["reward"] > 0) & (trace["reward"] < 1)).all()
    assert {"bright", "red"} <= set(trace)


def test_a_set_of_prompts_is_searched_one_by_one_with_scores_by_category(folder, tmp_path, loaded, capsys):
    (tmp_path / "set.csv").write_text("Prompts,Category\na,Colors\nb,Counting\n\na,Colors\nc,Counting\nd,Text\n")
    how = ["--prompts", str(tmp_path / "set.csv"), "--set", "drawbench", "--limit", "3"]
    assert main(arguments(folder, tmp_path / "out", *how, budget=24)) == 0
    assert [found.prompt for found in map(Found.read, sorted((tmp_path / "out" / "prompts").iterdir()))] == [*"abc"]
    html = (tmp_path / "out" / "index.html").read_text()
    assert "By category" in html
    assert re.search(r"<td>Counting</td><td>2</td>", html)
    assert "1 repeated prompts are left out" in capsys.readouterr().out
    ids = [summary(tmp_path / "out", place)["images"][0]["problem"] for place in range(3)]
    assert ids == [0, 1, 2]
    mine = summary(tmp_path / "out", 1)
    assert mine["facts"] == {"category": "Counting"}
    one = redraft.run(
        redraft.BestOfN(4, 4, redraft.Scheduled(3)),
        *alone(redraft.load_model("", None), "b", 1),
        verifier=looks.Bright(),
    )
    assert float(one.trace["reward"][-1]) == pytest.approx(mine["images"][0]["winner"]["bright"], rel=1e-5)


def alone(model, text, number):
    return model, replace(redraft.prompts(model, [text]), ids=torch.tensor([number]))


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_search_that_is_killed_goes_on_and_ends_with_the_same_files(folder, tmp_path, loaded):
    (tmp_path / "set.txt").write_text("a\nb\n")
    killed, how = tmp_path / "killed", ["--prompts", str(tmp_path / "set.txt"), "--batch", "1"]
    argv = arguments(folder, killed, *how, budget=24)
    here, there = multiprocessing.Pipe(duplex=False)
    slow = multiprocessing.get_context("fork").Process(target=told, args=(argv, there))
    slow.start()
    for _ in range(6):  # in the second prompt: each takes 4 drafts
        assert here.poll(60)
        here.recv()
    os.kill(slow.pid, signal.SIGKILL)
    slow.join()
    assert not (killed / "prompts" / "0001").exists()
    assert (killed / "work" / "0001" / "run.safetensors").exists()
    before = (killed / "prompts" / "0000" / "summary.json").stat().st_mtime_ns
    assert main(argv) == 0
    assert (killed / "prompts" / "0000" / "summary.json").stat().st_mtime_ns == before
    assert main(arguments(folder, tmp_path / "whole", *how, budget=24)) == 0
    assert files(killed) == files(tmp_path / "whole")


def told(argv, pipe):
    """Search slowly, and tell of every draft that is on disk."""
    save = Checkpoint.save

    def saved(self, session, **how):
        save(self, session, **how)
        pipe.send(session.draft.number)
        time.sleep(0.05)

    Checkpoint.save = saved
    main(argv)


def test_ctrl_c_keeps_what_was_found_and_the_same_command_goes_on(folder, tmp_path, loaded, monkeypatch, capsys):
    whole, out = tmp_path / "whole", tmp_path / "out"
    more = ["--prompt", "a", "--batch", "1"]
    assert main(arguments(folder, whole, *more, budget=24)) == 0
    calls, ask = [], looks.Bright.__call__

    def interrupted(self, samples, problems):
        calls.append(1)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return ask(self, samples, problems)

    monkeypatch.setattr(looks.Bright, "__call__", interrupted)
    assert main(arguments(folder, out, *more, budget=24)) == 130
    assert "the result is the last finished draft" in capsys.readouterr().err
    assert summary(out)["interrupted"]
    assert summary(out)["images"][0]["nfe"] < 24
    assert "Stopped early: 0 of 1 prompts are done" in (out / "index.html").read_text()
    monkeypatch.undo()
    monkeypatch.setattr(Checkpoint.__init__, "__defaults__", (0.0,))
    monkeypatch.setitem(VERIFIERS._builtin, "bright", looks.NAMES["bright"])
    monkeypatch.setitem(VERIFIERS._builtin, "red", looks.NAMES["red"])
    assert main(arguments(folder, out, *more, budget=24)) == 0
    there, wanted = files(out), files(whole)
    assert there == wanted


def test_a_verifier_that_fails_is_one_sentence_and_what_was_found_is_kept(folder, tmp_path, loaded, capsys):
    how = ["--prompt", "a", "--batch", "1", "--verifier", "failing", "--held-out", ""]
    assert main(arguments(folder, tmp_path, *how, "--verifier-options", '{"failing": {"after": 7}}')) == 2
    sentence = capsys.readouterr().err
    assert "the endpoint is down" in sentence
    assert "0 of 1 prompts are done" in sentence
    assert sentence.count("\n") == 1
    assert summary(tmp_path)["interrupted"]
    assert (tmp_path / "prompts" / "0000" / "winner-0.png").exists()
    assert (tmp_path / "work" / "0000" / "run.safetensors").exists()
    assert "(unfinished)" in (tmp_path / "index.html").read_text()


def test_a_full_disk_is_one_sentence_and_loses_nothing(folder, tmp_path, loaded, monkeypatch, capsys):
    write = Path.write_bytes

    def full(path, content):
        if "winner" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        assert main(arguments(folder, tmp_path, "--prompt", "a")) == 2
    sentence = capsys.readouterr().err
    assert "No space left on device" in sentence
    assert sentence.count("\n") == 1
    assert (tmp_path / "work" / "0000" / "run.safetensors").exists()
    assert main(arguments(folder, tmp_path, "--prompt", "a")) == 0
    assert not summary(tmp_path)["interrupted"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ([], "give either --prompt, one text, or --prompts"),
        (["--prompt", "a", "--prompts", "b"], "give either --prompt"),
        (["--prompts", "nowhere.csv"], "nowhere.csv cannot be read: No such file or directory; DrawBench is a sheet"),
        (["--prompts", "FILE", "--set", "drawbenc"], "did you mean 'drawbench'"),
        (["--prompts", "FILE"], "there are no prompts in"),
        (["--prompt", "a", "--method", "zeroorder"], "unknown --method 'zeroorder'; did you mean 'zero-order'"),
        (["--prompt", "a", "--verifier", "brigth"], "unknown verifier 'brigth'; did you mean 'bright'"),
        (["--prompt", "a", "--verifier", ","], "give a verifier"),
        (["--prompt", "a", "--verifier", "bright,red"], "verifier 'red' is named twice"),
        (["--prompt", "a", "--verifier", "bright:1,failing"], "gives no number for each verifier"),
        (["--prompt", "a", "--settings", "size=2"], "unknown setting of random 'size'"),
        (["--prompt", "a", "--settings", "n=two"], "'n=two' is not name=value with a number"),
        (["--prompt", "a", "--budget", "5"], "a budget of 5 NFE is too small for random, which takes 6 or more"),
        (["--prompt", "a", "--n-images", "0"], "--n-images is 0: it must be 1 or more"),
        (["--prompt", "a", "--limit", "0"], "--limit is 0: it must be 1 or more"),
        (["--prompt", "a", "--limit", "-1"], "--limit is -1: it must be 1 or more"),
        (["--prompt", "a", "--settings", "n=2.5"], "n is 2.5: it must be a whole number"),
        (["--prompt", "a", "--settings", "n=null"], "n is None: it must be a whole number"),
        (["--prompt", "a", "--settings", "sampler=3"], "'sampler' is none of --settings: it is made of --steps"),
        (["--prompt", "a", "--method", "evolution", "--settings", "levels=0.5"], "levels is 0.5: it must be a list"),
        (["--prompt", "a", "--method", "zero-order", "--settings", "neighbours=null"], "neighbours is None: it must"),
        (["--prompt", "a", "--verifier-options", '{"brigth": {}}'], "--verifier-options 'brigth'; did you mean 'brig"),
        (["--prompt", "a", "--verifier-options", '{"bright": {"facto": 2}}'], "'facto'; did you mean 'factor'"),
        (["--prompt", "a", "--verifier-options", '{"failing": {}}'], "settings of 'failing', which no --verifier or"),
        (["--prompt", "a", "--verifier", "bright:0"], "'bright:0' gives no verifier a weight"),
        (["--prompt", "a", "--verifier", "bright:0,failing:-0"], "gives no verifier a weight, so that all pictures"),
        (["--prompt", "a", "--verifier-options", "{"], "--verifier-options is neither JSON by verifier nor a file"),
        (["--prompt", "a", "--verifier-options", '{"bright": 3}'], "--verifier-options is neither JSON"),
        (["--prompt", "a", "--out", "FILE/below"], "cannot be written"),
        (["--prompt", "a", "--method", "beam", "--verifier", "bright,failing"], "in --verifier bright:1,failing:1"),
    ],
)
def test_what_a_user_can_mend_is_one_sentence(folder, tmp_path, loaded, monkeypatch, capsys, more, words):
    monkeypatch.chdir(tmp_path)
    Path("FILE").touch()
    assert main(arguments(folder, tmp_path / "out", *more)) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--height", "7"], "height is given without width, and pipelines may then draw at their own size"),
        (["--width", "16"], "width is given without height"),
        (["--height", "-8"], "height is -8: it must be a whole number of 1 or more"),
        (["--height", "0", "--width", "16"], "height is 0: it must be"),
        (["--height", "7", "--width", "7"], "cannot be called so"),
        (["--guidance-scale", "nan"], "--guidance-scale is nan: it must be a finite number"),
        (["--guidance-scale", "inf"], "--guidance-scale is inf: it must be a finite number"),
    ],
)
def test_arguments_that_no_call_can_follow_are_one_sentence(folder, tmp_path, capsys, more, words):
    assert main(arguments(folder, tmp_path, "--prompt", "a", *more)) == 2
    *progress, sentence = capsys.readouterr().err.splitlines()
    assert words in sentence
    assert not any("redraft:" in line for line in progress)  # of loading


@pytest.mark.parametrize("side", [0, 10**9, -8, 16.0, True])
def test_a_side_alone_is_refused_in_python_too(folder, side):
    with pytest.raises(RedraftError, match="height is "):
        redraft.load_model(str(folder), "cpu", height=side)
    with pytest.raises(RedraftError, match="width is "):
        redraft.load_model(pipelines.made(pipelines.dit), width=side)


def test_a_folder_names_the_argument_of_the_call_that_differs(folder, tmp_path, capsys):
    first = ["--prompt", "a", "--height", "16", "--width", "16", "--guidance-scale", "2"]
    assert main(arguments(folder, tmp_path, *first, budget=12)) == 0
    for more, name in (
        (["--height", "32"], "--height"),
        (["--guidance-scale", "3"], "--guidance-scale"),
        (["--guidance-scale", "1", "--batch", "1"], "--guidance-scale"),  # which also halves what a candidate costs
        (["--negative-prompt", "bad"], "--negative-prompt"),
        (["--budget", "24"], "--budget"),
        (["--steps", "2"], "--steps"),
        (["--method", "zero-order"], "--method, --settings or --batch"),
    ):
        assert main(arguments(folder, tmp_path, *first, *more, budget=12)) == 2
        assert f"holds a search with another {name}: choose" in capsys.readouterr().err
    assert main(arguments(folder, tmp_path, *first, budget=12)) == 0


def test_a_folder_of_before_the_call_was_written_down_goes_on(folder, tmp_path, loaded, capsys):
    more = ["--prompt", "a", "--height", "16", "--width", "16"]
    assert main(arguments(folder, tmp_path, *more, budget=12)) == 0
    path = tmp_path / "search.json"
    settings = {name: value for name, value in json.loads(path.read_text()).items() if name not in ("height", "width")}
    path.write_text(json.dumps(settings))
    assert main(arguments(folder, tmp_path, *more, budget=12)) == 0
    path.write_text(json.dumps(settings | {"weights": "0" * 12, "height": 16, "width": 16}))
    assert main(arguments(folder, tmp_path, *more, budget=12)) == 2
    assert "holds a search with another model or other arguments of its call: choose" in capsys.readouterr().err


def test_a_folder_with_another_search_is_refused(folder, tmp_path, loaded, capsys):
    assert main(arguments(folder, tmp_path, "--prompt", "a", budget=12)) == 0
    for more, name in ((["--prompt", "b"], "--prompt, --prompts"), (["--prompt", "a", "--seed", "1"], "--seed")):
        assert main(arguments(folder, tmp_path, *more, budget=12)) == 2
        assert f"holds a search with another {name}" in capsys.readouterr().err
    (tmp_path / "search.json").write_text("{")
    assert main(arguments(folder, tmp_path, "--prompt", "a", budget=12)) == 2
    assert "search.json is damaged: delete it and give the same command again" in capsys.readouterr().err


def test_a_folder_knows_a_verifier_s_weights_and_a_model_s_whichever_network_they_are_in(
    folder, tmp_path, capsys, monkeypatch
):
    run = lambda source: main(arguments(source, tmp_path / "out", "--prompt", "a", budget=12))  # noqa: E731
    assert run(folder) == 0
    capsys.readouterr()
    monkeypatch.setattr(looks.Bright.__init__, "__defaults__", (2.0, 0.0))  # as another file behind the same name
    assert run(folder) == 2
    assert "holds a search with another verifier behind the same name: choose" in capsys.readouterr().err
    monkeypatch.setattr(looks.Bright.__init__, "__defaults__", (1.0, 0.0))
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    whole = path.read_bytes()
    try:
        weights = load_file(path)
        weights["decoder.conv_out.bias"] += 1e-3
        save_file(weights, path, {"format": "pt"})
        assert run(folder) == 2
    finally:
        path.write_bytes(whole)
    assert "holds a search with another model or other arguments of its call" in capsys.readouterr().err


def test_models_without_a_schedule_and_prompts_that_are_no_classes_are_refused(tmp_path, monkeypatch, capsys):
    assert main(arguments("sudoku", tmp_path / "a", "--prompt", "a")) == 2
    assert "'sudoku' is no pipeline of diffusers" in capsys.readouterr().err
    model = redraft.load_model(pipelines.made(pipelines.dit))
    monkeypatch.setattr(redraft, "load_model", lambda *_, **__: model)
    assert main(arguments("dit", tmp_path / "b", "--prompt", "a cat")) == 2
    assert "takes class numbers for prompts, not 'a cat'" in capsys.readouterr().err
    assert main(arguments("dit", tmp_path / "b", "--prompt", "207")) == 0
    assert summary(tmp_path / "b")["prompt"] == "207"


def test_help(capsys):
    assert main(["search", "--help"]) == 0
    assert "--held-out" in capsys.readouterr().out


# ---- parts


def test_samples_at_once_lose_no_more_than_they_must():
    assert [together(n, 4) for n in (0, 1, 3, 4, 5, 7, 96, 97)] == [
        (0, 1), (1, 1), (3, 3), (4, 4), (4, 4), (6, 3), (96, 4), (96, 4)
    ]  # fmt: skip
    assert [together(n, 4, exact=True) for n in (7, 6, 8)] == [(7, 1), (6, 3), (8, 4)]
    assert all(n - together(n, 8)[0] <= 3 for n in range(1, 200))


@pytest.mark.parametrize(("at_once", "budget", "n"), [(2, 48, 8), (3, 48, 6), (5, 48, 5), (8, 60, 8), (1, 30, 5)])
def test_what_is_drawn_at_once_leaves_the_size_open(model, at_once, budget, n):
    problem = redraft.prompts(model, ["a"])
    made = plan("random", given=(f"at_once={at_once}",), sampler=redraft.Scheduled(3))
    each = cost(made.of(1), model, problem) // at_once
    method = made.fitted(model, problem, budget * each // 6)
    assert (method.n, method.at_once) == (n, at_once)
    with pytest.raises(RedraftError, match=f"which takes {each * at_once} or more"):
        made.fitted(model, problem, each * at_once - 1)


def test_settings_that_fix_the_size_are_kept(folder, tmp_path, loaded):
    assert main(arguments(folder, tmp_path, "--prompt", "a", "--settings", "n=3")) == 0
    assert json.loads((tmp_path / "search.json").read_text())["method"]["n"] == 3
    assert summary(tmp_path)["images"][0]["nfe"] == 3 * 6


def test_options_reach_the_model(folder, tmp_path, loaded):
    more = ["--prompt", "a", "--dtype", "float32", "--height", "16", "--width", "8", "--negative-prompt", "bad"]
    assert main(arguments(folder, tmp_path, *more, budget=12)) == 0
    assert loaded == [(str(folder), {"dtype": "float32", "height": 16, "width": 8, "negative_prompt": "bad"})]


def test_weights_are_all_or_none():
    assert guides("clip, aesthetic", "pickscore") == (None, ["clip", "aesthetic"], ["pickscore"])
    assert guides("clip:1,aesthetic:0.1", None) == ({"clip": 1.0, "aesthetic": 0.1}, ["clip", "aesthetic"], [])
    with pytest.raises(RedraftError, match="gives no number for each"):
        guides("clip:1,aesthetic", None)


def test_what_was_shown_is_kept_once_and_found_again(tmp_path):
    from redraft.core.task import Problems

    problems = Problems(torch.tensor([4, 4, 7]), torch.zeros(3, 1), torch.zeros(3, 1, dtype=torch.bool))
    samples = torch.rand(3, 3, 300, 200, generator=torch.Generator().manual_seed(0))
    verifier = looks.Bright()
    for _ in range(2):  # the second time as after a kill
        shown = Shown(verifier, tmp_path)
        assert torch.equal(shown(samples, problems), verifier(samples, problems))
        assert len(list(tmp_path.iterdir())) == 3
    assert shown.blind
    numbers = dict(zip(prints(samples).tolist(), (30, 31, 7), strict=True))
    cells = shown.of(4, numbers)
    assert [cell.label(numbers)[:4] for cell in cells] == ["30: ", "31: "]
    assert [cell.label(numbers)[:4] for cell in shown.of(4, numbers, 31)] == ["31: ", "30: "]
    assert drawn(cells, numbers).startswith(b"\x89PNG")
    assert not shown.of(5, numbers)


@pytest.mark.parametrize("shape", [(1, 40, 30), (3, 40, 30), (9, 3, 40, 30)], ids=["gray", "colour", "video"])
def test_pictures_of_all_kinds(shape):
    picture = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 1.5 - 0.2
    seen = pixels(picture)
    assert seen.shape == (40, 120 if len(shape) == 4 else 30, 3)
    first = picture[0] if len(shape) == 4 else picture
    assert abs(float(seen[:, :30, 0].mean()) / 255 - float(first[0].clamp(0, 1).mean())) < 0.01
    large = small(torch.rand(*shape[:-2], 400, 200))
    assert large.shape[-2:] == (128, 64)
    assert sheet([seen, seen], ["1: 0.5", "2: 0.25"]).startswith(b"\x89PNG")


def test_the_example_of_the_guide_runs(folder, tmp_path, monkeypatch):
    guide = (Path(__file__).parents[2] / "docs" / "pipelines.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    for here, there in (("stable-diffusion-v1-5/stable-diffusion-v1-5", str(folder)), ('"clip"', '"bright"')):
        assert here in example
        example = example.replace(here, there)
    names = {}
    assert "num_inference_steps=30" in example
    example = example.replace("rounds=8", "rounds=1").replace("(30)", "(2)").replace("_steps=30", "_steps=2")
    exec(compile(example, "pipelines.md", "exec"), names)
    own = torch.tensor(np.array(names["same"])).permute(2, 0, 1) / 255
    assert torch.allclose(own, names["pictures"][0], atol=0.6 / 255)


def test_every_search_in_the_guide_is_one(monkeypatch):
    guide = (Path(__file__).parents[2] / "docs" / "pipelines.md").read_text()
    table = re.findall(r"^\| (`[a-z`, -]+`) \| ", guide, re.MULTILINE)
    named = {name for row in table for name in re.findall(r"`([a-z-]+)`", row)}
    assert named == {*SIZES, "random"} - {"best-of-n"}


def test_a_file_is_written_whole_or_stays_as_it_was(tmp_path, monkeypatch):
    write(tmp_path / "page", b"before")
    write_bytes = Path.write_bytes

    def half(path, content):
        write_bytes(path, content[:2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(RedraftError, match="page cannot be written: No space left"):
        write(tmp_path / "page", b"after")
    assert (tmp_path / "page").read_bytes() == b"before"
