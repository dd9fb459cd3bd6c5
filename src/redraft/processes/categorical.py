"""Draws of tokens from logits, at chosen positions only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from redraft.core.errors import RedraftError
from redraft.core.state import Prediction
from redraft.core.streams import Streams

CHUNK = 2**22  # probabilities at a time: they fit a processor's cache or nearly so, and bound the memory


@dataclass(frozen=True)
class Drawn:
    """Tokens, and how likely they were.

    Attributes:
        tokens: ids (A,), int64.
        logp: log probability (A,) of each under the network's own distribution.
        shaped: log probability (A,) of each under the distribution that `Draw.weights` shapes of it.
    """

    tokens: Tensor
    logp: Tensor
    shaped: Tensor


@dataclass(frozen=True)
class Draw:
    """How tokens are drawn.

    One uniform number a position, inverted through the cumulative probabilities: the law of the Gumbel-max trick, but
    no noise for words that are not drawn, and in float64 without the lowered temperature of truncated float32 noise
    (Zheng et al., "Masked diffusion models are secretly time-agnostic masked models and exploit inaccurate categorical
    sampling", 2024).

    Attributes:
        temperature: of the softmax; 0 takes the likeliest token.
        top_p: share of the probability that is kept, the likeliest tokens first; None keeps all.
        nucleus: 'keep' also keeps the token that crosses `top_p` (Holtzman et al. 2020; transformers, diffusers),
            'drop' does not, though always the first (MDLM, ReMDM, G-Star).
        dtype: of the probabilities; float32 is less exact and quicker.
    """

    temperature: float = 1.0
    top_p: float | None = None
    nucleus: Literal["keep", "drop"] = "keep"
    dtype: Literal["float64", "float32"] = "float64"

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        if self.temperature < 0:
            raise RedraftError(f"temperature is {self.temperature}: it must be 0 or more")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise RedraftError(f"top_p is {self.top_p}: it must lie in (0, 1], or be None")
        if self.nucleus not in ("keep", "drop"):
            raise RedraftError(f"nucleus is {self.nucleus!r}: use 'keep' or 'drop'")
        if self.dtype not in ("float64", "float32"):
            raise RedraftError(f"dtype is {self.dtype!r}: use 'float64' or 'float32'")

    def __call__(self, prediction: Prediction, where: Tensor, streams: Streams) -> Drawn:
        """A token for each of the A positions in `where` (B, R), row by row."""
        assert prediction.logits is not None
        row, region = where.nonzero(as_tuple=True)
        uniform = streams.uniform(where.shape[1:], where) if self.temperature else torch.zeros(len(row))
        size = _size(prediction)
        parts = [
            self._draw(prediction.logits[row[i : i + size], region[i : i + size]], uniform[i : i + size])
            for i in range(0, len(row), size)
        ]
        if not parts:
            return Drawn(row, uniform, uniform)
        return Drawn(*(torch.cat(values) for values in zip(*parts, strict=True)))

    def weights(self, logits: Tensor) -> Tensor:
        """What tokens are drawn in proportion to (A, V), of `logits` (A, V): after the temperature, within `top_p`.

        At temperature 0, where a draw is the likeliest token, they are those of temperature 1, as Dream ranks then.
        """
        weights = (logits / (self.temperature or 1.0)).softmax(-1)
        return nucleus(weights, self.top_p, self.nucleus) if self.top_p and self.top_p < 1 else weights

    def _draw(self, logits: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = logits.to(getattr(torch, self.dtype))
        if self.temperature == 0 and (self.top_p or 1) == 1:  # nothing is shaped
            tokens = logits.argmax(-1)
            logp = logits.gather(-1, tokens[:, None])[:, 0] - logits.logsumexp(-1)
            return tokens, logp, logp
        weights = self.weights(logits)
        tokens = _inverted(weights, uniform) if self.temperature else logits.argmax(-1, keepdim=True)
        logp = logits.gather(-1, tokens) - logits.logsumexp(-1, keepdim=True)
        shaped = (weights.gather(-1, tokens) / weights.sum(-1, keepdim=True)).log()
        return tokens[:, 0], logp[:, 0], shaped[:, 0]


def _inverted(weights: Tensor, uniform: Tensor) -> Tensor:
    """The words (A, 1) at which the cumulative `weights` (A, V) pass the share `uniform` (A,) of their sum."""
    total = weights.cumsum(-1)
    end = total[:, -1:]
    below = end.nextafter(torch.zeros_like(end))  # where rounding gave the end itself, a word of weight 0 came
    target = torch.minimum(uniform.to(total)[:, None] * end, below)
    return torch.searchsorted(total, target, right=True)


def nucleus(probabilities: Tensor, top_p: float, convention: str) -> Tensor:
    """`probabilities` (A, V) with all but the likeliest at 0, not normalised; `convention` as in `Draw`."""
    ordered, index = probabilities.sort(dim=-1, descending=True, stable=True)
    total = ordered.cumsum(-1)
    out = total - ordered >= top_p if convention == "keep" else total > top_p
    out[:, 0] = False
    return torch.zeros_like(ordered).scatter(-1, index, ordered.masked_fill(out, 0))


def likeliest(logits: Tensor, where: Tensor) -> Tensor:
    """The likeliest token (A,) at each of the A positions in `where` (B, R) of logits (B, R, V)."""
    row, region = where.nonzero(as_tuple=True)
    pairs = zip(*(torch.split(index, max(1, CHUNK // logits.shape[-1])) for index in (row, region)), strict=True)
    return torch.cat([logits[rows, regions].argmax(-1) for rows, regions in pairs])


def entropy(prediction: Prediction, where: Tensor) -> Tensor:
    """Entropy (A,) in nats of the network's distribution at each of the A positions in `where` (B, R)."""

    def of(logp: Tensor) -> Tensor:
        return -(logp.exp() * logp.clamp_min(-1e4)).sum(-1)  # 0 log 0 is 0

    return _measured(of, prediction, where)


def margin(prediction: Prediction, where: Tensor) -> Tensor:
    """Difference (A,) of the two highest probabilities at each of the A positions in `where` (B, R)."""

    def of(logp: Tensor) -> Tensor:
        best = logp.topk(2, -1).values.exp()
        return best[:, 0] - best[:, 1]

    return _measured(of, prediction, where)


def surprise(prediction: Prediction, where: Tensor, tokens: Tensor) -> Tensor:
    """-log p (A,) of `tokens` (B, R) at each of the A positions in `where` (B, R)."""
    wanted = iter(torch.split(tokens[where], _size(prediction)))
    return _measured(lambda logp: -logp.gather(-1, next(wanted)[:, None])[:, 0], prediction, where)


def _measured(measure: Callable[[Tensor], Tensor], prediction: Prediction, where: Tensor) -> Tensor:
    """A measure of the log probabilities at `where`, some positions at a time."""
    assert prediction.logits is not None
    row, region = where.nonzero(as_tuple=True)
    size = _size(prediction)
    parts = [
        measure(prediction.logits[row[i : i + size], region[i : i + size]].double().log_softmax(-1))
        for i in range(0, len(row), size)
    ]
    return torch.cat(parts) if parts else row.double()


def _size(prediction: Prediction) -> int:
    assert prediction.logits is not None
    return max(1, CHUNK // prediction.logits.shape[-1])
