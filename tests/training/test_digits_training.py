"""The recipes of the model `digits` and of its judges: repeatable, resumed, and each on its own pictures."""

import gzip
import struct
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.nn import functional as F

import redraft
from redraft import Generate, Parallel, RedraftError
from redraft.models.sudoku import preconditioning
from redraft.tasks.digits import Digits, load_digits
from redraft.training import class_digits, judges
from redraft.training.class_digits import TrainDigits, _Recipe
from redraft.training.judges import TrainDigitsJudges
from redraft.training.loop import Schedule

TINY = {"preset": "smoke", "width": 8, "layers": 1, "evaluate": 0}


def same(one, other):
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def write_idx(path, array):
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(head + array.contiguous().numpy().tobytes(), 1))


@pytest.fixture
def mnist(tmp_path):
    """A folder of MNIST's layout with 150 of scikit-learn's digits, enlarged."""
    digits = load_digits("train")[:150]
    images = F.interpolate(digits.images[:, None], size=28, mode="bilinear")[:, 0]
    write_idx(tmp_path / "t10k-images-idx3-ubyte.gz", ((images + 1) * 127.5).round().to(torch.uint8))
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", digits.labels.to(torch.uint8))
    return str(tmp_path)


def test_the_same_seed_trains_the_same_network_and_moves_no_generator(tmp_path):
    before = torch.get_rng_state()
    one, again = (TrainDigits(out=tmp_path / name, **TINY).run() for name in ("one", "again"))
    assert torch.equal(torch.get_rng_state(), before)
    assert same(one, again)
    assert not same(one, TrainDigits(out=tmp_path / "other", seed=1, **TINY).run())


def test_a_stopped_run_goes_on_as_if_it_had_not_been(tmp_path, monkeypatch):
    whole = TrainDigits(out=tmp_path / "whole", **TINY).run()
    loss = _Recipe.loss

    def cut(recipe, step):
        if step == 3:
            raise KeyboardInterrupt
        return loss(recipe, step)

    monkeypatch.setattr(_Recipe, "loss", cut)
    monkeypatch.setattr(class_digits, "Schedule", partial(Schedule, every=0))
    with pytest.raises(KeyboardInterrupt):
        TrainDigits(out=tmp_path / "part", **TINY).run()
    assert (tmp_path / "part" / "checkpoint.safetensors").exists()
    steps = []
    monkeypatch.setattr(_Recipe, "loss", lambda recipe, step: steps.append(step) or loss(recipe, step))
    rest = TrainDigits(out=tmp_path / "part", **TINY).run()
    assert steps == [3, 4]
    assert same(whole, rest)


def test_a_step_is_what_the_recipe_says(tmp_path):
    recipe = _Recipe(replace(TrainDigits(out=tmp_path, width=8, layers=1), batch=2000, steps=1))
    x, label, distorted, t, noise = recipe.data(0)
    assert x.shape == noise.shape == (2000, 64)
    assert 0.45 < distorted.double().mean() < 0.55
    assert 0.07 < (label == 10).double().mean() < 0.13
    assert (t.sort().values - torch.linspace(0, 1, 2000)).abs().max() < 2e-3  # spread evenly, not merely uniform
    real = {tuple(row) for row in load_digits("train").images.flatten(1).tolist()}
    assert all(
        (tuple(row) in real) != told for row, told in zip(x[:300].tolist(), distorted[:300].tolist(), strict=True)
    )
    assert torch.equal(recipe.data(0)[0], x)
    assert not torch.equal(recipe.data(1)[0], x)


def test_the_loss_of_the_true_picture_is_none(tmp_path, monkeypatch):
    """A network that adds just what the best linear guess lacks has no loss: training and prediction agree."""
    recipe = _Recipe(replace(TrainDigits(out=tmp_path, width=8, layers=1), batch=50, steps=1))
    x, label, distorted, t, noise = recipe.data(0)
    z = (1 - t)[:, None] * x + t[:, None] * noise
    skip, out = (weight[:, None] for weight in preconditioning(t))

    def perfect(*given):
        for one, other in zip(given, (z, t, label, distorted), strict=True):
            assert torch.allclose(one.float(), other.float())
        return (x - skip * z) / out

    recipe.net.forward = perfect
    assert recipe.loss(0)["loss"] < 1e-8
    recipe.net.forward = lambda *given: (x - skip * z) / out + 1
    assert abs(float(recipe.loss(0)["loss"]) - 1) < 1e-4


def test_training_learns(tmp_path):
    recipe = _Recipe(replace(TrainDigits(out=tmp_path, width=32, layers=1), batch=64, steps=1))
    optimizer = torch.optim.AdamW(recipe.net.parameters(), 5e-3)
    before = float(recipe.loss(999)["loss"].detach())
    for step in range(60):
        optimizer.zero_grad()
        recipe.loss(step)["loss"].backward()
        optimizer.step()
    assert float(recipe.loss(999)["loss"].detach()) < 0.75 * before


def test_each_judge_sees_its_own_half(tmp_path, monkeypatch):
    """Changing one half of the pictures changes the judges of that half, and no other."""
    digits = load_digits("train")
    half = len(digits) // 2
    first = TrainDigitsJudges("smoke", tmp_path / "a").run()
    images = digits.images.clone()
    images[half:] *= -1
    monkeypatch.setattr(judges, "load_digits", lambda split, mnist=None: Digits(images, digits.labels))
    second = TrainDigitsJudges("smoke", tmp_path / "b").run()
    assert same(first["guide"], second["guide"])
    assert same(first["label-free"], second["label-free"])
    assert not same(first["held-out"], second["held-out"])


def test_features_without_labels_are_learned_without_labels(tmp_path, monkeypatch):
    first = TrainDigitsJudges("smoke", tmp_path / "a").run()
    digits = load_digits("train")
    shuffled = Digits(digits.images, digits.labels.flip(0))
    monkeypatch.setattr(judges, "load_digits", lambda split, mnist=None: shuffled)
    second = TrainDigitsJudges("smoke", tmp_path / "b").run()
    assert same(first["label-free"], second["label-free"])
    assert not same(first["guide"], second["guide"])


def test_the_contrast_is_least_when_copies_find_each_other():
    class Sure(torch.nn.Module):
        """Places that say which picture a copy is of."""

        def forward(self, images):
            return torch.eye(4).repeat(2, 1)

    digits, generator = load_digits("train")[:4], torch.Generator().manual_seed(0)
    sure = judges._contrast(Sure(), digits, generator)
    expected = -5 + torch.tensor([5.0, *([0.0] * 6)]).logsumexp(0)  # cosine 1 / 0.2 against six zeros
    assert torch.allclose(sure, expected, atol=1e-5)


def test_the_way_of_28_pixels(tmp_path, mnist):
    """Judges, model and task of pictures in MNIST's files."""
    folder = str(tmp_path / "judges")
    TrainDigitsJudges("smoke", tmp_path / "judges", mnist=mnist).run()
    settings = TINY | {"evaluate": 20, "mnist": mnist, "judges": folder}
    TrainDigits(out=tmp_path / "model", **settings).run()
    model, task = redraft.load_model(str(tmp_path / "model")), redraft.load_task("digits", mnist=mnist, judges=folder)
    problems = task.problems(10)
    samples = redraft.run(Generate(Parallel(2, order=2)), model, problems).samples
    assert samples.shape == (10, 1, 28, 28)
    assert task.evaluate(samples, problems)["nearest"].isfinite().all()
    card = (tmp_path / "model" / "README.md").read_text()
    assert "120 training pictures of MNIST" in card
    assert "frechet distance" in card


def test_mnist_without_judges_says_how_to_get_them_before_training(tmp_path, mnist, monkeypatch):
    monkeypatch.setattr(class_digits, "fit", lambda *given: pytest.fail("it trained first"))
    with pytest.raises(RedraftError, match="redraft train digits-judges --mnist"):
        TrainDigits(out=tmp_path / "model", **TINY | {"evaluate": 20, "mnist": mnist}).run()


@pytest.mark.parametrize("recipe", [TrainDigits, TrainDigitsJudges])
def test_an_unknown_preset_is_refused(recipe):
    with pytest.raises(RedraftError, match="unknown preset 'cppu'; did you mean 'cpu'"):
        recipe(preset="cppu").run()
