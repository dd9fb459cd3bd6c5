"""Draws of tokens from logits, at chosen positions only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from redraft.core.fields import AtLeast0, Part, checked
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

    temperature: AtLeast0 = 1.0
    top_p: Part | None = None
    nucleus: Literal["keep", "drop"] = "keep"
    dtype: Literal["float64", "float32"] = "float64"

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)

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


def entropy(prediction: Prediction, where: Tensor, draw: Draw | None = None) -> Tensor:
    """Entropy (A,) in nats of the network's distribution at each of the A positions in `where` (B, R).

    With `draw`, of the distribution that it shapes.
    """

    def of(logp: Tensor) -> Tensor:
        return -(logp.exp() * logp.clamp_min(-1e4)).sum(-1)  # 0 log 0 is 0

    return _measured(of, prediction, where, draw)


def margin(prediction: Prediction, where: Tensor, draw: Draw | None = None) -> Tensor:
    """Difference (A,) of the two highest probabilities at each of the A positions in `where` (B, R).

    With `draw`, of the distribution that it shapes.
    """

    def of(logp: Tensor) -> Tensor:
        best = logp.topk(2, -1).values.exp()
        return best[:, 0] - best[:, 1]

    return _measured(of, prediction, where, draw)


def surprise(prediction: Prediction, where: Tensor, tokens: Tensor, without: tuple[int, ...] = ()) -> Tensor:
    """-log p (A,) of `tokens` (B, R) at each of the A positions in `where` (B, R).

    Of the distribution over the ids that are not in `without`; those themselves have infinity.
    """
    wanted = iter(torch.split(tokens[where], _size(prediction)))

    def of(logp: Tensor) -> Tensor:
        if without:
            logp[:, list(without)] = -torch.inf
            logp = logp.log_softmax(-1)
        return -logp.gather(-1, next(wanted)[:, None])[:, 0]

    return _measured(of, prediction, where)


def peaks(prediction: Prediction, where: Tensor, tokens: Tensor, temperature: float, streams: Streams) -> Tensor:
    """The largest of log softmax(logits / temperature + Gumbel noise) (A,) at the A positions in `where` (B, R).

    Args:
        prediction: of the network.
        where: positions.
        tokens: ids (B, R) that the largest is to be of: the noise is then one that draws this token; -1 is any.
        temperature: 0 is no noise, and no temperature.
        streams: of the noise.
    """
    size = _size(prediction)
    parts = zip(torch.split(tokens[where], size), _parts(where, size), strict=True)

    def of(logp: Tensor) -> Tensor:
        token, here = next(parts)
        if not temperature:
            return logp.amax(-1)
        noise = streams.gumbel((where.shape[1], logp.shape[-1]), here)
        noisy = (logp / temperature).log_softmax(-1) + noise
        wanted = token[:, None].clamp_min(0)
        # the largest is a standard Gumbel number whatever its token, and the others are Gumbel numbers below it
        top = noise.gather(-1, wanted)
        below = (-torch.logaddexp(-top, -noisy)).scatter(-1, wanted, top)
        return torch.where(token[:, None] >= 0, below, noisy).log_softmax(-1).amax(-1)

    return _measured(of, prediction, where)


def _parts(where: Tensor, size: int) -> Iterator[Tensor]:
    """Masks (B, R) of the positions in `where` (B, R), `size` of them at a time."""
    place = (where.flatten().cumsum(0) - 1).view(where.shape)
    for start in range(0, int(where.sum()), size):
        yield where & (place >= start) & (place < start + size)


def _measured(
    measure: Callable[[Tensor], Tensor], prediction: Prediction, where: Tensor, draw: Draw | None = None
) -> Tensor:
    """A measure of the log probabilities at `where`, some positions at a time."""
    assert prediction.logits is not None
    row, region = where.nonzero(as_tuple=True)
    size = _size(prediction)
    parts = [
        measure(_log_probabilities(prediction.logits[row[i : i + size], region[i : i + size]].double(), draw))
        for i in range(0, len(row), size)
    ]
    return torch.cat(parts) if parts else row.double()


def _log_probabilities(logits: Tensor, draw: Draw | None) -> Tensor:
    if draw is None:
        return logits.log_softmax(-1)
    weights = draw.weights(logits)
    return (weights / weights.sum(-1, keepdim=True)).log()


def _size(prediction: Prediction) -> int:
    assert prediction.logits is not None
    return max(1, CHUNK // prediction.logits.shape[-1])
