"""What every process of continuous regions says of a prediction, however it adds noise."""

from __future__ import annotations

import torch
from torch import Tensor

from redraft.core.state import Prediction, State, merge
from redraft.core.streams import Streams


class Continuous:
    """A process whose clean regions are real numbers and whose prediction is their posterior mean."""

    random_prior = True

    def random_steps(self, steps: int, stochasticity: float, temperature: float) -> bool:
        """Whether `step` draws numbers on a region's way down in so many steps: all but the last may."""
        return steps > 1 and stochasticity > 0 and temperature > 0

    def guess(self, state: State, prediction: Prediction, streams: Streams, draw: object = None) -> State:
        """The clean sample that the network expects: the posterior mean, which is not drawn."""
        return state.to(merge(state.t > 0, prediction.clean, state.x), torch.zeros_like(state.t))

    def disagreement(self, noisy: State, prediction: Prediction, clean: Tensor) -> Tensor:
        """Mean squared difference (B, R) between the prediction and the values `clean` (B, R, *region)."""
        return (prediction.clean - clean).square().flatten(2).mean(2)
