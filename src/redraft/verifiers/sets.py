"""What many samples are worth together: distances to a reference, diversity; and the oracles that search for them.

    network = Features("facebook/dinov2-base")        or inception(), or any pictures (N, 3, H, W) -> (N, D)
    reference = Statistics.of(features_of(network, pictures))
    frechet_distance(features_of(network, result.samples), reference)

Everything is computed in float64. Numbers of few samples are biased (Chong & Forsyth 2020), so compare equal counts;
and they depend on the network and on how it resizes, so compare those of one network.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from math import log, pi
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from redraft.core.errors import RedraftError
from redraft.core.fields import Count, checked
from redraft.core.files import regular
from redraft.core.task import Problems
from redraft.models.weights import pick_device
from redraft.verifiers.encoders import classes_of, per_frame, pixels, unchecked_pixels

Network = Callable[[Tensor], Tensor]
"""Features (N, D), or logits (N, classes), of pictures (N, 3, H, W) in [0, 1]."""


def features_of(network: Network, samples: Tensor, rows: int = 64) -> Tensor:
    """Features (N, D), float64 on the CPU, of pictures (N, 3, H, W), `rows` at a time."""
    with torch.no_grad():
        return torch.cat([network(part).double().cpu() for part in torch.split(samples, rows)])


def _table(features: Tensor, least: int = 2) -> Tensor:
    """The features as float64 on the CPU, if that is what they are."""
    if features.ndim != 2 or len(features) < least:
        raise RedraftError(f"features are (N, D) with N of {least} or more: these are {tuple(features.shape)}")
    if not features.isfinite().all():
        raise RedraftError("the features hold NaN or infinity")
    return features.double().cpu()


# ---- Fréchet distance


@dataclass(frozen=True)
class Statistics:
    """Mean and covariance of features.

    Attributes:
        mean: (D,), float64.
        covariance: (D, D), float64, unbiased.
        count: of samples that they are of.
    """

    mean: Tensor
    covariance: Tensor
    count: int

    @classmethod
    def of(cls, features: Tensor) -> Statistics:
        """Those of features (N, D).

        Raises:
            RedraftError: fewer than 2 rows, or NaN.
        """
        rows = _table(features)
        apart = rows - rows.mean(0)
        return cls(rows.mean(0), apart.T @ apart / (len(rows) - 1), len(rows))

    def joined(self, other: Statistics) -> Statistics:
        """Those of the samples of both together (Chan, Golub, LeVeque 1979)."""
        both, apart = self.count + other.count, other.mean - self.mean
        scatter = self.covariance * (self.count - 1) + other.covariance * (other.count - 1)
        scatter = scatter + torch.outer(apart, apart) * (self.count * other.count / both)
        return Statistics(self.mean + apart * (other.count / both), scatter / (both - 1), both)

    def save(self, path: str | Path) -> None:
        """Write a safetensors file."""
        tensors = {"mean": self.mean, "covariance": self.covariance, "count": torch.tensor(self.count)}
        save_file({name: value.cpu().contiguous() for name, value in tensors.items()}, path)

    @classmethod
    def load(cls, path: str | Path) -> Statistics:
        """Read what `save` wrote.

        Raises:
            RedraftError: it is no such file.
        """
        try:
            tensors = load_file(regular(path))
            return cls(tensors["mean"].double(), tensors["covariance"].double(), int(tensors["count"]))
        except Exception as error:
            raise RedraftError(f"{path} holds no statistics of features") from error


def frechet_distance(one: Tensor | Statistics, other: Tensor | Statistics) -> float:
    """The Fréchet distance of two Gaussians; of Inception's features it is the FID (Heusel et al. 2017).

        |m1 - m2|^2 + tr(C1 + C2 - 2 (C1^1/2 C2 C1^1/2)^1/2)

    Args:
        one: features (N, D), or their statistics.
        other: likewise.

    Raises:
        RedraftError: fewer than 2 rows, NaN, or features of different widths.
    """
    a, b = (x if isinstance(x, Statistics) else Statistics.of(x) for x in (one, other))
    _same_width(a, b)
    root = _root(a.covariance)
    cross = _spectrum(root @ b.covariance @ root)[0].sqrt().sum()
    return float((a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace() - 2 * cross)


def _same_width(one: Statistics, other: Statistics) -> None:
    if len(one.mean) != len(other.mean):
        raise RedraftError(f"features of width {len(one.mean)} and {len(other.mean)} cannot be compared")


def _spectrum(symmetric: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (D,), not below 0, and eigenvectors (D, D) of a matrix that has none below but for rounding."""
    values, vectors = torch.linalg.eigh((symmetric + symmetric.T) / 2)
    return values.clamp_min(0), vectors


def _root(symmetric: Tensor) -> Tensor:
    values, vectors = _spectrum(symmetric)
    return vectors * values.sqrt() @ vectors.T


def kernel_distance(features: Tensor, reference: Tensor) -> float:
    """The squared maximum mean discrepancy under (x.y / D + 1)^3, unbiased (KID, Bińkowski et al. 2018).

    All rows are one block; it may be below 0.

    Raises:
        RedraftError: fewer than 2 rows, NaN, or features of different widths.
    """
    x, y = _table(features), _table(reference)
    if x.shape[1] != y.shape[1]:
        raise RedraftError(f"features of width {x.shape[1]} and {y.shape[1]} cannot be compared")
    return float(_mean_pair(x) + _mean_pair(y) - 2 * _kernel(x, y).mean())


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _mean_pair(x: Tensor) -> Tensor:
    """The kernel's mean over pairs of different rows."""
    kernel = _kernel(x, x)
    return (kernel.sum() - kernel.trace()) / (len(x) * (len(x) - 1))


# ---- diversity


def inception_score(probabilities: Tensor) -> float:
    """The exponential of E KL(p(y | x) || p(y)) for class probabilities (N, classes); Salimans et al. 2016.

    Raises:
        RedraftError: these are no probabilities.
    """
    p = _table(probabilities, least=1)
    if (p < 0).any() or ((p.sum(1) - 1).abs() > 1e-3).any():
        raise RedraftError("the inception score takes probabilities, whose rows sum to 1: apply a softmax to logits")
    mean = p.mean(0).expand_as(p)
    return float((torch.xlogy(p, p) - torch.xlogy(p, mean)).sum(1).mean().exp())


def precision_recall(features: Tensor, reference: Tensor, k: int = 3, rows: int = 1024) -> tuple[float, float]:
    """Improved precision and recall (Kynkäänniemi et al. 2019, https://arxiv.org/abs/1904.06991).

    Precision is the share of samples within the distance of some reference sample to its k-th nearest neighbour among
    the reference; recall the same the other way round. Distances are taken of `rows` rows at a time.

    Raises:
        RedraftError: k rows or fewer, NaN, or features of different widths.
    """
    if k < 1:
        raise RedraftError(f"k is {k}: it must be 1 or more")
    x, y = _table(features, k + 1), _table(reference, k + 1)
    if x.shape[1] != y.shape[1]:
        raise RedraftError(f"features of width {x.shape[1]} and {y.shape[1]} cannot be compared")
    return _covered(x, y, k, rows), _covered(y, x, k, rows)


def _covered(x: Tensor, y: Tensor, k: int, rows: int) -> float:
    """The share of `x` in the balls around `y`."""
    exact = "donot_use_mm_for_euclid_dist"  # products lose what near points differ by
    itself = [torch.cdist(part, y, compute_mode=exact) for part in torch.split(y, rows)]
    radius = torch.cat([distance.kthvalue(k + 1, dim=1).values for distance in itself])  # the nearest is itself
    inside = [(torch.cdist(part, y, compute_mode=exact) <= radius).any(1) for part in torch.split(x, rows)]
    return float(torch.cat(inside).double().mean())


def vendi_score(features: Tensor) -> float:
    """The effective number of different samples (Friedman & Dieng 2023, https://arxiv.org/abs/2210.02410), 1 to N.

    exp of the entropy of the eigenvalues of K / N, where K holds the cosines of features (N, D).

    Raises:
        RedraftError: no rows, NaN, or features that are 0.
    """
    x = _table(features, least=1)
    length = x.norm(dim=1, keepdim=True)
    if (length == 0).any():
        raise RedraftError("the features of a sample are all 0: they have no direction to compare")
    x = x / length
    gram = x.T @ x if x.shape[1] < len(x) else x @ x.T  # the same eigenvalues but for zeros
    share = _spectrum(gram / len(x))[0]
    return float((-torch.xlogy(share, share).sum()).exp())


# ---- oracles


@dataclass
class FIDOracle:
    """Minus the Fréchet distance to a reference of a running set of samples with this one added.

    The oracle of Ma et al. (2025): it knows what it will be judged by, and shows what search can reach at most. Scores
    are taken of each sample on its own against the same running set, which grows by `add` only: choose, add what was
    chosen, and choose again.

    With n samples in the set and C their covariance, a sample at d from their mean makes it (n-1)/n C + d d^T / (n+1).
    The eigenvalues L of R^1/2 C R^1/2, R of the reference, are found once after `add`; then of every sample
        tr sqrt(L + z z^T) - tr sqrt(L) = 1/pi int_0^inf log(1 + sum_i z_i^2 / (L_i + s^2)) ds,
    which the trapezoidal rule in log s gives to rounding, in O(D) a node instead of O(D^3) a sample.

    Attributes:
        network: features of pictures.
        reference: statistics of the pictures to be like.
        running: statistics of the set so far, of 2 samples or more.
        rows: samples at a time.
    """

    network: Network
    reference: Statistics
    running: Statistics
    rows: Count = 64
    blind = True
    _known: tuple[Tensor, Tensor] | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Reject sets that cannot be compared."""
        checked(self)
        _same_width(self.reference, self.running)
        if self.running.count < 2:
            raise RedraftError("a running set of fewer than 2 samples has no covariance: begin with some samples")

    def __call__(self, samples: Tensor, problems: Problems) -> Tensor:
        """Scores (B,), float64 on the samples' device."""
        found = features_of(self.network, pixels(samples, problems)[:, 0], self.rows)
        return -self.distances(found).to(samples.device)

    def distances(self, features: Tensor) -> Tensor:
        """Distances (B,) of the running set with each row of `features` (B, D) added."""
        n, set_, ref = self.running.count, self.running, self.reference
        values, turn = self._spectra()
        d, shrink = _table(features, least=0) - set_.mean, (n - 1) / n
        cross = (shrink * values).sqrt().sum() + root_gain(shrink * values, d @ turn / (n + 1) ** 0.5)
        spread = shrink * set_.covariance.trace() + d.square().sum(1) / (n + 1)
        return (set_.mean + d / (n + 1) - ref.mean).square().sum(1) + spread + ref.covariance.trace() - 2 * cross

    def add(self, samples: Tensor) -> None:
        """Put samples (B, ...) into the running set, as the scores see them."""
        for row in features_of(self.network, unchecked_pixels(samples)[:, 0], self.rows):
            self.running = self.running.joined(Statistics(row, torch.zeros_like(self.running.covariance), 1))
        self._known = None

    def _spectra(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues (D,) of R^1/2 C R^1/2, and what turns features into its eigenvectors (D, D)."""
        if self._known is None:
            root = _root(self.reference.covariance)
            values, vectors = _spectrum(root @ self.running.covariance @ root)
            self._known = values, root @ vectors
        return self._known


def root_gain(values: Tensor, z: Tensor, step: float = 0.25) -> Tensor:
    """The trace (B,) of sqrt(L + z z^T) less that of sqrt(L), for L = diag(`values` (D,)) and each row of `z` (B, D).

    The integrand is analytic in log s for imaginary parts up to pi / 2, so the error of the rule falls as
    exp(-pi^2 / step); outside of e^+-33 times the largest root nothing is left at this precision.
    """
    size = float(torch.maximum(values.max(), z.square().sum(1).amax()) if len(z) else 0)
    if size == 0:
        return z.new_zeros(len(z))
    s = torch.arange(log(size) / 2 - 33, log(size) / 2 + 33, step, dtype=torch.float64).exp().to(z.device)
    inside = z.square() @ (1 / (values[:, None] + s**2))
    return torch.log1p(inside) @ s * (step / pi)


@dataclass(frozen=True)
class ISOracle:
    """The log-probability of the class that each problem asks for, under the network that the set is judged by.

    The oracle of Ma et al. (2025) for the inception score. Classes are the problems' `class_labels` or `label` in
    `cond` or `facts`, or prompts that are numbers.

    Attributes:
        network: logits (N, classes) of pictures.
        rows: samples at a time.
    """

    network: Network
    rows: Count = 64

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)

    def __call__(self, samples: Tensor, problems: Problems) -> Tensor:
        """Scores (B,), float64."""
        wanted = classes_of(problems)
        return per_frame(samples, problems, 1, lambda x, row: self._scores(x, wanted[row]))

    def _scores(self, pictures: Tensor, wanted: Tensor) -> Tensor:
        logp = self.network(pictures).double().log_softmax(1)
        if ((wanted < 0) | (wanted >= logp.shape[1])).any():
            raise RedraftError(f"a problem asks for a class outside of 0 to {logp.shape[1] - 1}")
        return logp.gather(1, wanted.to(logp.device)[:, None])[:, 0]


# ---- Inception


def inception(output: str = "2048", device: str | None = None) -> Network:
    """Inception v3 as FID and IS were published with, by torch-fidelity, which fetches and unpickles its own weights.

    Its 1008 classes are in an order of their own, so its logits are for `inception_score` and not for `ISOracle`.

    Args:
        output: "2048" for features, "logits_unbiased" for the logits of IS.
        device: such as 'cuda'; a GPU if there is one when not given.

    Raises:
        RedraftError: torch-fidelity is not installed, or its weights cannot be had.
    """
    try:
        home = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
    except ImportError as error:
        raise RedraftError(
            f"Inception comes with torch-fidelity, which is not here whole ({error}): pip install torch-fidelity, or "
            "give another network, such as redraft.verifiers.Features"
        ) from error
    try:
        net: Any = home.FeatureExtractorInceptionV3("inception-v3-compat", [output]).to(pick_device(device))
    except Exception as error:
        raise RedraftError(f"torch-fidelity cannot load Inception: {error}") from error
    where = next(net.parameters()).device

    def look(pictures: Tensor) -> Tensor:
        eight_bit = (pictures.clamp(0, 1) * 255).round().to(where, torch.uint8).expand(-1, 3, -1, -1)
        found: Tensor = net(eight_bit)[0]
        return found

    return look
