"""Train the network that reads handwritten digits, on the training split only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from redraft.core.fields import Count, Seed, checked
from redraft.models.nets.reader import Reader
from redraft.models.weights import save_network
from redraft.tasks.digits import Digits, distort, load_digits
from redraft.training.loop import Schedule, check, fit


@dataclass(frozen=True)
class TrainReader:
    """Train the reader of handwritten digits.

    Attributes:
        out: folder for the weights and their card.
        steps: optimiser steps.
        batch: pictures a step.
        seed: of all randomness.
        mnist: a folder with MNIST's files, or 'download'; scikit-learn's digits if not given.
    """

    out: Path = Path("runs/reader")
    steps: Count = 1500
    batch: Count = 64
    seed: Seed = 0
    mnist: str | None = None

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)

    def run(self) -> Reader:
        """Train, report the accuracy on the test split, write the folder."""
        check(self)
        train, test = load_digits("train", self.mnist), load_digits("test", self.mnist)
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            net = Reader(train.side)
            fit(
                net,
                lambda step: self._loss(net, train, step),
                Schedule(self.steps, average=0.99),
                None,
                "reader",
            )
        accuracy = float((net(test.images).argmax(-1) == test.labels).float().mean())
        print(f"reader: {accuracy:.1%} of {len(test)} held-out digits read right")
        save_network(net, self.out, self._card(accuracy, len(train), len(test)), {"accuracy": accuracy})
        return net

    def _loss(self, net: Reader, digits: Digits, step: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(self.seed * 10**9 + step)
        rows = torch.randint(len(digits), (self.batch,), generator=generator)
        logits = net(distort(digits.images[rows], generator))
        return {"loss": F.cross_entropy(logits, digits.labels[rows], label_smoothing=0.02)}

    def _card(self, accuracy: float, train: int, test: int) -> str:
        source = "MNIST (CC BY-SA 3.0)" if self.mnist else "scikit-learn's copy of UCI's optical digits (CC BY 4.0)"
        return f"""# Reader of handwritten digits

A convolutional network that reads single digits, the judge of the `sudoku` task.

- Data: {train} training pictures from {source}, randomly rotated, sheared, scaled and shifted a little.
- Training: {self.steps} AdamW steps of {self.batch} pictures, averaged weights, seed {self.seed}; seconds on a CPU.
- Held-out accuracy: {accuracy:.2%} of the {test} pictures that training never saw.
- Made by `redraft train reader`.
"""
