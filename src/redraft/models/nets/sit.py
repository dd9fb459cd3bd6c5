"""The network of SiT: a transformer over patches of latents, told the time and a class by adaptive layer norms.

Ma, Goldstein, Albergo, Boffi, Vanden-Eijnden, Xie, "SiT: Exploring flow and diffusion-based generative models with
scalable interpolant transformers", 2024, https://arxiv.org/abs/2401.08740, on the blocks of Peebles, Xie, "Scalable
diffusion models with transformers" (DiT), 2023. Names of weights are those of the released checkpoints
(https://github.com/willisma/SiT).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import log

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from redraft.core.errors import RedraftError
from redraft.models.nets.base import Net

FREQUENCIES = 256
HEADS = {384: 6, 768: 12, 1024: 16, 1152: 16}
"""Heads of the released sizes S, B, L and XL, by width: the one size that no weight's shape tells."""


class SiT(Net):
    """Velocity of latents (B, C, S, S) at times (B,) for classes (B,)."""

    def __init__(
        self, side: int, patch: int, channels: int, out_channels: int, width: int, depth: int, heads: int, hidden: int,
        classes: int,
    ) -> None:  # fmt: skip
        """Build the network.

        Args:
            side: S of the latents.
            patch: side of a patch.
            channels: C of the latents.
            out_channels: C, or 2 C where the network also learned a variance.
            width: channels D of a patch.
            depth: blocks.
            heads: of attention.
            hidden: channels of the feed-forward part.
            classes: rows of the table of classes, the one for no class included.
        """
        super().__init__()
        self.side, self.patch, self.channels, self.out_channels = side, patch, channels, out_channels
        self.x_embedder = nn.ModuleDict({"proj": nn.Conv2d(channels, width, patch, patch)})
        self.t_embedder = nn.ModuleDict({"mlp": _mlp(FREQUENCIES, width)})
        self.y_embedder = nn.ModuleDict({"embedding_table": nn.Embedding(classes, width)})
        self.pos_embed = nn.Parameter(torch.zeros(1, (side // patch) ** 2, width), requires_grad=False)
        self.blocks = nn.ModuleList(_Block(width, heads, hidden) for _ in range(depth))
        self.final_layer = nn.ModuleDict(
            {"linear": nn.Linear(width, patch**2 * out_channels), "adaLN_modulation": _modulation(width, 2)}
        )

    def forward(self, x: Tensor, time: Tensor, classes: Tensor) -> Tensor:
        """Velocity (B, C, S, S); the variance that it may have learned is left out."""
        tokens = self.x_embedder["proj"](x).flatten(2).mT + self.pos_embed
        told = self.t_embedder["mlp"](waves(time).to(x.dtype)) + self.y_embedder["embedding_table"](classes)
        for block in self.blocks:
            tokens = block(tokens, told)
        shift, scale = self.final_layer["adaLN_modulation"](told)[:, None].chunk(2, -1)
        pieces = self.final_layer["linear"](_norm(tokens) * (1 + scale) + shift)
        velocity: Tensor = self._whole(pieces)[:, : self.channels]
        return velocity

    def _whole(self, pieces: Tensor) -> Tensor:
        """Latents (B, C', S, S) of their patches (B, (S / p)^2, p^2 C')."""
        rows = self.side // self.patch
        grid = pieces.view(len(pieces), rows, rows, self.patch, self.patch, self.out_channels)
        return grid.permute(0, 5, 1, 3, 2, 4).reshape(len(pieces), self.out_channels, self.side, self.side)


class _Block(nn.Module):
    """Attention and a feed-forward part, each shifted, scaled and gated by what the network is told."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, hidden), "fc2": nn.Linear(hidden, width)})
        self.adaLN_modulation = _modulation(width, 6)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        shift, scale, gate, shift_2, scale_2, gate_2 = self.adaLN_modulation(told)[:, None].chunk(6, -1)
        x = x + gate * self._attended(_norm(x) * (1 + scale) + shift)
        y = self.mlp["fc1"](_norm(x) * (1 + scale_2) + shift_2)
        both: Tensor = x + gate_2 * self.mlp["fc2"](F.gelu(y, approximate="tanh"))
        return both

    def _attended(self, x: Tensor) -> Tensor:
        q, k, v = self.attn["qkv"](x).view(*x.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y: Tensor = self.attn["proj"](F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return y


def waves(time: Tensor) -> Tensor:
    """Cosines and sines (B, 256) of times (B,), at frequencies from 1 down to almost 1 / 10000."""
    half = FREQUENCIES // 2
    rates = torch.exp(-log(10000) * torch.arange(half, dtype=torch.float32, device=time.device) / half)
    angles = time.float()[:, None] * rates
    return torch.cat([angles.cos(), angles.sin()], 1)


def sizes(weights: Mapping[str, Tensor], heads: int | None = None) -> dict[str, int]:
    """The arguments of `SiT` that a checkpoint's shapes tell.

    Args:
        weights: by name.
        heads: of attention, if the width is none of the released ones.

    Raises:
        RedraftError: they are no SiT's, or the number of heads is not known.
    """
    try:
        width, channels, patch, _ = weights["x_embedder.proj.weight"].shape
        places, classes = weights["pos_embed"].shape[1], len(weights["y_embedder.embedding_table.weight"])
        hidden, out = len(weights["blocks.0.mlp.fc1.weight"]), len(weights["final_layer.linear.weight"])
    except (KeyError, ValueError) as error:
        raise RedraftError(f"these are not the weights of a SiT: {error} is missing or has another shape") from error
    heads = heads or HEADS.get(width)
    if not heads or width % heads:
        raise RedraftError(f"a SiT of width {width} is not of a released size: give heads=..., which divides the width")
    depth = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))
    return {
        "side": round(places**0.5) * patch, "patch": patch, "channels": channels, "out_channels": out // patch**2,
        "width": width, "depth": depth, "heads": heads, "hidden": hidden, "classes": classes,
    }  # fmt: skip


def _mlp(inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width))


def _modulation(width: int, number: int) -> nn.Sequential:
    return nn.Sequential(nn.SiLU(), nn.Linear(width, number * width))


def _norm(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)
