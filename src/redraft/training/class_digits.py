"""Train the reference model of the `digits` task."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor

from redraft.core.fields import Among, Count, Number, Positive, Seed, Share, checked
from redraft.core.run import run
from redraft.methods.generate import Generate
from redraft.models.class_digits import DigitsModel
from redraft.models.nets.digit import DigitNet
from redraft.models.sudoku import preconditioning
from redraft.models.weights import pick_device, save_network
from redraft.samplers import Parallel
from redraft.tasks.class_digits import ClassDigits, nearest, pictures
from redraft.tasks.digits import distort, load_digits
from redraft.training.judges import SOURCE
from redraft.training.loop import Schedule, check, fit, settled, sizes

HEUN = 10  # steps of the sampler that is evaluated
FEWEST = 4  # digits that precision and recall take
PRESETS = {"cpu": (20_000, 256), "gpu": (20_000, 1024), "smoke": (5, 16)}


@dataclass(frozen=True)
class TrainDigits:
    """Train the denoiser of single handwritten digits, by class.

    Attributes:
        preset: 'cpu' for one core (three minutes), 'gpu' for one GPU, 'smoke' to try it.
        out: folder for the weights and their card; a run that was stopped goes on from its checkpoint there.
        steps: optimiser steps, instead of the preset's.
        batch: pictures a step, instead of the preset's.
        width: channels of the network; 64 for pictures of 8 pixels and 512 for 28, if not given.
        layers: of the network.
        distorted: share of the pictures that are distorted, of which the network is told.
        dropped: share of the labels that it is not told, for guidance.
        rate: peak learning rate.
        evaluate: digits to draw and judge at the end, 4 or more; 0 for none.
        seed: of all randomness.
        device: such as 'cuda'; a GPU if there is one when not given.
        mnist: a folder with MNIST's files, or 'download'; scikit-learn's digits if not given.
        judges: a folder that `redraft train digits-judges` wrote; the judges that ship if not given.
    """

    preset: Annotated[str, Among(PRESETS)] = "cpu"
    out: Path = Path("runs/digits")
    steps: Count | None = None
    batch: Count | None = None
    width: Count | None = None
    layers: Count = 3
    distorted: Share = 0.5
    dropped: Share = 0.1
    rate: Positive = 2e-3
    evaluate: Number = 2000
    seed: Seed = 0
    device: str | None = None
    mnist: str | None = None
    judges: str | None = None

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)

    def run(self) -> DigitNet:
        """Train, write the folder with weights and card."""
        steps, batch = sizes(PRESETS, self)
        check(self, evaluate=FEWEST if self.evaluate > 0 else 0)
        return _Recipe(replace(self, steps=steps, batch=batch)).run()


class _Recipe:
    """The data and the loss of one run."""

    def __init__(self, settings: TrainDigits) -> None:
        self.settings, self.device = settings, pick_device(settings.device)
        self.digits = load_digits("train", settings.mnist)
        with torch.random.fork_rng():
            torch.manual_seed(settings.seed)
            usual = 64 if self.digits.side < 16 else 512
            width = usual if settings.width is None else settings.width
            net = DigitNet(self.digits.side**2, width, settings.layers)
        self.net = net.to(self.device)

    def run(self) -> DigitNet:
        """Train, evaluate and write."""
        settings = self.settings
        assert settings.steps
        task = ClassDigits(settings.mnist, settings.judges)
        if settings.evaluate:
            task.features(pictures("test", settings.mnist))  # without judges, better now than after training
        schedule = Schedule(settings.steps, settings.rate)
        fit(self.net, self.loss, schedule, settings.out / "checkpoint.safetensors", "digits", settled(settings))
        self.net.requires_grad_(False)
        metrics = self.evaluate(task) if settings.evaluate else {}
        save_network(self.net, settings.out, self.card(metrics), {"model": "digits", "metrics": metrics})
        return self.net

    def evaluate(self, task: ClassDigits) -> dict[str, float]:
        """What the task says of samples by Heun's method, and of pictures."""
        problems = task.problems(self.settings.evaluate, seed=1)
        samples = run(Generate(Parallel(HEUN, order=2)), DigitsModel(self.net), problems, progress=False).samples.cpu()
        metrics = {k: float(v.double().mean()) for k, v in task.evaluate(samples, problems).items()}
        metrics |= task.of_the_set(samples)
        rows = torch.randperm(len(self.digits), generator=torch.Generator().manual_seed(1))[: len(samples)]
        train, test = (pictures(split, self.settings.mnist) for split in ("train", "test"))
        metrics["nearest_of_test_pictures"] = float(nearest(test, train).mean())
        metrics |= {f"{name}_of_training_pictures": value for name, value in task.of_the_set(train[rows]).items()}
        print("\n".join(f"{name.replace('_', ' ')}: {value:.3f}" for name, value in metrics.items()))
        return metrics

    def card(self, metrics: dict[str, float]) -> str:
        """What the weights are, as Markdown."""
        settings = self.settings
        count = sum(p.numel() for p in self.net.parameters())
        rows = "".join(f"\n  - {name.replace('_', ' ')}: {value:.3f}" for name, value in metrics.items())
        how = f"{settings.evaluate:,} samples by {HEUN} steps of Heun's method, {2 * HEUN - 1} network evaluations each"
        measured = f"- {how},\n  as the task `digits` measures them:{rows}\n"
        return f"""# Denoiser of single handwritten digits, by class

A `DigitNet` of {count:,} parameters under rectified flow; the label is dropped at times, for classifier-free guidance.
Small on purpose: its samples leave something to search for, and thousands of them take seconds.

- Data: {len(self.digits)} training pictures of {SOURCE[settings.mnist is not None]}; {settings.distorted:.0%} of those
  seen in training are rotated, sheared, scaled and shifted a little, of which the network is told.
- Loss: mean squared error of what the network adds to the best linear guess, at levels spread over [0, 1];
  {settings.dropped:.0%} of the labels are dropped.
- Training: {settings.steps:,} AdamW steps of {settings.batch} pictures, averaged weights, seed {settings.seed},
  on {self.device.type.upper()}.
{measured if metrics else ""}- Made by `redraft train digits`.
"""

    def loss(self, step: int) -> dict[str, Tensor]:
        """Mean squared error of what the network adds to the best linear guess, at levels spread over [0, 1]."""
        x, label, distorted, t, noise = (value.to(self.device) for value in self.data(step))
        z = (1 - t)[:, None] * x + t[:, None] * noise
        skip, out = (weight[:, None] for weight in preconditioning(t))
        target = (x - skip * z) / out
        return {"loss": (self.net(z, t, label, distorted) - target).square().mean()}

    def data(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Pictures (B, pixels), labels (B,), which are distorted (B,), levels (B,) and noise (B, pixels) of a step."""
        settings, batch = self.settings, self.settings.batch
        assert batch
        generator = torch.Generator().manual_seed(settings.seed * 10**9 + step)
        rows = torch.randint(len(self.digits), (batch,), generator=generator)
        images, label = self.digits.images[rows], self.digits.labels[rows]
        distorted, dropped = (
            torch.rand(batch, generator=generator) < share for share in (settings.distorted, settings.dropped)
        )
        images = torch.where(distorted[:, None, None], distort(images, generator), images)
        label = label.masked_fill(dropped, self.net.config["classes"])
        spread = (torch.arange(batch) + torch.rand(batch, generator=generator)) / batch
        t = spread.clamp(1e-3, 1)
        x = images.flatten(1)
        return x, label, distorted, t, torch.randn(x.shape, generator=generator)
