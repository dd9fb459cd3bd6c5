"""The transformer of the token models: masked denoisers of lines and boards, and the autoregressive reference."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from redraft.core.errors import RedraftError, unknown
from redraft.models.nets.base import Net
from redraft.tasks.boards import UNITS

LAYOUTS = ("line", "board")
RELATIONS = 8  # of two cells: three bits say whether they share a row, a column and a box


class Transformer(Net):
    """Pre-norm transformer (Xiong et al. 2020) that reads tokens and gives logits for every position.

    A line has rotary positions (Su et al., "RoFormer", 2021), so that only distances count and any length will do. A
    board has 81 cells and no positions: each head of each block has a learned bias for what two cells share, which is
    all that the symmetries of Sudoku leave of a place. A board is thought about in `passes` times the same blocks.
    """

    def __init__(
        self,
        vocabulary: int,
        width: int = 160,
        depth: int = 4,
        heads: int = 5,
        causal: bool = False,
        layout: str = "line",
        passes: int = 1,
        hidden: int | None = None,
        edges: bool = False,
    ) -> None:
        """Build the network.

        Args:
            vocabulary: V, number of ids, the mask's included.
            width: channels D of a token; an even number for each head.
            depth: different blocks.
            heads: of attention in each block.
            causal: a token sees itself and those before it only.
            layout: 'line' or 'board'.
            passes: how often the blocks are applied in turn.
            hidden: channels of the feed-forward part; four times the width if not given.
            edges: mark the first and the last visible token. Distances alone tell nothing of where a line of masks
                begins, so a masked denoiser of lines needs it; an autoregressive one has its first token.

        Raises:
            RedraftError: unknown layout, or a width that the heads cannot share.
        """
        super().__init__()
        if layout not in LAYOUTS:
            raise unknown("layout", layout, LAYOUTS)
        if width % (2 * heads):
            raise RedraftError(f"{heads} heads cannot have an even share each of {width} channels")
        self.config = {
            "vocabulary": vocabulary,
            "width": width,
            "depth": depth,
            "heads": heads,
            "causal": causal,
            "layout": layout,
            "passes": passes,
            "hidden": hidden,
            "edges": edges,
        }
        self.causal, self.layout, self.passes, self.share = causal, layout, passes, width // heads
        self.embed = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.embed.weight, std=0.5)
        self.edge = nn.Parameter(torch.zeros(2, width)) if edges else None
        self.blocks = nn.ModuleList(
            _Block(width, heads, hidden or 4 * width, layout == "board") for _ in range(depth)
        )  # fmt: skip
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary)
        self.register_buffer("relations", _relations(), persistent=False)

    def forward(self, tokens: Tensor, visible: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One evaluation.

        Args:
            tokens: ids (B, R).
            visible: positions (B, R) that are not padding; None means all. Padding before or after a line changes
                nothing at its visible positions.

        Returns:
            logits (B, R, V), and the features (B, R, D) that the last linear layer reads.
        """
        features = self.features_at(tokens, self.passes * len(self.blocks), visible)
        return self.head(features), features

    def features_at(self, tokens: Tensor, blocks: int, visible: Tensor | None = None) -> Tensor:
        """Normalised features (B, R, D) after the first `blocks` blocks, counted over all passes; the rest is not run.

        Raises:
            RedraftError: there are fewer blocks.
        """
        for number, x in enumerate(self._stream(tokens, visible), 1):
            if number == blocks:
                features: Tensor = self.norm(x)
                return features
        raise RedraftError(f"no features after {blocks} blocks: the network has {self.passes * len(self.blocks)}")

    def pass_logits(self, tokens: Tensor, visible: Tensor | None = None) -> list[Tensor]:
        """Logits (B, R, V) after each pass, for deep supervision in training."""
        ends = list(self._stream(tokens, visible))[len(self.blocks) - 1 :: len(self.blocks)]
        return [self.head(self.norm(x)) for x in ends]

    def _stream(self, tokens: Tensor, visible: Tensor | None) -> Iterator[Tensor]:
        """The residual stream (B, R, D) after each block of each pass."""
        given = self.embed(tokens)
        if self.edge is not None:
            given = given + _edges(tokens, visible).to(given) @ self.edge
        seen = self._seen(tokens, visible)
        turns = None if self.layout == "board" else _turns(tokens.shape[1], self.share, given)
        x = torch.zeros_like(given)
        for _ in range(self.passes):
            x = x + given
            for block in self.blocks:
                x = block(x, seen, turns, self.relations)
                yield x

    def _seen(self, tokens: Tensor, visible: Tensor | None) -> Tensor | None:
        """Which tokens each token attends to (1 or B, 1, R, R); None means all."""
        size = tokens.shape[1]
        if visible is None and not self.causal:
            return None
        seen = torch.ones(1, 1, size, size, dtype=torch.bool, device=tokens.device)
        if self.causal:
            seen = seen.tril()
        if visible is None:
            return seen
        itself = torch.eye(size, dtype=torch.bool, device=tokens.device)  # padding that sees nothing would be NaN
        return seen & visible[:, None, None, :] | itself


class _Block(nn.Module):
    """Attention, then a feed-forward network, both beside a straight line."""

    def __init__(self, width: int, heads: int, hidden: int, board: bool) -> None:
        super().__init__()
        self.heads, self.share = heads, width // heads
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.ask = nn.Linear(width, 3 * width)
        self.hear = nn.Linear(width, width)
        self.think = nn.Linear(width, hidden)
        self.out = nn.Linear(hidden, width)
        for last in (self.hear, self.out):
            nn.init.normal_(last.weight, std=0.02)
            nn.init.zeros_(last.bias)
        self.bias = nn.Parameter(_first_bias(heads)) if board else None

    def forward(self, x: Tensor, seen: Tensor | None, turns: Tensor | None, relations: Tensor) -> Tensor:
        shape = (*x.shape[:2], 3, self.heads, self.share)
        query, key, value = self.ask(self.before(x)).view(shape).permute(2, 0, 3, 1, 4)
        if turns is not None:
            query, key = _turned(query, turns), _turned(key, turns)
        mask = seen
        if self.bias is not None:
            mask = self.bias[:, relations][None]
            mask = mask if seen is None else mask.masked_fill(~seen, -torch.inf)
        heard = F.scaled_dot_product_attention(query, key, value, mask)
        x = x + self.hear(heard.transpose(1, 2).flatten(2))
        changed: Tensor = x + self.out(F.gelu(self.think(self.after(x)), approximate="tanh"))
        return changed


def _edges(tokens: Tensor, visible: Tensor | None) -> Tensor:
    """Whether each token is the first, and the last, that is visible (B, R, 2)."""
    shown = torch.ones_like(tokens, dtype=torch.bool) if visible is None else visible
    first = shown & (shown.cumsum(1) == 1)
    last = shown & (shown.flip(1).cumsum(1).flip(1) == 1)
    return torch.stack([first, last], -1)


def _turns(size: int, share: int, like: Tensor) -> Tensor:
    """Cosines and sines (2, R, share / 2) of the angles by which each position turns its channel pairs."""
    pace = 1e3 ** (-torch.arange(0, share, 2, device=like.device) / share)
    angles = torch.arange(size, device=like.device)[:, None] * pace
    return torch.stack([angles.cos(), angles.sin()])


def _turned(x: Tensor, turns: Tensor) -> Tensor:
    """Rotate the channel pairs of `x` (B, H, R, share)."""
    cos, sin = turns.to(x.dtype)
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


def _relations() -> Tensor:
    """What any two cells share (81, 81): 1 for the row, 2 for the column, 4 for the box, summed."""
    member = torch.from_numpy((UNITS[:, :, None] == np.arange(81)).any(1)).view(3, 9, 81).float()
    shared = (member.mT @ member > 0).long()
    return shared[0] + 2 * shared[1] + 4 * shared[2]


def _first_bias(heads: int) -> Tensor:
    """Biases (H, 8) that heads begin with: they look along rows, columns and boxes in turn, as the rules do."""
    relation, head = torch.arange(RELATIONS), torch.arange(heads)
    along = relation[None] >> (head[:, None] % 3) & 1
    return 4.0 * along * (relation != RELATIONS - 1)
