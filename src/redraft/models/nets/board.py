"""The denoiser of a 9x9 board whose cells have noise levels of their own."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from redraft.models.nets.base import Net

AXES = (
    (3, 4),
    (1, 2),
    (2, 4),
    (5,),
)  # of a board (B, 3, 3, 3, 3, 9, C): what a row, column, box and cell sum over


class BoardNet(Net):
    """Predicts the clean cells of a board from cells at mixed noise levels.

    A cell is embedded, with its level, into nine slots of `width` channels, one for each digit that it may hold. The
    729 slots are the variables of Sudoku as an exact-cover problem: each stands in four constraints (one digit in a
    cell, each digit once in a row, column and box). `passes` times the same `layers` send messages along these
    constraints, with weights that are equal for all digits and all places, so that a rule is learned once. The heads
    read the slots after the last pass; in training the digit head reads them after each (deep supervision, as in
    Palm et al., "Recurrent relational networks", 2018).
    """

    def __init__(
        self,
        pixels: int = 64,
        width: int = 32,
        message: int = 8,
        hidden: int = 48,
        layers: int = 5,
        passes: int = 2,
        cell: int = 256,
        draw: int = 192,
    ) -> None:
        """Build the network.

        Args:
            pixels: values in a cell.
            width: channels of a slot.
            message: channels that a slot sends along each of its constraints.
            hidden: channels in which a slot thinks.
            layers: different layers.
            passes: how often they are applied in turn.
            cell: width of the network that embeds a cell.
            draw: width of the network that draws a cell.
        """
        super().__init__()
        self.config = {
            "pixels": pixels,
            "width": width,
            "message": message,
            "hidden": hidden,
            "layers": layers,
            "passes": passes,
            "cell": cell,
            "draw": draw,
        }
        self.passes = passes
        self.embed = nn.Sequential(nn.Linear(pixels + 16, cell), nn.SiLU(), nn.Linear(cell, 9 * width))
        self.layers = nn.ModuleList(_Layer(width, message, hidden) for _ in range(layers))
        self.digit = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 1))
        self.normed = nn.LayerNorm(9 * width)
        self.head = nn.Sequential(
            nn.Linear(pixels + 16 + 9 + 9 * width, draw),
            _Residual(draw),
            _Residual(draw),
            nn.LayerNorm(draw),
            nn.SiLU(),
            nn.Linear(draw, pixels + 1),
        )

    def forward(self, z: Tensor, t: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """One evaluation.

        Args:
            z: cells (B, 81, pixels), each at its own level of noise.
            t: levels (B, 81) in [0, 1].

        Returns:
            raw clean prediction (B, 81, pixels) before preconditioning, log variance (B, 81) of its error, and digit
            logits (B, 81, 9) after each pass (after the last only, unless training).
        """
        seen = torch.cat([z * (1 - t[..., None] ** 4), _level_features(t)], -1)
        given = self.embed(seen).unflatten(-1, (9, -1)).unflatten(1, (3, 3, 3, 3))
        slots, digits = given, []
        for i in range(self.passes):
            for layer in self.layers:
                slots = layer(slots)
            slots = slots + given
            if self.training or i == self.passes - 1:
                digits.append(self.digit(slots).squeeze(-1).flatten(1, 4))
        thought = self.normed(slots.flatten(1, 4).flatten(2))
        raw, log_variance = self.head(torch.cat([seen, digits[-1].softmax(-1), thought], -1)).split(
            [z.shape[-1], 1], -1
        )
        return raw, log_variance[..., 0], digits


class _Residual(nn.Module):
    """Two linear layers around a SiLU, beside a straight line."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.change = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = x + self.change(x)
        return changed


class _Layer(nn.Module):
    """Each slot hears the mean over its four constraints, then thinks; residual."""

    def __init__(self, width: int, message: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.say = nn.Linear(width, len(AXES) * message)
        self.think = nn.Linear(width + len(AXES) * message, hidden)
        self.out = nn.Linear(hidden, width)

    def forward(self, slots: Tensor) -> Tensor:
        normed = self.norm(slots)
        said = F.relu(self.say(normed)).chunk(len(AXES), -1)
        heard = [part.mean(axes, keepdim=True).expand_as(part) for part, axes in zip(said, AXES, strict=True)]
        change: Tensor = self.out(F.relu(self.think(torch.cat([normed, *heard], -1))))
        return slots + change


def _level_features(t: Tensor) -> Tensor:
    """Eight sines and eight cosines of the level, (B, 81, 16)."""
    angles = t[..., None] * torch.pi * torch.arange(1, 9, device=t.device) / 2
    return torch.cat([angles.sin(), angles.cos()], -1)
