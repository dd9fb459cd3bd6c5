"""Train the reference model of the `sudoku` task."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from redraft.core.fields import Among, AtLeast0, Count, Number, Seed, Share, checked
from redraft.core.progress import interval
from redraft.core.run import run
from redraft.methods.ipr import IPR
from redraft.models.nets.board import BoardNet
from redraft.models.sudoku import SudokuModel, preconditioning
from redraft.models.weights import load_network, pick_device, save_network
from redraft.tasks.boards import random_board, shuffle_boards
from redraft.tasks.digits import load_digits
from redraft.tasks.glyphs import Glyphs, load_reader
from redraft.tasks.sudoku import Sudoku
from redraft.training.levels import mean_beta, mid_walk
from redraft.training.loop import Schedule, check, compiles, fit, settled, sizes

PRESETS = {"cpu": (8_000, 32), "gpu": (60_000, 512), "smoke": (20, 8)}


@dataclass(frozen=True)
class TrainSudoku:
    """Train the denoiser of handwritten Sudoku boards.

    Attributes:
        preset: 'cpu' for two cores (about an hour), 'gpu' for one GPU, 'smoke' to try it in a minute.
        out: folder for the weights and their card; a run that was stopped goes on from its checkpoint there.
        steps: optimiser steps, instead of the preset's.
        batch: boards a step, instead of the preset's.
        boards: random full boards to start from; each use is a random symmetry of one.
        evaluate: hard test boards to evaluate on at the end; 0 for none.
        iterations: of IPR in that evaluation.
        mixed: share of the boards with levels by SRM's mean-beta scheme; the others' are as a walk meets them.
        guide: weight of the digit head's cross-entropy.
        seed: of all randomness.
        device: such as 'cuda'; a GPU if there is one when not given.
        mnist: a folder with MNIST's files, or 'download'; scikit-learn's digits if not given.
        reader: a folder that `redraft train reader` wrote; the reader that ships if not given.
        init: a folder with weights to start from; random ones if not given.
        compile: fuse the network's operations (needs a C++ compiler).
    """

    preset: Annotated[str, Among(PRESETS)] = "cpu"
    out: Path = Path("runs/sudoku")
    steps: Count | None = None
    batch: Count | None = None
    boards: Count = 20_000
    evaluate: Number = 32
    iterations: Number = 12
    mixed: Share = 0.3
    guide: AtLeast0 = 1.0
    seed: Seed = 0
    device: str | None = None
    mnist: str | None = None
    reader: str | None = None
    init: Path | None = None
    compile: bool = field(default_factory=compiles)

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)

    def run(self) -> BoardNet:
        """Train, write the folder with weights and card, evaluate."""
        steps, batch = sizes(PRESETS, self)
        check(self)
        return _Recipe(replace(self, steps=steps, batch=batch)).run()


class _Recipe:
    """The data and the loss of one run."""

    def __init__(self, settings: TrainSudoku) -> None:
        self.settings, self.device = settings, pick_device(settings.device)
        digits = load_digits("train", settings.mnist)
        reader = load_reader(settings.reader, settings.mnist)
        self.glyphs = Glyphs.legible(digits, reader)
        self.varied = Glyphs.legible(digits, reader, copies=24, seed=settings.seed)
        rng = np.random.default_rng(settings.seed)
        count = tqdm(range(settings.boards), desc="boards", dynamic_ncols=True, mininterval=interval())
        self.boards = np.stack([random_board(rng) for _ in count])
        torch.manual_seed(settings.seed)
        net = load_network(BoardNet, settings.init) if settings.init else BoardNet(pixels=digits.side**2)
        self.net = net.train().requires_grad_(True).to(self.device)
        self.forward = torch.compile(self.net) if settings.compile else self.net

    def run(self) -> BoardNet:
        """Train and write."""
        settings = self.settings
        assert settings.steps
        checkpoint = settings.out / "checkpoint.safetensors"
        fit(self.net, self.loss, Schedule(settings.steps), checkpoint, "sudoku", settled(settings))
        save_network(self.net, settings.out, self.card({}), {"model": "sudoku"})
        if not settings.evaluate:
            return self.net
        metrics = self.evaluate()
        save_network(self.net, settings.out, self.card(metrics), {"model": "sudoku", "metrics": metrics})
        return self.net

    def evaluate(self) -> dict[str, float]:
        """Share of hard test boards that are valid at first and after IPR at the paper's settings."""
        settings = self.settings
        task = Sudoku(settings.mnist, settings.reader)
        problems = task.problems(settings.evaluate, seed=1)
        trace = run(
            IPR(iterations=settings.iterations), SudokuModel(self.net), problems, evaluate=task.evaluate
        ).trace  # fmt: skip
        valid = trace.by_draft("valid")
        metrics = {
            f"valid_after_{draft}": float(valid[draft].double().mean())
            for draft in valid
            if draft in (0, settings.iterations)
        }
        print(
            f"hard boards valid at first and after {settings.iterations} refinements, "
            f"n = {settings.evaluate}: {metrics}"
        )
        return metrics

    def card(self, metrics: dict[str, float]) -> str:
        """What the weights are, as Markdown."""
        settings = self.settings
        source = "MNIST" if settings.mnist else "scikit-learn's copy of UCI's optical digits (CC BY 4.0)"
        count = sum(p.numel() for p in self.net.parameters())
        before = f", going on from {settings.init.name} (see its part below)" if settings.init else ""
        rows = "\n".join(f"  - {name.replace('_', ' ')}: {value:.1%}" for name, value in metrics.items())
        how = f"- {settings.evaluate} hard test boards, valid under the paper's IPR settings:\n{rows}\n"
        return f"""# Denoiser of handwritten Sudoku boards

A `BoardNet` of {count:,} parameters under rectified flow with a noise level for each of the 81 cells.

- Data: random full boards ({settings.boards:,}, each use under a random symmetry), drawn with {len(self.glyphs.images)}
  legible training pictures of {source}; clean cells are drawn with distorted copies half of the time.
- Loss: mean squared error of the clean cells, Gaussian likelihood for the predicted uncertainty, cross-entropy of a
  digit head, whose probabilities the drawing head reads, against the true digits. Labels are used in training only.
- Levels: {settings.mixed:.0%} of the boards by SRM's mean-beta scheme, the others as a sequential walk meets them.
- Training: {settings.steps:,} AdamW steps of {settings.batch} boards{before}, averaged weights, seed {settings.seed},
  on {self.device.type.upper()}.
{how if metrics else ""}- Made by `redraft train sudoku`.
"""

    def loss(self, step: int) -> dict[str, Tensor]:
        """The terms of one step's loss."""
        boards, x, t, noise = (value.to(self.device) for value in self.data(step))
        z = (1 - t)[..., None] * x + t[..., None] * noise
        bf16 = torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")
        with bf16:
            raw, log_variance, digits = self.forward(z, t)
        free = t > 0
        skip, out = (weight[free][:, None] for weight in preconditioning(t))
        target = (x[free] - skip * z[free]) / out.clamp_min(1e-3)
        error = (raw.float()[free] - target).square().mean(-1)
        spread = log_variance.float()[free]
        moving = 1 + 3 * (t[free] < 1)  # few cells are on their way, and theirs is the finer drawing
        labels = (boards - 1).flatten()
        return {
            "clean": (moving * error).sum() / moving.sum(),
            "uncertainty": 0.05 * (spread + error.detach() * (-spread).exp()).mean(),
            "digits": self.settings.guide
            * torch.stack([F.cross_entropy(d.float().flatten(0, 1), labels) for d in digits]).mean(),
        }

    def data(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Boards (B, 81), their pictures (B, 81, pixels), levels (B, 81) and noise (B, 81, pixels) of a step."""
        batch = self.settings.batch
        assert batch
        rng = np.random.default_rng([self.settings.seed, 1, step])
        boards = shuffle_boards(self.boards[rng.integers(len(self.boards), size=batch)], rng)
        mixed = rng.uniform(size=(batch, 1)) < self.settings.mixed
        levels = np.where(mixed, mean_beta(batch, 81, rng), mid_walk(batch, 81, rng, most=12))
        digits = torch.from_numpy(boards).long()
        choice, vary = (torch.from_numpy(rng.uniform(size=boards.shape)) for _ in range(2))
        # clean cells are read, so they vary; noisy ones are drawn, and distorted digits blur what is drawn
        varied = torch.from_numpy(levels == 0) & (vary < 0.5)
        x = torch.where(varied[..., None, None], self.varied.draw(digits, choice), self.glyphs.draw(digits, choice))
        x = x.flatten(2)
        noise = torch.from_numpy(rng.standard_normal(x.shape, dtype=np.float32))
        return digits, x, torch.from_numpy(levels).float(), noise
