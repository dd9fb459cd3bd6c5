"""Train the classifier of Python lines by kind: one layer on the frozen reference model's features."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from redraft.core.fields import Count, Seed, checked
from redraft.models import characters
from redraft.models.nets.kinds import LineKinds
from redraft.models.reference import load_reference
from redraft.models.weights import save_network
from redraft.tasks.python import LINE_KINDS, kind_of, lines
from redraft.training.loop import Schedule, check, fit


@dataclass(frozen=True)
class TrainPythonKinds:
    """Train the classifier of Python lines by kind (assignment, call, return, raise, text, other).

    Attributes:
        out: folder for the weights and their card.
        lines: training lines, drawn at random.
        steps: optimiser steps.
        batch: lines a step, 2 or more.
        seed: of all randomness.
    """

    out: Path = Path("runs/python-kinds")
    lines: Count = 12_000
    steps: Count = 1500
    batch: Count = 128
    seed: Seed = 0

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)

    def run(self) -> LineKinds:
        """Train, report the accuracy on lines of held-out modules, write the folder."""
        check(self, batch=2)  # batch normalisation takes two
        (features, labels), held = (_read(split, self.lines, self.seed) for split in ("train", "test"))
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            net = LineKinds(features.shape[1], list(LINE_KINDS))
            fit(net, lambda step: self._loss(net, features, labels, step), Schedule(self.steps), None, "python-kinds")
        report = _report(net, *held)
        print(f"python-kinds: {report['accuracy']:.1%} of {len(held[1])} held-out lines told right")
        save_network(net, self.out, self._card(len(labels), len(held[1]), report), report)
        return net

    def _loss(self, net: LineKinds, features: Tensor, labels: Tensor, step: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(self.seed * 10**9 + step)
        rows = torch.randint(len(labels), (self.batch,), generator=generator)
        return {"loss": F.cross_entropy(net(features[rows]), labels[rows])}

    def _card(self, train: int, test: int, report: dict[str, float]) -> str:
        recall = "\n".join(f"| {kind} | {report[f'recall_{kind}']:.1%} |" for kind in LINE_KINDS)
        return f"""# Classifier of Python lines by kind

One linear layer on the mean features of the shipped reference model (`python-reference`); the verifier `line-kind`.

- Data: {train} lines of the task `python`'s training modules, labelled by the syntax tree of the line.
- Training: {self.steps} AdamW steps of {self.batch} lines, seed {self.seed}.
- Held-out accuracy: {report["accuracy"]:.1%} of {test} lines of other modules.
- Made by `redraft train python-kinds`.

| kind | told right, held out |
| --- | --- |
{recall}

It has only seen lines that parse: what it says of others means little, so report how many samples parse beside it.
"""


def _read(split: str, number: int, seed: int) -> tuple[Tensor, Tensor]:
    """Features (N, D) and labels (N,) of `number` random lines of a split, or of all there are."""
    chosen = lines(split)
    order = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(seed))[:number]
    texts = [chosen[i] for i in order.tolist()]
    labels = torch.tensor([LINE_KINDS.index(kind_of(text) or "other") for text in texts])
    with torch.no_grad():
        return load_reference(None, "cpu").features(characters.encode(texts)), labels


def _report(net: LineKinds, features: Tensor, labels: Tensor) -> dict[str, float]:
    with torch.no_grad():
        right = (net.eval()(features).argmax(-1) == labels).double()
    found = {f"recall_{kind}": float(right[labels == i].mean()) for i, kind in enumerate(LINE_KINDS)}
    return {"accuracy": float(right.mean())} | found
