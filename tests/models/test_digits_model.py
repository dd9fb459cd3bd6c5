"""The model `digits`: its law where that is known, labels, guidance, and the weights that ship."""

import json
from dataclasses import replace

import pytest
import torch

import redraft
from redraft import Generate, Parallel, RedraftError
from redraft.core.state import State
from redraft.core.streams import Streams
from redraft.models.class_digits import DigitsModel
from redraft.models.nets.digit import DigitNet
from redraft.models.sudoku import DATA_STD
from redraft.models.weights import SHIPPED
from redraft.samplers import sample
from redraft.testing import check_method, check_model

TASK = redraft.load_task("digits")


@pytest.fixture(scope="module")
def model():
    return redraft.load_model("digits", device="cpu")


def noisy(problems, level=1.0, seed=0):
    start = problems.state()
    noise = Streams.root(seed, problems.ids).normal(start.x.shape[1:])
    return start.to(level * noise, torch.full_like(start.t, level))


def gaussian():
    """A network that adds nothing to the best linear guess: exact for pictures of independent Gaussian pixels."""
    net = DigitNet(pixels=4, width=8, layers=1)
    for part in net.draw[1].parameters():
        part.data.zero_()
    return DigitsModel(net.requires_grad_(False))


def arrived(steps, order):
    """Samples (B, 4) of the Gaussian model, and the noise that they come from."""
    size = 50
    noise = torch.randn(size, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    frozen = torch.zeros(size, 1, dtype=torch.bool)
    state = State(noise, torch.ones(size, 1), frozen, torch.arange(size), {"label": torch.arange(size) % 10})
    return sample(Parallel(steps, order), gaussian(), state, Streams.root(0, torch.arange(size))).x, noise


def test_of_gaussian_pictures_the_flow_scales_the_noise():
    """Of x ~ N(0, s^2) the flow's path is z_t = sqrt((1 - t)^2 s^2 + t^2) e, so that it ends at s e; Heun's error
    falls with the square of the steps, Euler's with the steps."""
    error = {}
    for steps, order in ((10, 1), (40, 1), (10, 2), (40, 2)):
        x, noise = arrived(steps, order)
        error[steps, order] = float((x - DATA_STD * noise).abs().max() / noise.abs().max())
    assert error[40, 2] < 1e-3
    assert 3 < error[10, 1] / error[40, 1] < 6
    assert error[10, 2] / error[40, 2] > 10
    assert error[10, 2] < error[10, 1]


def test_contracts(model):
    check_model(model, TASK.problems(4))
    check_model(model.guided(2.0), TASK.problems(4))
    check_method(Generate(Parallel(3, order=2)), model, TASK.problems(4))


def test_rows_at_different_levels_do_not_mix(model):
    states = [noisy(TASK.problems(1, seed), level) for seed, level in enumerate((0.1, 0.5, 1.0))]
    together = model.predict(State.cat(states)).clean
    alone = torch.cat([model.predict(state).clean for state in states])
    assert torch.allclose(together, alone, atol=1e-5)


def test_heun_takes_two_evaluations_a_step_and_one_in_the_last(model):
    for given, each in ((model, 1), (model.guided(1.5), 2)):
        result = redraft.run(Generate(Parallel(5, order=2)), given, TASK.problems(3))
        assert result.ledger.nfe.tolist() == [each * (2 * 5 - 1)] * 3


def test_samples_are_pictures_of_the_wanted_digits(model):
    problems = TASK.problems(200, seed=7)
    result = redraft.run(Generate(Parallel(10, order=2)), model, problems)
    assert result.samples.shape == (200, 1, 8, 8)
    assert 0 <= result.samples.min() < result.samples.max() <= 1
    assert TASK.evaluate(result.samples, problems)["right"].double().mean() >= 0.95
    assert torch.allclose(model.decode(model.encode(result.samples)), result.samples, atol=1e-6)


def test_the_label_decides_what_is_drawn(model):
    problems = TASK.problems(100, seed=7)
    swapped = replace(problems, cond={"label": (problems.cond["label"] + 1) % 10})
    result = redraft.run(Generate(Parallel(10, order=2)), model, swapped)
    assert TASK.evaluate(result.samples, problems)["right"].double().mean() < 0.05


def test_guidance_mixes_with_and_without_the_label(model):
    state = noisy(TASK.problems(20), 0.9)
    other = replace(state, cond={"label": (state.cond["label"] + 3) % 10})
    plain = model.predict(state).clean
    without = model.guided(0.0).predict(state).clean
    assert torch.allclose(without, model.guided(0.0).predict(other).clean)
    assert not torch.allclose(without, plain, atol=1e-2)
    assert torch.allclose(model.guided(1.0).predict(state).clean, plain, atol=1e-5)
    assert torch.allclose(model.guided(3.0).predict(state).clean, without + 3 * (plain - without), atol=1e-5)
    assert redraft.guided(model, 3.0).name == "digits guided by 3"
    with pytest.raises(RedraftError, match="scale is nan: it must be a finite number"):
        model.guided(float("nan"))


def test_wrong_labels_are_one_sentence(model):
    problems = TASK.problems(3)
    for cond, match in (({}, r"cond\['label'\]"), ({"label": torch.tensor([0, 10, 2])}, "a label is none of them")):
        with pytest.raises(RedraftError, match=match):
            redraft.run(Generate(Parallel(2)), model, replace(problems, cond=cond))


@pytest.mark.parametrize(
    "name", ["digits", "digits-judges/guide", "digits-judges/held-out", "digits-judges/label-free"]
)
def test_what_ships_is_small_and_has_a_card(name):
    folder = SHIPPED / name
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert sum(path.stat().st_size for path in folder.iterdir()) < 3e6
    card = (folder / "README.md").read_text()
    for word in ("Data:", "Training:", "CC BY 4.0", "Made by `redraft train digits"):
        assert word in card
    config = json.loads((folder / "config.json").read_text())
    for metric, value in config["metrics"].items():
        assert f"{value:.3f}" in card if name == "digits" else f"{value:.2%}" in card, metric


def test_the_card_counts_the_parameters(model):
    count = sum(p.numel() for p in model.net.parameters())
    assert f"{count:,} parameters" in (SHIPPED / "digits" / "README.md").read_text()
