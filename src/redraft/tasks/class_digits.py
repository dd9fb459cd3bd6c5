"""Handwritten digits by class: a testbed for searches that is small enough for sets of thousands of samples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from redraft.core.content import content
from redraft.core.fields import checked, checks
from redraft.core.task import HowMany, Problems, ProblemSeed, Split, check_samples, origin
from redraft.models.weights import digest_at
from redraft.tasks.digits import load_digits
from redraft.tasks.judges import features, load_judge, logits

CLASSES = 10
SPLITS = {"train": 0, "test": 1}
NEIGHBOURS = 3  # k of precision and recall


@dataclass(frozen=True)
class ClassDigits:
    """Pictures (1, side, side) of wanted digits, read by a classifier that no search is guided by.

    Attributes:
        mnist: a folder with MNIST's files, or 'download', for 28x28 digits; scikit-learn's 8x8 if not given.
        judges: a folder that `redraft train digits-judges` wrote; the judges that ship if not given.
    """

    mnist: str | None = None
    judges: str | None = None
    name = "digits"

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)

    @property
    def mark(self) -> str:
        """Tells pictures and judges apart by the files."""
        return content(digest_at(self.mnist), digest_at(self.judges))

    @checks
    def problems(self, n: HowMany, seed: ProblemSeed = 0, split: Split = "test") -> Problems:
        """`n` wanted digits, `cond["label"]` (P,), each as often as the others in every ten.

        Args:
            n: how many; number i follows from (seed, split, i) alone.
            seed: of the order within every ten.
            split: 'train' or 'test': other problems, with other random streams.

        Raises:
            RedraftError: unknown split, or no number of problems.
        """
        ids = (origin(SPLITS[split], seed) << 24) + torch.arange(n)
        label = torch.cat([_ten(seed, split, number) for number in range(-(-n // CLASSES))])[:n]
        side = pictures(split, self.mnist).shape[-1]
        frozen = torch.zeros(n, 1, dtype=torch.bool)
        return Problems(ids, torch.zeros(n, 1, side, side), frozen, {"label": label}, {"label": label})

    def evaluate(self, samples: Tensor, problems: Problems) -> dict[str, Tensor]:
        """Metrics (P,) of pictures (P, 1, side, side) in [0, 1].

        Returns:
            right: the held-out judge reads the wanted digit; log_probability: nats that it gives to it; nearest: root
            mean square distance, a pixel, to the nearest training picture, small for copies.

        Raises:
            RedraftError: samples that are no pictures for these problems.
        """
        check_samples(samples, problems, facts=("label",))
        label = problems.facts["label"]
        likely = self.read(samples).log_softmax(1)
        return {
            "right": likely.argmax(1) == label,
            "log_probability": likely.gather(1, label[:, None])[:, 0],
            "nearest": nearest(samples, pictures("train", self.mnist)),
        }

    def of_the_set(self, samples: Tensor) -> dict[str, float]:
        """Metrics of pictures (P, 1, side, side) in [0, 1] as a set, beside the test split's.

        Returns:
            inception_score, of the held-out judge's probabilities; frechet_distance, precision and recall (k = 3), of
            its features. They have the forms of the scores of ImageNet under their names, not the scale.
        """
        from redraft.verifiers.sets import frechet_distance, inception_score, precision_recall

        held = self.features(pictures("test", self.mnist))
        found = self.features(samples)
        precision, recall = precision_recall(found, held, NEIGHBOURS)
        return {
            "inception_score": inception_score(self.read(samples).softmax(1)),
            "frechet_distance": frechet_distance(found, held),
            "precision": precision,
            "recall": recall,
        }

    def read(self, samples: Tensor) -> Tensor:
        """The held-out judge's logits (P, 10), on the CPU."""
        return logits(load_judge("held-out", self.judges, self.mnist), samples).cpu()

    def features(self, samples: Tensor) -> Tensor:
        """The held-out judge's features (P, D), on the CPU."""
        return features(load_judge("held-out", self.judges, self.mnist), samples).cpu()


@lru_cache(maxsize=4)
def pictures(split: str, mnist: str | None = None) -> Tensor:
    """The pictures (N, 1, side, side) of a split, in [0, 1]; read once."""
    return (load_digits(split, mnist).images[:, None] + 1) / 2


def nearest(samples: Tensor, others: Tensor) -> Tensor:
    """Root mean square distance (P,), a pixel, of samples (P, 1, side, side) to the nearest of others (N, ...)."""
    rows = torch.split(samples.cpu().flatten(1), 256)
    apart = torch.cat([torch.cdist(part, others.flatten(1)).amin(1) for part in rows])
    return apart / math.sqrt(others[0].numel())


def _ten(seed: int, split: str, number: int) -> Tensor:
    """The ten digits in an order of their own."""
    order = np.random.default_rng([seed, SPLITS[split], number]).permutation(CLASSES)
    return torch.from_numpy(order).long()
