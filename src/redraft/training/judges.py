"""Train the networks that judge single digits: a guide, a held-out judge, and features without labels.

Each half of the training pictures goes to one side: the guide and the label-free network see the first, the held-out
judge, whose features also serve distances between sets, the second. What a search under the guide gains can so be told
from what it makes up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from redraft.core.fields import Among, Count, Seed, checked
from redraft.models.nets.judge import Judge
from redraft.models.weights import save_network
from redraft.tasks.digits import Digits, distort, load_digits
from redraft.training.loop import Schedule, check, fit, sizes

PRESETS = {"cpu": (2_000, 64), "smoke": (5, 16)}
SOURCE = {True: "MNIST (CC BY-SA 3.0)", False: "scikit-learn's copy of UCI's optical digits (CC BY 4.0)"}
ABOUT = {
    "guide": "Classifier that guides: the verifier `digit-classifier`",
    "held-out": "Classifier that measures: the metrics of the task `digits`, and the verifier `digit-oracle`",
    "label-free": "Features without labels: the verifier `digit-agreement`",
}
TEMPERATURE = 0.2  # of the contrast between pictures
Terms = Callable[[Judge, Digits, torch.Generator], Tensor]


@dataclass(frozen=True)
class TrainDigitsJudges:
    """Train the judges of single digits: guide, held-out and label-free.

    Attributes:
        preset: 'cpu' for one core (a minute), 'smoke' to try it.
        out: folder, with a folder for each judge.
        steps: optimiser steps of each, instead of the preset's.
        batch: pictures a step, 2 or more, instead of the preset's.
        seed: of all randomness.
        mnist: a folder with MNIST's files, or 'download'; scikit-learn's digits if not given.
    """

    preset: Annotated[str, Among(PRESETS)] = "cpu"
    out: Path = Path("runs/digits-judges")
    steps: Count | None = None
    batch: Count | None = None
    seed: Seed = 0
    mnist: str | None = None

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)

    def run(self) -> dict[str, Judge]:
        """Train all three, write their folders with weights and cards."""
        sizes(PRESETS, self)
        check(self, batch=2)  # batch normalisation takes two
        digits = load_digits("train", self.mnist)
        first, second = digits[: len(digits) // 2], digits[len(digits) // 2 :]
        return {
            "guide": self._train("guide", first, _classes, 1),
            "held-out": self._train("held-out", second, _classes, 2),
            "label-free": self._train("label-free", first, _contrast, 3),
        }

    def _train(self, name: str, digits: Digits, terms: Terms, stream: int) -> Judge:
        steps, batch = sizes(PRESETS, self)
        with torch.random.fork_rng():
            torch.manual_seed(self.seed * 10 + stream)
            net = Judge(digits.side)

        def loss(step: int) -> dict[str, Tensor]:
            generator = torch.Generator().manual_seed((self.seed * 10 + stream) * 10**9 + step)
            rows = torch.randint(len(digits), (batch,), generator=generator)
            return {"loss": terms(net, digits[rows], generator)}

        fit(net, loss, Schedule(steps, average=0.99), None, name)
        metrics = _accuracy(net, self.mnist) if terms is _classes else {}
        save_network(net, self.out / name, self._card(name, len(digits), metrics), {"metrics": metrics})
        return net.requires_grad_(False)

    def _card(self, name: str, count: int, metrics: dict[str, float]) -> str:
        steps, batch = sizes(PRESETS, self)
        held = f"- Held-out accuracy: {metrics['accuracy']:.2%} of the test pictures.\n" if metrics else ""
        return f"""# {ABOUT[name]}

A convolutional network of 32 features, one of the three judges of the `digits` task.

- Data: {count} pictures, the {"second" if name == "held-out" else "first"} half of the training pictures of
  {SOURCE[self.mnist is not None]}, randomly rotated, sheared, scaled and shifted a little.
- Training: {steps:,} AdamW steps of {batch} pictures, averaged weights, seed {self.seed}; half a minute on a CPU.
{held}- Made by `redraft train digits-judges`.
"""


def _classes(net: Judge, digits: Digits, generator: torch.Generator) -> Tensor:
    """Cross-entropy of the label of distorted pictures."""
    return F.cross_entropy(net(distort(digits.images, generator)), digits.labels, label_smoothing=0.02)


def _contrast(net: Judge, digits: Digits, generator: torch.Generator) -> Tensor:
    """Two distorted copies of a picture are to find each other among those of all others; labels take no part.

    Chen et al., "A simple framework for contrastive learning of visual representations" (SimCLR), 2020.
    """
    copies = torch.cat([distort(digits.images, generator) for _ in range(2)])
    places = F.normalize(net(copies), dim=1)
    likeness = (places @ places.T / TEMPERATURE).fill_diagonal_(-torch.inf)
    return F.cross_entropy(likeness, torch.arange(len(copies)).roll(len(digits)))


@torch.no_grad()
def _accuracy(net: Judge, mnist: str | None) -> dict[str, float]:
    test = load_digits("test", mnist)
    return {"accuracy": float((net(test.images).argmax(1) == test.labels).double().mean())}
