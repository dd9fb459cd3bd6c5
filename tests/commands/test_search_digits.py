"""`redraft search` on the digits that ship, which needs no download and is there to be looked at."""

import base64
import io
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from searches import summary

import redraft
from redraft.cli import main
from redraft.commands.search import OF_RANDOM_STEPS
from redraft.commands.sized import SIZES
from redraft.core.trace import Trace
from redraft.samplers import sample


def searched(out, *more, prompt="3"):
    return main(["search", "--model", "digits", "--device", "cpu", "--prompt", prompt, "--out", str(out), *more])


@pytest.mark.parametrize("method", sorted({*SIZES, "random"} - {"best-of-n"}))
def test_every_search_runs_on_digits_within_its_budget(tmp_path, method):
    more = ["--settings", "level=0.3", "forward=0.1", "backward=0.3"] if method == "paths" else []
    assert searched(tmp_path, "--method", method, "--budget", "120", "--steps", "10", *more) == 0
    image, settings = summary(tmp_path)["images"][0], json.loads((tmp_path / "search.json").read_text())
    assert (settings["verifier"], settings["held_out"]) == ("digit-classifier", "digit-oracle")
    assert settings["stochasticity"] == float(method in OF_RANDOM_STEPS)
    assert image["baseline_nfe"] == 10
    assert image["nfe"] <= 120
    assert image["winner"]["digit-classifier"] >= image["baseline"]["digit-classifier"]
    assert image["sheet"]


@pytest.mark.parametrize("method", ["random", "zero-order"])
def test_the_page_shows_the_winner_and_its_noise_makes_it_again(tmp_path, capsys, method):
    assert searched(tmp_path, "--method", method, "--budget", "100", "--steps", "5") == 0
    assert re.search(r"1/1 '3': digit-classifier -\S+ -> -\S+, digit-oracle .*\(held out\)", capsys.readouterr().out)
    here, image = tmp_path / "prompts" / "0000", summary(tmp_path)["images"][0]
    html = (tmp_path / "index.html").read_text()
    shown = re.search(r'src="data:image/png;base64,([^"]+)" alt="winner: candidate (\d+)"', html)
    page = np.asarray(Image.open(io.BytesIO(base64.b64decode(shown[1]))))
    kept = np.asarray(Image.open(here / "winner-0.png"))
    assert page.shape == (360, 360, 3)
    assert (page[22::45, 22::45] == kept).all()
    model = redraft.load_model("digits", device="cpu")
    problem = redraft.prompts(model, [3])
    noise = redraft.noise(model, problem, Trace.load(here / "candidates.parquet"), int(shown[2]))
    streams = redraft.core.streams.Streams.root(0, problem.ids)
    with torch.no_grad():
        start = problem.state().to(noise, torch.ones(1, 1))
        again = model.decode(sample(redraft.Parallel(5), model, start, streams).x)
    assert np.abs(again[0, 0].numpy() * 255 - kept[..., 0]).max() <= 0.5 + 1e-3
    judge = redraft.load_task("digits")
    assert float(judge.read(again).log_softmax(1)[0, 3]) == pytest.approx(image["winner"]["digit-oracle"], abs=1e-4)


def test_digits_of_one_s_own_and_other_verifiers(tmp_path, monkeypatch):
    from redraft.models.weights import SHIPPED

    (tmp_path / "mine").symlink_to(SHIPPED / "digits")
    argv = ["search", "--model", str(tmp_path / "mine"), "--prompt", "7", "--verifier", "digit-agreement"]
    assert main([*argv, "--out", str(tmp_path / "out"), "--steps", "4", "--settings", "n=2", "--device", "cpu"]) == 0
    image = summary(tmp_path / "out")["images"][0]
    assert set(image["winner"]) == {"digit-agreement"}
    monkeypatch.chdir(tmp_path)
    assert searched("new", "--held-out", "digit-agreement", "--settings", "n=2", "--steps", "4") == 0
    assert set(summary(tmp_path / "new")["images"][0]["winner"]) == {"digit-classifier", "digit-agreement"}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--prompt", "three"], "'digits' takes class numbers for prompts, not 'three'"),
        (["--prompt", "10"], "'digits' draws the digits 0 to 9, and 10 is none of them"),
        (["--guidance-scale", "2"], "--guidance-scale is for pipelines of diffusers: leave it out"),
        (["--dtype", "float16"], "--dtype is for pipelines of diffusers: leave it out"),
        (["--method", "svdd", "--stochasticity", "0"], "leave out --stochasticity, or give --stochasticity 1"),
        (["--verifier", "digit-classifier,digit-oracl"], "did you mean 'digit-oracle'"),
    ],
)
def test_what_digits_cannot_be_is_one_sentence(tmp_path, capsys, more, words):
    assert searched(tmp_path / "out", *more) == 2
    sentence = capsys.readouterr().err
    assert words in sentence
    assert sentence.count("\n") == 1


def test_digits_are_prompts_in_python_too():
    model = redraft.load_model("digits", device="cpu")
    problems = redraft.prompts(model, [3, 7])
    assert problems.cond["label"].tolist() == [3, 7]
    search = redraft.ZeroOrder(2, 2, 0.5, sampler=redraft.Parallel(4))
    result = redraft.run(search, model, problems, verifier=redraft.load_verifier("digit-classifier"))
    assert result.samples.shape == (2, 1, 8, 8)
    for wrong in ("3", -1, True, 2.0):
        with pytest.raises(redraft.RedraftError, match="draws the digits 0 to 9"):
            redraft.prompts(model, [wrong])
