"""The token models that ship: masked denoisers of Python lines and of Sudoku boards, and the judge of Python lines."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from redraft.core.errors import RedraftError
from redraft.core.state import State
from redraft.models import characters
from redraft.models.critic import load_critics
from redraft.models.nets.transformer import Transformer
from redraft.models.tokens import Convention, Forward, TokenModel
from redraft.models.weights import SHIPPED, digest, load_network, pick_device
from redraft.tasks import sudoku_tokens
from redraft.tasks.boards import PEERS

CPU_ROWS = 16  # rows at a time that fit a processor's cache
ROWS = 64  # sequences at a time through the judge


class PythonModel:
    """Lines of Python, character by character; samples are ids (B, 64), decoded by `models.characters.decode`."""

    @staticmethod
    def load(folder: Path, device: str | None = None, compile: bool = False) -> TokenModel:
        """The model in a folder that `redraft train python` wrote."""
        convention = Convention(characters.VOCABULARY, characters.MASK)
        return _load(folder, device, compile, convention, length=characters.LENGTH, codec=characters.decode)


class SudokuTokensModel:
    """Sudoku boards of 81 digits; samples are ids (B, 81), 0..8 for the digits 1..9."""

    @staticmethod
    def load(folder: Path, device: str | None = None, compile: bool = False) -> TokenModel:
        """The model in a folder that `redraft train sudoku-tokens` wrote."""
        convention = Convention(sudoku_tokens.VOCABULARY, sudoku_tokens.MASK)
        graph = torch.from_numpy(PEERS)
        return _load(folder, device, compile, convention, length=81, codec=sudoku_tokens.decode, graph=graph)


def _load(folder: Path, device: str | None, compile: bool, convention: Convention, **more: Any) -> TokenModel:
    """The transformer in a folder as a model, with the critics that lie in it."""
    net = load_network(Transformer, folder).to(pick_device(device))
    if net.config["vocabulary"] != convention.vocabulary:
        found, wanted = net.config["vocabulary"], convention.vocabulary
        raise RedraftError(f"{folder} has a vocabulary of {found} tokens, where {wanted} are asked for")
    return TokenModel(
        name=folder.name,
        forward=transformer_forward(net, compile),
        convention=convention,
        features=True,
        critics=dict(load_critics(folder, device)),
        net=net,
        digest=digest(folder),
        **more,
    )


def transformer_forward(net: Transformer, compile: bool = False) -> Forward:
    """How a `TokenModel` calls a transformer: `cond["visible"]` (B, R), where there is one, hides padding.

    Rows go through a processor in small parts, which changes no result.
    """
    call = torch.compile(net, dynamic=True) if compile else net

    def forward(x: Tensor, state: State) -> tuple[Tensor, Tensor | None]:
        visible = state.cond.get("visible")
        size = CPU_ROWS if x.device.type == "cpu" else max(1, len(x))
        rows = torch.split(x, size)
        masks = [None] * len(rows) if visible is None else torch.split(visible, size)
        parts = [call(*pair) for pair in zip(rows, masks, strict=True)]
        logits, features = (torch.cat(values) for values in zip(*parts, strict=True))
        return logits, features

    return forward


class Reference:
    """The autoregressive model of Python lines: likelihoods and features for the metrics of the task `python`."""

    def __init__(self, net: Transformer) -> None:
        """Wrap a causal transformer over the task's vocabulary; its device is the judge's."""
        if not net.causal:
            raise RedraftError("a reference must be causal: this network sees what comes after")
        self.net = net

    def nll(self, samples: Tensor) -> Tensor:
        """Nats a character (P,), float64, of the text of samples (P, 64) and the PAD that ends it; NaN for no text."""
        return self._by_length(samples, self._nll)

    def features(self, samples: Tensor) -> Tensor:
        """Features (P, D) averaged over the text of samples (P, 64) and the PAD that ends it."""
        return self._by_length(samples, self._features)

    def _by_length(self, samples: Tensor, judged: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """`judged` of samples (P, 64), few at a time, those of like lengths together: what comes after is not seen."""
        tokens = samples.to(next(self.net.parameters()).device)
        lengths = until_pad(tokens).sum(1)
        order = lengths.argsort(stable=True)
        parts = []
        for rows in torch.split(order, ROWS):
            seen = tokens[rows, : int(lengths[rows[-1]])]
            parts.append(judged(seen, until_pad(seen)))
        return torch.cat(parts)[order.argsort()].cpu()

    def _nll(self, tokens: Tensor, counted: Tensor) -> Tensor:
        logits, _ = self.net(shifted(tokens))
        each = F.cross_entropy(logits.transpose(1, 2), tokens, reduction="none").double()
        mean = (each * counted).sum(1) / counted.sum(1)
        return mean.masked_fill(tokens[:, 0] == characters.PAD, torch.nan)

    def _features(self, tokens: Tensor, counted: Tensor) -> Tensor:
        features: Tensor = self.net(shifted(tokens))[1]
        return (features * counted[..., None]).sum(1) / counted.sum(1, keepdim=True)


def shifted(tokens: Tensor) -> Tensor:
    """What an autoregressive network reads (B, R) to predict `tokens` (B, R): the mask's id, then all but the last."""
    return F.pad(tokens[:, :-1], (1, 0), value=characters.MASK)


def until_pad(tokens: Tensor) -> Tensor:
    """Positions (B, R) of the text and of the PAD that ends it."""
    pads = (tokens == characters.PAD).long()
    return (pads.cumsum(1) - pads).eq(0)


@cache
def load_reference(folder: str | None = None, device: str | None = None) -> Reference:
    """The judge in a folder that `redraft train python-reference` wrote; the one that ships if none is given.

    Raises:
        RedraftError: there is no sound model in the folder.
    """
    path = Path(folder) if folder else SHIPPED / "python-reference"
    return Reference(load_network(Transformer, path).to(pick_device(device)))
