"""Wrappers that count every row through a network or a verifier, and refuse what is not a number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from redraft.core.errors import RedraftError
from redraft.core.ledger import Ledger
from redraft.core.model import Model
from redraft.core.state import Prediction, State
from redraft.core.task import Problems


class CountedModel:
    """A model whose every `predict` is charged to its rows' problems; all else is the model's own."""

    def __init__(self, model: Model, ledger: Ledger) -> None:
        """Count `model` into `ledger`; a model whose rows cost more than one evaluation says so in `nfe_per_row`."""
        self._model, self._ledger = model, ledger

    def __getattr__(self, name: str) -> Any:
        """Whatever the model has."""
        return getattr(self._model, name)

    def predict(self, state: State) -> Prediction:
        """The model's prediction, counted and checked."""
        self._ledger.charge("denoiser", state.problem, getattr(self._model, "nfe_per_row", 1))
        prediction = self._model.predict(state)
        if prediction.clean.shape != state.x.shape:
            raise RedraftError(
                f"{self._model.name!r} predicted shape {tuple(prediction.clean.shape)} for values of shape "
                f"{tuple(state.x.shape)}"
            )
        for value in (prediction.clean, prediction.uncertainty, prediction.variance):
            # a sum is not finite if any of its terms is not, and costs no second tensor
            if value is not None and not value.sum(dtype=torch.float64).isfinite():
                bad = ~value.flatten(1).isfinite().all(1)
                first = int(state.problem[bad][0])
                raise RedraftError(
                    f"the network of {self._model.name!r} gave NaN or infinity (first for problem number {first})"
                )
        return prediction


class CountedVerifier:
    """A verifier of clean values' samples, charged to their problems and checked."""

    def __init__(self, verifier: Callable[[Tensor, Problems], Tensor], problems: Problems, ledger: Ledger) -> None:
        """Count `verifier` into `ledger`."""
        self._verifier, self._problems, self._ledger = verifier, problems, ledger

    def __call__(self, samples: Tensor, problem: Tensor) -> Tensor:
        """Scores (B,) of samples (B, ...) for the problems numbered `problem` (B,)."""
        self._ledger.charge("verifier", problem)
        try:
            scores = torch.as_tensor(self._verifier(samples, self._problems[problem.cpu()]))
        except RedraftError:
            raise
        except Exception as error:
            raise RedraftError(f"the verifier raised {type(error).__name__}: {error}") from error
        if scores.shape != (len(samples),):
            raise RedraftError(f"the verifier gave shape {tuple(scores.shape)} for {len(samples)} samples")
        if not scores.isfinite().all():
            first = int(problem[~scores.isfinite()][0])
            raise RedraftError(f"the verifier gave NaN or infinity (first for problem number {first})")
        return scores
