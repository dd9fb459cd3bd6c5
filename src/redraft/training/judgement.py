"""How good a critic is: does it put wrong tokens before right ones, and do its probabilities come true."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BINS = 10


def auc(scores: Tensor, positive: Tensor) -> float:
    """P(a positive scores higher than a negative), ties counted half; NaN unless there are both.

    The statistic of Mann and Whitney over the numbers of positives and negatives.

    Args:
        scores: (N,).
        positive: (N,) bool.
    """
    _, place, counts = torch.unique(scores.double(), return_inverse=True, return_counts=True)
    rank = (counts.cumsum(0) - (counts - 1) / 2).double()[place]
    hits = int(positive.sum())
    pairs = hits * (len(positive) - hits)
    return float(rank[positive].sum() - hits * (hits + 1) / 2) / pairs if pairs else float("nan")


def auc_alike(scores: Tensor, positive: Tensor, kinds: Tensor) -> float:
    """P(a positive scores higher than a negative of the same kind), ties counted half; NaN if there is no such pair.

    It is not raised by knowing which kinds are often positive.

    Args:
        scores: (N,).
        positive: (N,) bool.
        kinds: (N,) int64.
    """
    ordered = pairs = 0.0
    for kind in torch.unique(kinds).tolist():
        here = kinds == kind
        hits = int(positive[here].sum())
        number = hits * (int(here.sum()) - hits)
        if number:
            pairs += number
            ordered += number * auc(scores[here], positive[here])
    return ordered / pairs if pairs else float("nan")


@dataclass(frozen=True)
class Bin:
    """Tokens whose predicted probability of being wrong is alike.

    Attributes:
        low: lower end of the bin of predictions.
        count: tokens in it.
        predicted: mean prediction, NaN without tokens.
        observed: share of them that are wrong, NaN without tokens.
    """

    low: float
    count: int
    predicted: float
    observed: float


def calibration(probabilities: Tensor, wrong: Tensor, bins: int = BINS) -> list[Bin]:
    """Predictions (N,) and outcomes (N,) in `bins` bins of equal width."""
    place = (probabilities * bins).long().clamp(0, bins - 1)
    chosen = [place == i for i in range(bins)]
    means = [(float(probabilities[here].double().mean()), float(wrong[here].double().mean())) for here in chosen]
    return [Bin(i / bins, int(here.sum()), *mean) for i, (here, mean) in enumerate(zip(chosen, means, strict=True))]


def calibration_error(bins: list[Bin]) -> float:
    """Expected calibration error (Guo et al. 2017): mean |predicted - observed| over bins, by their tokens."""
    total = sum(part.count for part in bins)
    return sum(part.count * abs(part.predicted - part.observed) for part in bins if part.count) / total


@dataclass(frozen=True)
class Judgement:
    """What a critic is worth on held-out tokens.

    Attributes:
        tokens: how many it was asked about.
        base_rate: share of them that are wrong.
        auc: over all of them.
        auc_alike: over pairs of equal tokens, which their frequency of errors does not tell apart.
        auc_redrawn: over those that the denoiser had just drawn.
        auc_surprise: the same by the denoiser's own -log p when it drew them, for comparison.
        levels: (lower, upper, base rate, AUC) for the sequences in each range of noise levels.
        bins: calibration of all predictions.
    """

    tokens: int
    base_rate: float
    auc: float
    auc_alike: float
    auc_redrawn: float
    auc_surprise: float
    levels: list[tuple[float, float, float, float]]
    bins: list[Bin]

    @classmethod
    def of(
        cls, logits: Tensor, wrong: Tensor, tokens: Tensor, redrawn: Tensor, surprise: Tensor, level: Tensor
    ) -> Judgement:
        """Judge logits (N,) against `wrong` (N,) bool.

        Args:
            logits: of the critic.
            wrong: the truth.
            tokens: ids (N,).
            redrawn: tokens (N,) that the denoiser had just drawn.
            surprise: -log p (N,) of those.
            level: of noise (N,), of each token's sequence.
        """
        edges = torch.linspace(0, 1, 6).tolist()
        levels = []
        for low, high in zip(edges, edges[1:], strict=False):
            here = (level > low) & (level <= high)
            levels.append((low, high, float(wrong[here].double().mean()), auc(logits[here], wrong[here])))
        return cls(
            tokens=len(logits),
            base_rate=float(wrong.double().mean()),
            auc=auc(logits, wrong),
            auc_alike=auc_alike(logits, wrong, tokens),
            auc_redrawn=auc(logits[redrawn], wrong[redrawn]),
            auc_surprise=auc(surprise[redrawn], wrong[redrawn]),
            levels=levels,
            bins=calibration(logits.sigmoid(), wrong),
        )

    @property
    def metrics(self) -> dict[str, float]:
        """The numbers in short, for config.json."""
        names = ("base_rate", "auc", "auc_alike", "auc_redrawn", "auc_surprise")
        shown = {name: getattr(self, name) for name in names} | {"ece": calibration_error(self.bins)}
        return {name: round(value, 4) for name, value in shown.items()}

    def markdown(self) -> str:
        """All of it, as Markdown."""
        levels = [f"| {low:.1f} to {high:.1f} | {rate:.3f} | {area:.3f} |" for low, high, rate, area in self.levels]
        bins = [
            f"| {part.low:.1f} to {part.low + 1 / len(self.bins):.1f} | {part.count} | {part.predicted:.3f} | "
            f"{part.observed:.3f} |"
            for part in self.bins
        ]
        return "\n".join(
            [
                f"{self.tokens:,} held-out tokens, of which {self.base_rate:.1%} are wrong.",
                "",
                f"- AUC over all: {self.auc:.3f}; among equal tokens: {self.auc_alike:.3f}",
                f"- AUC over those just drawn: {self.auc_redrawn:.3f}; the denoiser's own -log p of its draws, which "
                f"knows the masked state that they came from: {self.auc_surprise:.3f}",
                f"- expected calibration error, {len(self.bins)} bins: {calibration_error(self.bins):.4f}",
                "",
                "| level t | wrong | AUC |",
                "|---|---|---|",
                *levels,
                "",
                "| predicted | tokens | mean predicted | wrong |",
                "|---|---|---|---|",
                *bins,
            ]
        )
