"""The reference model of the `sudoku` task: a board of handwritten digits with a noise level for each cell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from redraft.core.content import content
from redraft.core.model import outlined
from redraft.core.state import Prediction, State, expand
from redraft.models.nets.board import BoardNet
from redraft.models.weights import digest, load_network, pick_device
from redraft.processes.flow import RectifiedFlow
from redraft.tasks.boards import PEERS

DATA_STD = 0.75
CPU_ROWS = 16  # rows at a time that fit a processor's cache: 1.5 times faster than 64


class SudokuModel:
    """Handwritten Sudoku boards with a noise level for each cell; a `BoardNet` under rectified flow.

    Samples are boards of pictures (B, 81, side, side) in [-1, 1].
    """

    offers = frozenset({"regions", "uncertainty", "graph", "gradient"})
    shows = "boards"

    def __init__(self, net: BoardNet, name: str = "sudoku", digest: str | None = None) -> None:
        """Wrap a network; its device is the model's, and `digest` tells its weights apart."""
        self.forward: Callable[..., tuple[Tensor, ...]] = net
        side = round(net.config["pixels"] ** 0.5)
        self.net, self.name, self.process = net, name, RectifiedFlow()
        self.shape: tuple[int, ...] = (81, side, side)
        self.graph: Tensor | None = torch.from_numpy(PEERS)
        self.digest = digest

    @classmethod
    def load(cls, folder: Path, device: str | None = None, compile: bool = False) -> SudokuModel:
        """The model in a folder that `redraft train sudoku` wrote."""
        net = load_network(BoardNet, folder).to(pick_device(device))
        model = cls(net, folder.name, digest(folder))
        if compile:
            model.forward = torch.compile(net, dynamic=True)
        return model

    def __repr__(self) -> str:
        """Class, name and offers."""
        return outlined(self)

    @property
    def mark(self) -> str:
        """Tells weights and graph apart."""
        return content(self.net, self.graph)

    def predict(self, state: State) -> Prediction:
        """One network evaluation for each row; uncertainty is the predicted RMS error of a cell's clean values."""
        z = state.x.flatten(2)
        size = CPU_ROWS if z.device.type == "cpu" else len(z)
        parts = [self.forward(*rows)[:2] for rows in zip(torch.split(z, size), torch.split(state.t, size), strict=True)]
        raw, log_variance = (torch.cat(values) for values in zip(*parts, strict=True))
        skip, out = preconditioning(state.t)
        clean = expand(skip, z) * z + expand(out, z) * raw
        return Prediction(clean.view_as(state.x), uncertainty=out * (log_variance / 2).exp())

    def decode(self, x: Tensor) -> Tensor:
        """Samples are the clean values themselves."""
        return x.clamp(-1, 1)

    def encode(self, samples: Tensor) -> Tensor:
        """Clean values are the samples themselves."""
        return samples


def preconditioning(t: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (skip, out) of z and of the network in the clean prediction, after Karras et al. 2022.

    For z = (1 - t) x + t e and data of standard deviation s: skip = (1 - t) s^2 / v and out = t s / sqrt(v) with
    v = (1 - t)^2 s^2 + t^2, the best linear guess and its error.
    """
    variance = (1 - t) ** 2 * DATA_STD**2 + t**2
    return (1 - t) * DATA_STD**2 / variance, t * DATA_STD / variance.sqrt()
