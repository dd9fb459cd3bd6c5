"""Train the token models that ship: masked denoisers of Python lines and Sudoku boards, and the judge of the lines."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from redraft.core.errors import RedraftError
from redraft.core.fields import Among, Count, Positive, Seed, checked
from redraft.core.progress import interval
from redraft.models import characters
from redraft.models.nets.transformer import Transformer
from redraft.models.reference import shifted, until_pad
from redraft.models.weights import load_network, pick_device, save_network
from redraft.tasks import python, sudoku_tokens
from redraft.tasks.boards import random_board, shuffle_boards
from redraft.training.loop import Loss, Schedule, check, compiles, fit, settled, sizes

PYTHON = {"cpu": (3_000, 64), "gpu": (60_000, 512), "smoke": (20, 8)}
SUDOKU = {"cpu": (1_800, 32), "gpu": (60_000, 512), "smoke": (20, 8)}
REFERENCE = {"cpu": (1_000, 64), "gpu": (40_000, 512), "smoke": (20, 8)}
LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)  # shares of masks at which the held-out loss is measured
HELD = 256  # rows of held-out data that it is measured on
PYTHON_DATA = (
    "distinct lines, of 8 to 64 characters, of the standard library of Python {version} (PSF licence; only weights\n"
    "  are shipped, no text): {train:,} lines to train on, {test:,} of other modules held out"
)

Clean = Callable[[int], Tensor]
"""The clean tokens (B, R) of a training step."""


@dataclass(frozen=True)
class TrainPython:
    """Train the masked denoiser of Python lines.

    Attributes:
        preset: 'cpu' for one core (40 minutes), 'gpu' for one GPU, 'smoke' to try it in a minute.
        out: folder for the weights and their card; a run that was stopped goes on from its checkpoint there.
        steps: optimiser steps, instead of the preset's.
        batch: lines a step, instead of the preset's.
        width: channels of the network.
        depth: blocks of the network.
        heads: of its attention.
        rate: peak learning rate.
        seed: of all randomness.
        device: such as 'cuda'; a GPU if there is one when not given.
        init: a folder with weights to start from, as far as it has them; random ones if not given.
        compile: fuse the network's operations (needs a C++ compiler).
    """

    preset: Annotated[str, Among(PYTHON)] = "cpu"
    out: Path = Path("runs/python")
    steps: Count | None = None
    batch: Count | None = None
    width: Count = 160
    depth: Count = 4
    heads: Count = 5
    rate: Positive = 2e-3
    seed: Seed = 0
    device: str | None = None
    init: Path | None = None
    compile: bool = field(default_factory=compiles)

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)

    def run(self) -> Transformer:
        """Train, evaluate, write the folder with weights and card."""
        steps, batch = sizes(PYTHON, self)
        check(self)
        net = _seeded(self, characters.VOCABULARY, edges=True)
        if self.init:
            _begun(net, load_network(Transformer, self.init), self.init)
        trainer = _Trainer(self, net, steps, batch, "python", "Masked denoiser of Python lines")
        held = _held_lines()
        trainer.fit(trainer.masked(_lines(self.seed, batch), characters.MASK))
        return trainer.write(_held_out(net, held, characters.MASK), _python_data())


@dataclass(frozen=True)
class TrainSudokuTokens:
    """Train the masked denoiser of Sudoku boards without pictures.

    Attributes:
        preset: 'cpu' for one core (half an hour), 'gpu' for one GPU, 'smoke' to try it in a minute.
        out: folder for the weights and their card; a run that was stopped goes on from its checkpoint there.
        steps: optimiser steps, instead of the preset's.
        batch: boards a step, instead of the preset's.
        boards: random full boards to start from; each use is a random symmetry of one.
        width: channels of the network.
        depth: blocks of the network.
        heads: of its attention.
        passes: how often the blocks are applied.
        hidden: channels of the feed-forward parts; four times the width if not given.
        rate: peak learning rate.
        seed: of all randomness.
        device: such as 'cuda'; a GPU if there is one when not given.
        compile: fuse the network's operations (needs a C++ compiler).
    """

    preset: Annotated[str, Among(SUDOKU)] = "cpu"
    out: Path = Path("runs/sudoku-tokens")
    steps: Count | None = None
    batch: Count | None = None
    boards: Count = 20_000
    width: Count = 96
    depth: Count = 3
    heads: Count = 6
    passes: Count = 3
    hidden: Count | None = 192
    rate: Positive = 2e-3
    seed: Seed = 0
    device: str | None = None
    compile: bool = field(default_factory=compiles)

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)

    def run(self) -> Transformer:
        """Train, evaluate, write the folder with weights and card."""
        steps, batch = sizes(SUDOKU, self)
        check(self)
        net = _seeded(self, sudoku_tokens.VOCABULARY, layout="board", passes=self.passes, hidden=self.hidden)
        trainer = _Trainer(self, net, steps, batch, "sudoku-tokens", "Masked denoiser of Sudoku boards")
        pool = _boards(self.boards, self.seed)
        trainer.fit(trainer.masked(_shuffled(pool, self.seed, batch), sudoku_tokens.MASK))
        held = torch.from_numpy(_boards(HELD, self.seed + 1)).long() - 1
        data = f"{self.boards:,} random full boards, each use under a random symmetry; {HELD} others held out"
        return trainer.write(_held_out(net, held, sudoku_tokens.MASK), data)


@dataclass(frozen=True)
class TrainPythonReference:
    """Train the autoregressive judge of Python lines.

    Attributes:
        preset: 'cpu' for one core (ten minutes), 'gpu' for one GPU, 'smoke' to try it in a minute.
        out: folder for the weights and their card; a run that was stopped goes on from its checkpoint there.
        steps: optimiser steps, instead of the preset's.
        batch: lines a step, instead of the preset's.
        width: channels of the network.
        depth: blocks of the network.
        heads: of its attention.
        rate: peak learning rate.
        seed: of all randomness.
        device: such as 'cuda'; a GPU if there is one when not given.
        compile: fuse the network's operations (needs a C++ compiler).
    """

    preset: Annotated[str, Among(REFERENCE)] = "cpu"
    out: Path = Path("runs/python-reference")
    steps: Count | None = None
    batch: Count | None = None
    width: Count = 160
    depth: Count = 4
    heads: Count = 5
    rate: Positive = 2e-3
    seed: Seed = 0
    device: str | None = None
    compile: bool = field(default_factory=compiles)

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)

    def run(self) -> Transformer:
        """Train, evaluate, write the folder with weights and card."""
        steps, batch = sizes(REFERENCE, self)
        check(self)
        net = _seeded(self, characters.VOCABULARY, causal=True)
        trainer = _Trainer(self, net, steps, batch, None, "Autoregressive judge of Python lines")
        trainer.fit(trainer.following(_lines(self.seed, batch)))
        with torch.no_grad():
            nats = [
                float(next_loss(net.pass_logits, rows)) for rows in torch.split(_held_lines().to(trainer.device), HELD)
            ]
        return trainer.write({"nats_per_character": float(np.mean(nats))}, _python_data())


Settings = TrainPython | TrainSudokuTokens | TrainPythonReference


@dataclass(frozen=True)
class _Trainer:
    """What the recipes share: the loop and the folder that comes of it."""

    settings: Settings
    net: Transformer
    steps: int
    batch: int
    kind: str | None
    title: str

    @property
    def device(self) -> torch.device:
        return self.net.head.weight.device

    def masked(self, clean: Clean, mask: int) -> Loss:
        """Loss of a masked denoiser."""
        call = self._call()

        def loss(step: int) -> dict[str, Tensor]:
            tokens = clean(step)
            hidden = random_masks(tokens, np.random.default_rng([self.settings.seed, 2, step]))
            return {"loss": masked_loss(call, tokens.to(self.device), hidden.to(self.device), mask)}

        return loss

    def following(self, clean: Clean) -> Loss:
        """Loss of an autoregressive network."""
        call = self._call()
        return lambda step: {"loss": next_loss(call, clean(step).to(self.device))}

    def fit(self, loss: Loss) -> None:
        """Train, going on from a checkpoint if there is one."""
        schedule = Schedule(self.steps, rate=self.settings.rate, warmup=min(200, self.steps), decay=0.6)
        out, about = self.settings.out, settled(self.settings) | {"batch": self.batch}
        fit(self.net, loss, schedule, out / "checkpoint.safetensors", out.name, about)

    def write(self, metrics: dict[str, float], data: str) -> Transformer:
        """Write the folder."""
        print(f"{self.settings.out.name}: {metrics}")
        kind = {"model": self.kind} if self.kind else {}
        save_network(self.net, self.settings.out, self._card(metrics, data), {**kind, "metrics": metrics})
        return self.net

    def _call(self) -> Callable[[Tensor], list[Tensor]]:
        return torch.compile(self.net.pass_logits) if self.settings.compile else self.net.pass_logits

    def _card(self, metrics: dict[str, float], data: str) -> str:
        count = sum(p.numel() for p in self.net.parameters())
        rows = "\n".join(f"  - {name.replace('_', ' ')}: {value:.3f}" for name, value in metrics.items())
        settings = self.settings
        before = f", going on from {init.name}" if (init := getattr(settings, "init", None)) else ""
        return f"""# {self.title}

A `Transformer` of {count:,} parameters; its sizes are in config.json.

- Data: {data}.
- Training: {self.steps:,} AdamW steps of {self.batch} rows{before}, peak rate {settings.rate},
  averaged weights, seed {settings.seed}, on {"one CPU core" if self.device.type == "cpu" else "one GPU"}.
- Held-out loss, in nats{" per masked token at a share of masks" if self.kind else ""}:
{rows}
- Made by `redraft train {self.kind or "python-reference"}`.
"""


def random_masks(tokens: Tensor, rng: np.random.Generator) -> Tensor:
    """Which of the tokens (B, R) to mask: each with its row's probability t ~ U(0, 1), and one in a row at least.

    The B levels share one uniform offset and are spread evenly (the low-discrepancy sampler of Kingma et al.,
    "Variational diffusion models", 2021).
    """
    rows, size = tokens.shape
    level = rng.permutation((rng.uniform() + np.arange(rows) / rows) % 1)
    chance = rng.uniform(size=(rows, size))
    hidden = chance < level[:, None]
    hidden[np.arange(rows), chance.argmin(1)] = True
    return torch.from_numpy(hidden)


def masked_loss(call: Callable[[Tensor], list[Tensor]], tokens: Tensor, hidden: Tensor, mask: int) -> Tensor:
    """Mean cross-entropy in nats of the tokens (B, R) that are `hidden` (B, R), averaged over the network's passes."""
    passes = call(tokens.masked_fill(hidden, mask))
    return torch.stack([F.cross_entropy(logits[hidden], tokens[hidden]) for logits in passes]).mean()


def next_loss(call: Callable[[Tensor], list[Tensor]], tokens: Tensor) -> Tensor:
    """Mean cross-entropy, in nats, of each character and of the PAD that ends a text, given those before it."""
    counted = until_pad(tokens)
    return F.cross_entropy(call(shifted(tokens))[-1][counted], tokens[counted])


@torch.no_grad()
def _held_out(net: Transformer, held: Tensor, mask: int) -> dict[str, float]:
    """Nats per masked token of the last pass, for each share of masks in `LEVELS`."""
    rng, device = np.random.default_rng(0), net.head.weight.device
    losses = {}
    for level in LEVELS:
        hidden = torch.from_numpy(rng.uniform(size=held.shape) < level).to(device)
        loss = masked_loss(lambda x: [net(x)[0]], held.to(device), hidden, mask)
        losses[f"nats_at_{level}"] = float(loss)
    return losses


def _seeded(settings: Settings, vocabulary: int, **more: bool | int | str | None) -> Transformer:
    """A new network."""
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        net = Transformer(vocabulary, settings.width, settings.depth, settings.heads, **more)  # type: ignore[arg-type]
    return net.to(pick_device(settings.device))


def _begun(net: Transformer, given: Transformer, folder: Path) -> None:
    """Begin with the weights in `folder`, as far as it has them."""
    try:
        net.load_state_dict(given.state_dict(), strict=False)
    except RuntimeError as error:
        raise RedraftError(f"the weights in {folder} have other shapes: give its width, depth and heads") from error


def _lines(seed: int, batch: int) -> Clean:
    """Random training lines."""
    tokens = characters.encode(list(python.lines("train")))
    return lambda step: tokens[np.random.default_rng([seed, 1, step]).integers(len(tokens), size=batch)]


def _held_lines() -> Tensor:
    """Held-out lines (N, 64)."""
    texts = python.lines("test")
    chosen = np.random.default_rng(0).permutation(len(texts))[: 4 * HELD]
    return characters.encode([texts[i] for i in chosen])


def _python_data() -> str:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return PYTHON_DATA.format(version=version, **{name: len(python.lines(name)) for name in python.SPLITS})


def _boards(n: int, seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int8]]:
    """Random full boards (N, 81)."""
    rng = np.random.default_rng(seed)
    return np.stack(
        [random_board(rng) for _ in tqdm(range(n), desc="boards", dynamic_ncols=True, mininterval=interval())]
    )


def _shuffled(pool: np.ndarray[tuple[int, ...], np.dtype[np.int8]], seed: int, batch: int) -> Clean:
    """Random boards of the pool, each under a random symmetry, as ids."""

    def clean(step: int) -> Tensor:
        rng = np.random.default_rng([seed, 1, step])
        return torch.from_numpy(shuffle_boards(pool[rng.integers(len(pool), size=batch)], rng)).long() - 1

    return clean
