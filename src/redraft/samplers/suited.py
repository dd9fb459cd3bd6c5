"""Which sampler a method walks with, and the error for one that would give it copies of one sample."""

from __future__ import annotations

from typing import Any

from redraft.core.errors import RedraftError
from redraft.core.method import settled
from redraft.core.model import Model
from redraft.samplers.base import Sampler
from redraft.samplers.parallel import Parallel
from redraft.samplers.presets import Preset
from redraft.samplers.scheduled import Scheduled
from redraft.samplers.sequential import Sequential


def sampler_for(method: Any, model: Model, name: str = "sampler") -> Sampler:
    """The sampler that a method was given under a name, or one that suits `model` as its field has it."""
    found: Sampler = getattr(settled(method, model), name)
    return found


def for_samples(model: Model) -> Sampler:
    """Whole samples by themselves: region by region where a model has a level of noise for each."""
    regions = "regions" in model.offers and "tokens" not in model.offers
    return Sequential() if regions else for_searches(model)


def for_searches(model: Model) -> Sampler:
    """Samples that follow from their noise, and walks that can be taken up on their way."""
    if "tokens" in model.offers:
        return Preset()
    return Scheduled(30) if "schedule" in model.offers else Parallel(50)


def for_rough_drafts(model: Model) -> Sampler:
    """Samples as of `for_searches`, in few steps."""
    if "tokens" in model.offers:
        return Preset(steps=8)
    return Scheduled(8) if "schedule" in model.offers else Parallel(8)


def for_choices(model: Model) -> Sampler:
    """Steps that are random, so that walks that go on from one state part."""
    if "tokens" in model.offers:
        return Preset()
    return Scheduled(30, stochasticity=1.0) if "schedule" in model.offers else Parallel(50, stochasticity=1.0)


def needs_random_steps(sampler: Sampler, model: Model, method: str, several: bool = True) -> None:
    """Raise for a method that lets `several` walks go on from one state, unless the sampler's steps are random.

    Raises:
        RedraftError: they are not, so that these walks would be copies.
    """
    if several and not _says(sampler, "random_steps", model):
        raise RedraftError(
            f"{method} lets several walks go on from one state, and with {_shown(sampler)} on {model.name!r} they "
            f"would be copies: give it a sampler whose steps are random, such as {_advised(sampler, model)}"
        )


def needs_restarts(sampler: Sampler, model: Model, method: str, several: bool = True) -> None:
    """Raise for a method that compares `several` samples of one problem, unless the sampler's samples differ.

    Raises:
        RedraftError: neither its steps nor the noise that it begins from are random, so that these would be copies.
    """
    if several and not (_says(sampler, "random_start", model) or _says(sampler, "random_steps", model)):
        raise RedraftError(
            f"{method} compares several samples of a problem, and those of {_shown(sampler)} on {model.name!r} would "
            f"be copies: give it a sampler that draws, such as {_advised(sampler, model)}"
        )


def _says(sampler: Sampler, name: str, model: Model) -> bool:
    """What a sampler says of itself; one of your own that does not is taken to draw, and the trace tells."""
    said = getattr(sampler, name, None)
    return said is None or bool(said(model))


def _advised(sampler: Sampler, model: Model) -> str:
    """A sampler of the same kind that would do, or another, as a person writes it."""
    if isinstance(sampler, Preset):
        steps = "" if sampler.steps is None else f"{sampler.steps}, "
        return f"Preset({sampler.name!r}, {steps}temperature=1.0)"
    if "tokens" in model.offers:
        return "Preset('ancestral')"
    kind = "Scheduled" if "schedule" in model.offers else "Parallel"
    return f"{kind}({max(2, getattr(sampler, 'steps', 30))}, stochasticity=1.0)"


def _shown(sampler: Sampler) -> str:
    """The sampler in a few words."""
    if isinstance(sampler, Preset):
        return f"the preset {sampler.name!r} at these settings"
    return f"{type(sampler).__name__} at these settings"
