"""The contract test of models."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from redraft.core.content import content
from redraft.core.model import Model
from redraft.core.state import Prediction, State
from redraft.core.streams import Streams
from redraft.core.task import Problems
from redraft.testing.saying import (
    KEEPS,
    asked,
    contract,
    enough,
    must,
    near,
    of_kind,
    same_where,
    shaped,
    unless_refused,
)


@contract("model")
@torch.no_grad()
def check_model(model: Model, problems: Problems, tolerance: float = 1e-4) -> None:
    """Check what samplers and methods rely on, on two problems or more.

    - `name`, `shape`, `offers` and `graph` are what `Model` states, and the problems are of the model's shape;
    - the prior leaves given regions bit for bit and takes the others to level 1, and `random_prior` says whether it
      draws numbers;
    - predictions have the shapes that `Prediction` states, are finite, and are as many as `offers` promises; of a model
      of tokens, the mask is never drawn and no word is unknown to it;
    - a row alone is predicted as in a batch, up to `tolerance`, a row asked again as before; states stay as they are;
    - re-noising goes up only and leaves other regions bit for bit, a step goes down to its level and leaves regions
      bit for bit that stay at theirs, both for a row alone as in a batch; `random_steps` says whether steps draw;
    - `decode` gives a sample for each row, which `encode` takes back in shape or refuses by a RedraftError; a known
      likelihood is one number each;
    - no global random generator is moved, and its mark, by which a checkpoint knows it, stays what it was.

    Raises:
        AssertionError: it breaks one of these; the sentence says which.
    """
    enough(problems)
    _check_attributes(model, problems)
    before, start = _mark(model), problems.state()
    noisy = _check_prior(model, start)
    prediction = _check_prediction(model, noisy, tolerance)
    _check_offers(model, noisy, prediction)
    levels = torch.where(start.free, 0.25, 0.0)
    _check_renoise(model, noisy.to(noisy.x, levels))
    _check_step(model, noisy, prediction, tolerance)
    _check_codec(model, start.to(prediction.clean, levels * 0), tolerance)
    must(_mark(model) == before, f"the model is changed by being asked: {KEEPS}")


def _check_attributes(model: Model, problems: Problems) -> None:
    of_kind(model.name, str, "the model's `name`")
    of_kind(model.shape, tuple, "the model's `shape`")
    of_kind(model.offers, frozenset, "what the model offers")
    size = tuple(problems.x.shape[1:])
    fits = len(size) == len(model.shape) and all(n in (None, m) for n, m in zip(model.shape, size, strict=True))
    must(fits, f"the problems have values of shape {size}, and the model's `shape` is {tuple(model.shape)}")
    for name in ("prior", "renoise", "step"):
        must(callable(getattr(model.process, name, None)), f"the model's process has no `{name}`")
    if model.graph is not None:
        must(shaped(model.graph, (size[0],) * 2, "`graph`").dtype == torch.bool, "`graph` is not of truths")
    must("graph" not in model.offers or model.graph is not None, "the model offers 'graph', and its `graph` is None")


def _mark(model: Model) -> str:
    """What a checkpoint knows the model by."""
    told = [getattr(model, name, None) for name in ("mark", "digest", "net")]
    return content(model if hasattr(type(model), "mark") else told)


def _check_prior(model: Model, start: State) -> State:
    """The problems at level 1."""
    noisy, other = (asked("prior", model.process.prior, start, start.free, _streams(start, n)) for n in (0, 1))
    of_kind(noisy, State, "what `prior` gives")
    must(noisy.x.shape == start.x.shape, f"the prior has shape {tuple(noisy.x.shape)}")
    same_where(noisy.x, start.x, start.frozen, "the prior changes given regions")
    must((noisy.t == start.free).all(), "the prior does not take free regions to level 1 and others to 0")
    _check_said(model.process, "random_prior", (), not torch.equal(noisy.x, other.x), "pure noise differs")
    made: State = noisy
    return made


def _check_said(process: Any, name: str, given: tuple[Any, ...], differs: bool, what: str) -> None:
    """Complain if the process says by `name` what is not so; one that does not say is taken to draw numbers."""
    says = getattr(process, name, None)
    says = says(*given) if callable(says) else says
    if says is not None:
        must(bool(says) == differs, f"`{name}` says {bool(says)}, and whether {what} from draw to draw is {differs}")


def _check_prediction(model: Model, noisy: State, tolerance: float) -> Prediction:
    x, t = noisy.x.clone(), noisy.t.clone()
    prediction: Any = asked("predict", model.predict, noisy)
    of_kind(prediction, Prediction, "what `predict` gives")
    must(torch.equal(noisy.x, x) and torch.equal(noisy.t, t), "`predict` changes the state that it is given")
    shaped(prediction.clean, noisy.x.shape, "clean")
    must(prediction.clean.isfinite().all(), "clean is not finite")
    again = model.predict(noisy).clean
    near(again, prediction.clean, tolerance, "a row's prediction changes when asked again")
    parts = [asked("predict, of one row", model.predict, noisy[i : i + 1]) for i in range(len(noisy))]
    alone = torch.cat([part.clean for part in parts])
    near(alone, prediction.clean, tolerance, "a row's prediction depends on its batch")
    if prediction.logits is not None:
        _check_logits(model, noisy, prediction.logits, [part.logits for part in parts], tolerance)
    found: Prediction = prediction
    return found


def _check_logits(model: Model, state: State, logits: Tensor, alone: list[Tensor], tolerance: float) -> None:
    of_kind(logits, Tensor, "what `logits` holds")
    must(logits.ndim == 3 and logits.shape[:2] == state.x.shape, f"logits are of shape {tuple(logits.shape)}")
    must(not logits.isnan().any(), "logits are NaN")
    mask, known = model.process.mask, getattr(getattr(model, "convention", None), "vocabulary", None)
    must(logits.shape[2] <= mask or (logits[:, :, mask] == -torch.inf).all(), "the mask itself can be drawn")
    must(
        known is None or logits.shape[2] <= known, f"logits are of {logits.shape[2]} words, and the model reads {known}"
    )
    near(torch.cat(alone).softmax(-1), logits.softmax(-1), tolerance, "logits depend on the batch")


def _check_offers(model: Model, noisy: State, prediction: Prediction) -> None:
    """What is promised is there."""
    for name, shape in (("uncertainty", noisy.t.shape), ("variance", noisy.x.shape)):
        value = getattr(prediction, name)
        if name == "uncertainty" and (prediction.logits is not None or value is not None):
            value = asked("the process's `uncertainty`", model.process.uncertainty, noisy, prediction)
        must(name not in model.offers or value is not None, f"the model offers {name!r} but does not predict it")
        if value is not None:
            shaped(value, shape, name)
    for name, part in (("tokens", "logits"), ("features", "features")):
        there = getattr(prediction, part) is not None
        must(name not in model.offers or there, f"the model offers {name!r} but predicts no {part}")
    if "regions" in model.offers:
        _check_regions(model, noisy)
    if "timeless" in model.offers:
        later = model.predict(noisy.to(noisy.x, noisy.t / 2)).logits
        same = later is not None and prediction.logits is not None and torch.allclose(later, prediction.logits)
        must(same, "the model offers 'timeless', and its prediction depends on the level of noise")
    if "ends" in model.offers:
        must(model.convention.ends, "the model offers 'ends', and its convention names none")  # type: ignore[attr-defined]
    for offer in model.offers:
        if offer.startswith("critic:"):
            _check_critic(model, offer.removeprefix("critic:"), noisy, prediction)


def _check_regions(model: Model, noisy: State) -> None:
    """Regions may be at levels of their own."""
    own = torch.linspace(0.2, 0.9, noisy.t.shape[1]).expand_as(noisy.t) * noisy.free
    mixed = asked("predict, of regions at levels of their own,", model.predict, noisy.to(noisy.x, own.to(noisy.t)))
    must(mixed.clean.isfinite().all(), "clean is not finite where regions are at levels of their own")


def _check_critic(model: Any, name: str, state: State, prediction: Prediction) -> None:
    """A critic reads whole proposals or partly masked states, and says one number of each token."""
    answer = unless_refused(f"critic {name!r}", model.judge, name, prediction.clean, state)
    if answer is None:  # it reads states
        answer = asked(f"critic {name!r}", model.quality, name, state, prediction)
    must(shaped(answer, state.x.shape, f"what critic {name!r} says").isfinite().all(), f"critic {name!r} is not finite")


def _streams(state: State, seed: int) -> Streams:
    return Streams.root(seed, torch.arange(len(state)))


def _check_renoise(model: Model, state: State) -> None:
    where = torch.arange(state.t.shape[1]) % 2 == 0
    where, streams = where & state.free, _streams(state, 1)
    high = torch.full_like(state.t, 0.75)
    higher = asked("renoise", model.process.renoise, state, where, high, streams)
    same_where(higher.x, state.x, ~where, "re-noising changes other regions")
    must((higher.t[where] == 0.75).all(), "re-noising does not reach its level")
    lower = model.process.renoise(higher, where, torch.full_like(state.t, 0.5), streams)
    must(torch.equal(lower.x, higher.x), "re-noising to a lower level changes the state")
    alone = model.process.renoise(state[1:], where[1:], high[1:], streams[1:])
    must(torch.equal(alone.x, higher.x[1:]), "what a row is re-noised to depends on its batch")


def _check_step(model: Model, state: State, prediction: Prediction, tolerance: float) -> None:
    """Every other region goes down."""
    moving = (torch.arange(state.t.shape[1]) % 2 == 0) & state.free
    t_next = torch.where(moving, state.t / 2, state.t)
    after, other = (asked("step", model.process.step, state, prediction, t_next, _streams(state, n)) for n in (2, 3))
    same_where(after.x, state.x, ~moving, "a step changes regions that stay at their level")
    must(torch.equal(after.t, t_next), "a step does not lead to its level")
    alone = model.process.step(state[1:], prediction[1:], t_next[1:], _streams(state, 2)[1:])
    near(alone.x, after.x[1:], tolerance, "where a step leads a row depends on its batch")
    _check_said(model.process, "random_steps", (2, 0.0, 1.0), not torch.equal(after.x, other.x), "a step differs")


def _check_codec(model: Model, clean: State, tolerance: float) -> None:
    samples = asked("decode", model.decode, clean.x)
    of_kind(samples, Tensor, "what `decode` gives")
    must(len(samples) == len(clean), f"`decode` gives {len(samples)} samples of {len(clean)} rows")
    alone = torch.cat([model.decode(clean.x[i : i + 1]) for i in range(len(clean))])
    near(alone, samples, tolerance, "a row's sample depends on its batch")
    encoded = unless_refused("encode", model.encode, samples)
    if encoded is not None:
        shaped(encoded, clean.x.shape, "what `encode` gives of what `decode` gave")
    if known := getattr(model, "log_likelihood", None):
        whole = shaped(asked("log_likelihood", known, samples), (len(samples),), "what `log_likelihood` gives")
        near(known(samples[1:]), whole[1:], tolerance, "a sample's likelihood depends on its batch")
