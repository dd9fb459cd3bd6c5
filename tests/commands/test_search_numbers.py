"""A candidate has one number everywhere: on the sheet, on the page, in the summary, in both tables and in Python."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from searches import arguments, summary

import redraft
from redraft.cli import main
from redraft.commands.sized import SIZES
from redraft.core.trace import Trace

pytestmark = [
    pytest.mark.filterwarnings(r"ignore::DeprecationWarning:diffusers(\..*)?"),  # numpy's, inside it
    pytest.mark.usefixtures("names", "loaded"),
]
SETTINGS = {
    "random": [],
    "zero-order": ["--settings", "cosine=0.3"],
    "evolution": ["--settings", "levels=[1.0,1.0]"],
    "halving": [],
    "draft-then-verify": [],
}
"""Searches whose candidates follow from their noise."""
PATHS = ["--settings", "level=0.9", "forward=0.1", "backward=0.5"]


def number_of(label):
    return int(re.match(r"(\d+): ", label)[1])


@pytest.mark.parametrize("verifier", ["bright:-1", "bright,red"])
@pytest.mark.parametrize("method", SETTINGS)
def test_the_number_of_the_best_on_the_sheet_makes_its_picture_again(folder, tmp_path, model, method, verifier):
    how = ["--prompt", "a", "--n-images", "2", "--verifier", verifier, "--held-out", "", *SETTINGS[method]]
    assert main([*arguments(folder, tmp_path, method=method, budget=60), *how]) == 0
    here = tmp_path / "prompts" / "0000"
    table, trace = (Trace.load(here / f"{name}.parquet") for name in ("candidates", "trace"))
    model.pipeline.set_progress_bar_config(disable=True)
    found = [image for image in summary(tmp_path)["images"] if not image["baseline_won"]]
    assert found
    for image in found:
        number = number_of(image["sheet"][0])
        assert number == image["candidate"] == int(trace["candidate"][trace["problem"] == image["problem"]][-1])
        problem = replace(redraft.prompts(model, ["a"]), ids=torch.tensor([image["problem"]]))
        noise = redraft.noise(model, problem, table, number)
        again = model.pipeline("a", latents=noise[:, 0], num_inference_steps=3, output_type="np").images[0]
        picture = np.asarray(Image.open(here / f"winner-{image['problem']}.png")) / 255
        assert np.abs(picture - again).max() < 0.6 / 255


@pytest.mark.parametrize("method", ["paths", *SETTINGS])
def test_every_number_on_the_sheet_is_a_candidate_s_with_its_score(folder, tmp_path, method):
    how = PATHS if method == "paths" else SETTINGS[method]
    assert main([*arguments(folder, tmp_path, "--prompt", "a", "--n-images", "2", method=method, budget=60), *how]) == 0
    table = Trace.load(tmp_path / "prompts" / "0000" / "candidates.parquet")
    for image in summary(tmp_path)["images"]:
        mine = table["problem"] == image["problem"]
        labels = {number_of(label): float(label.split(": ")[1]) for label in image["sheet"]}
        assert labels
        assert len(labels) == len(image["sheet"]) == len(set(table["shown"][mine].tolist()) - {0})
        for number, score in labels.items():
            assert float(table["score"][mine][table["candidate"][mine] == number]) == pytest.approx(score, rel=1e-3)


@pytest.mark.parametrize("method", sorted({*SIZES, "random"} - {"best-of-n"}))
def test_the_page_calls_baseline_and_winner_by_their_numbers(folder, tmp_path, method):
    how = PATHS if method == "paths" else []
    assert main([*arguments(folder, tmp_path, "--prompt", "a", method=method, budget=60), *how]) == 0
    image, html = summary(tmp_path)["images"][0], (tmp_path / "index.html").read_text()
    plain = "candidate 0" if method in ("random", "zero-order") else "plain sample"
    numberless = "best found" if image["candidate"] is None else f"candidate {image['candidate']}"
    winner = plain if image["baseline_won"] else numberless
    assert f'alt="baseline: {plain}"' in html
    assert f'alt="winner: {winner}"' in html
    assert f"<figcaption>{plain} → {winner}: bright" in html
    assert f'alt="candidates: {", ".join(image["sheet"])}"' in html
    assert (image["candidate"] is None) == (method in ("svdd", "beam", "fk") or image["baseline_won"])
    if method in ("svdd", "beam", "fk"):  # which number none of theirs
        assert all(":" not in label for label in image["sheet"])


def test_candidate_0_of_random_and_zero_order_search_is_the_baseline(folder, tmp_path, model):
    for method in ("random", "zero-order"):
        out = tmp_path / method
        assert main(arguments(folder, out, "--prompt", "a", method=method)) == 0
        image = summary(out)["images"][0]
        labels = {number_of(label): label for label in image["sheet"]}
        assert image["baseline_candidate"] == 0
        assert labels[0] == f"0: {image['baseline']['bright']:.4g}"
