"""A network with its process and its codec."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from redraft.core.errors import RedraftError
from redraft.core.state import Prediction, State


class Model(Protocol):
    """What a method or a sampler may ask of a model.

    One whose exact likelihood is known may also have `log_likelihood(samples) -> (B,)`, in nats: the trace then shows
    how far drafts drift from what the model itself would write. One may state what its samples `shows`, 'pictures' or
    'boards' of `redraft.core.pictures`, or have `text(samples)`, which makes strings of them.

    Attributes:
        name: how users call it.
        process: the forward noising and the reverse steps that its network was trained for; its `random_prior` says
            whether pure noise differs from draw to draw, `random_steps(...)` whether reverse steps draw numbers.
        shape: (R, *region), the shape of a row; None stands for any number.
        offers: what it can do beyond predicting clean data, such as `"regions"` (a noise level per region),
            `"uncertainty"`, `"variance"`, `"logits"`, `"gradient"`.
        graph: which regions depend on one another, (R, R) bool, or None.
    """

    @property
    def name(self) -> str:
        """How users call it."""

    @property
    def process(self) -> Any:
        """The forward noising."""

    @property
    def shape(self) -> tuple[int | None, ...]:
        """(R, *region)."""

    @property
    def offers(self) -> frozenset[str]:
        """What it can do."""

    @property
    def graph(self) -> Tensor | None:
        """Which regions depend on one another (R, R)."""

    def predict(self, state: State) -> Prediction:
        """One network evaluation for each row."""

    def decode(self, x: Tensor) -> Tensor:
        """Pixels, text or boards of clean values (B, R, *region)."""

    def encode(self, samples: Tensor) -> Tensor:
        """Clean values (B, R, *region) of samples as `decode` gives them."""


def outlined(model: Model) -> str:
    """The model in a line: class, name and offers; no weights."""
    return (
        f"{type(model).__name__} {model.name!r}: offers {', '.join(sorted(model.offers)) or 'clean predictions only'}"
    )


def demand(model: Model, feature: str, wanted_by: str) -> None:
    """Raise the error that says what `model` lacks, unless it offers `feature`."""
    if feature not in model.offers:
        raise RedraftError(
            f"{wanted_by} needs a model that offers {feature!r}; {model.name!r} offers "
            f"{', '.join(sorted(model.offers)) or 'nothing beyond clean predictions'}"
        )


def device_of(model: Model, otherwise: torch.device) -> torch.device:
    """Where the model's network is, or `otherwise` if it has none."""
    net = getattr(model, "net", None)
    return next(net.parameters()).device if net is not None else otherwise
