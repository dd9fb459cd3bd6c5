"""Classifier-free guidance for any token model that has a state without condition, or model that guides itself.

Ho and Salimans, "Classifier-free diffusion guidance", 2022, https://arxiv.org/abs/2207.12598.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from redraft.core.errors import RedraftError
from redraft.core.fields import taken
from redraft.core.model import Model
from redraft.core.state import State

Kind = TypeVar("Kind", bound=Model)


def guided(model: Kind, scale: float) -> Kind:
    """The model with logits u + scale (c - u), for c with and u without the condition.

    Both passes are one batch of twice the rows, and each row counts as two evaluations. A scale of 0 is without the
    condition, 1 is the model itself. What others call the weight:

    | authors | they write | scale |
    |---|---|---|
    | aMUSEd, diffusers | u + w (c - u) | w |
    | LLaDA | u + (w + 1) (c - u) | w + 1 |
    | MaskGIT, Halton-MaskGIT | (1 + w) c - w u | w + 1 |

    A token that either pass gives -inf stays at -inf.

    Args:
        model: with a state without condition, as LLaDA (the prompt masked) and aMUSEd (the empty prompt) have; or with
            a method `guided(scale)` of its own, as `digits` has.
        scale: of the guidance.

    Raises:
        RedraftError: the model has no such state, or the scale is not finite.
    """
    plain: Any = model
    scale = taken("scale", scale, float)
    if hasattr(plain, "guided"):
        own: Kind = plain.guided(scale)
        return own
    null = getattr(plain, "null", None)
    if null is None:
        raise RedraftError(
            f"guidance needs a model that offers 'guidance', a state without condition; {model.name!r} offers "
            f"{', '.join(sorted(model.offers))}"
        )

    def forward(x: Tensor, state: State) -> tuple[Tensor, Tensor | None]:
        state = state.to(x, state.t)
        both = State.cat([state, null(state)])
        logits, features = plain.forward(both.x, both)
        conditional, unconditional = logits.chunk(2)
        mixed = combined(conditional, unconditional, scale)
        return mixed, None if features is None else features[: len(x)]

    name = f"{model.name} guided by {scale:g}"
    cost = 2 * plain.nfe_per_row
    mixed: Kind = replace(plain, name=name, forward=forward, plain=plain.forward, null=None, nfe_per_row=cost)
    return mixed


def combined(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """The mix u + scale (c - u), with -inf where either is -inf; tensors of one shape."""
    never = conditional.isneginf() | unconditional.isneginf()
    difference = (conditional - unconditional).masked_fill(never, 0)
    return (unconditional + scale * difference).masked_fill(never, -torch.inf)
