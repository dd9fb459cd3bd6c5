"""The network of the model `digits`: pictures of one digit, given its label."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from redraft.models.nets.base import Net

CONDITION = 64  # channels of what is known of a row: its level of noise and its label


class DigitNet(Net):
    """Residual layers over all pixels at once; level and label scale and shift what each layer reads (FiLM).

    Perez et al., "FiLM: visual reasoning with a general conditioning layer", 2018. Without convolutions a row costs
    some fifty thousand multiplications, so that searches over thousands of samples run on a processor.
    """

    def __init__(self, pixels: int = 64, width: int = 64, layers: int = 3, classes: int = 10) -> None:
        """Build the network.

        Args:
            pixels: values of a picture.
            width: channels of each layer.
            layers: how many.
            classes: labels; the number after the last one stands for no label.
        """
        super().__init__()
        self.config = {"pixels": pixels, "width": width, "layers": layers, "classes": classes}
        self.label = nn.Embedding(classes + 1, CONDITION)
        self.distorted = nn.Embedding(2, CONDITION)
        self.level = nn.Sequential(nn.Linear(16, CONDITION), nn.SiLU(), nn.Linear(CONDITION, CONDITION))
        self.read = nn.Linear(pixels, width)
        self.layers = nn.ModuleList(_Layer(width) for _ in range(layers))
        self.draw = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, pixels))

    def forward(self, z: Tensor, t: Tensor, label: Tensor, distorted: Tensor | None = None) -> Tensor:
        """One evaluation.

        Args:
            z: pictures (B, pixels) at their levels of noise.
            t: levels (B,) in [0, 1].
            label: digits (B,), or `classes` for none.
            distorted: rows (B,) of training whose pictures were distorted; none are, if not given. To tell the network
                keeps the distortions out of what it draws (Karras et al. 2022).

        Returns:
            raw clean prediction (B, pixels), before preconditioning.
        """
        angles = t[:, None] * torch.pi * torch.arange(1, 9, device=t.device) / 2
        kind = torch.zeros_like(label) if distorted is None else distorted.long()
        known = self.label(label) + self.distorted(kind) + self.level(torch.cat([angles.sin(), angles.cos()], 1))
        h, known = self.read(z), F.silu(known)
        for layer in self.layers:
            h = layer(h, known)
        raw: Tensor = self.draw(h)
        return raw


class _Layer(nn.Module):
    """Two linear maps around a SiLU, beside a straight line, on what level and label have scaled and shifted."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.tell = nn.Linear(CONDITION, 2 * width)
        self.think = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, h: Tensor, known: Tensor) -> Tensor:
        scale, shift = self.tell(known).chunk(2, 1)
        change: Tensor = self.out(F.silu(self.think(self.norm(h) * (1 + scale) + shift)))
        return h + change
