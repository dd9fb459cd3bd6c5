"""Contract tests for your own models, methods and verifiers: silence, or an AssertionError that says what is wrong.

Call them from your test-suite:

    redraft.testing.check_model(my_model, my_problems)
    redraft.testing.check_method(my_method, my_model, my_problems)
    redraft.testing.check_verifier(my_verifier, my_samples, my_problems)
    redraft.testing.check_task(my_task, my_samples)
"""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import Tensor

from redraft.core.batched import Batched
from redraft.core.content import content
from redraft.core.ledger import Ledger
from redraft.core.method import Method
from redraft.core.model import Model
from redraft.core.run import run
from redraft.core.state import Draft, State
from redraft.core.streams import Streams
from redraft.core.task import Problems, Task
from redraft.core.verifier import Verifier, blames, trait

KEEPS = "give it an attribute `mark`, a text that tells it from others, or no checkpoint would be its own"


@torch.no_grad()
def check_model(model: Model, problems: Problems, tolerance: float = 1e-4) -> None:
    """Check what samplers and methods rely on, on two problems or more.

    - the prior leaves given regions bit for bit and takes the others to level 1;
    - predictions have the shapes that `Prediction` states, are finite, and are as many as `offers` promises; of a model
      of tokens, the mask is never drawn;
    - a row alone is predicted as in a batch, up to `tolerance`;
    - re-noising goes up only and leaves other regions bit for bit;
    - samples survive `encode` after `decode` in shape;
    - no global random generator is moved.
    """
    before = _generators()
    start = problems.state()
    noisy = model.process.prior(start, start.free, Streams.root(0, problems.ids))
    _same_where(noisy.x, start.x, start.frozen, "the prior changes given regions")
    assert bool((noisy.t == start.free).all()), "the prior does not take free regions to level 1 and others to 0"
    prediction = model.predict(noisy)
    assert prediction.clean.shape == noisy.x.shape, f"clean has shape {tuple(prediction.clean.shape)}"
    assert bool(prediction.clean.isfinite().all()), "clean is not finite"
    for name, shape in (("uncertainty", noisy.t.shape), ("variance", noisy.x.shape)):
        value = getattr(prediction, name)
        if name == "uncertainty" and prediction.logits is not None:
            value = model.process.uncertainty(noisy, prediction)
        assert name not in model.offers or value is not None, f"the model offers {name!r} but does not predict it"
        assert value is None or value.shape == shape, f"{name} is not of shape {tuple(shape)}"
    if prediction.logits is not None:
        _check_logits(model, noisy, prediction.logits, tolerance)
    alone = torch.cat([model.predict(noisy[i : i + 1]).clean for i in range(len(noisy))])
    assert torch.allclose(alone, prediction.clean, atol=tolerance), "a row's prediction depends on its batch"
    _check_renoise(model, noisy.to(noisy.x, torch.where(start.free, 0.25, 0.0)))
    assert model.encode(model.decode(start.x)).shape == start.x.shape, "encode does not undo decode in shape"
    assert _generators() == before, "a global random generator was moved"


def check_method(method: Method, model: Model, problems: Problems, tolerance: float = 1e-4) -> None:
    """Check what the run loop relies on, on two problems or more.

    - `nfe` is never less than what a draft costs;
    - given regions are bit for bit as given, in every draft;
    - a problem alone ends as in a batch, up to `tolerance`, and as if `drafts` had been begun anew after every draft;
    - the same seed gives the same samples, and no global random generator is moved;
    - its mark, by which a checkpoint knows it, stays what it was.
    """
    before, mark = _generators(), content(method)
    given = problems.state()
    whole = run(method, model, problems, progress=False)
    _same_where(model.encode(whole.samples), given.x, given.frozen, "given regions change")
    alone = run(method, model, problems[:1], progress=False)
    assert torch.allclose(alone.samples, whole.samples[:1], atol=tolerance), "a problem's result depends on its batch"
    again = run(method, model, problems, progress=False)
    assert torch.equal(again.samples, whole.samples), "the same seed gives other samples"
    assert _promises(method, model, problems, whole.ledger), "a draft costs more than `nfe` says"
    assert content(method) == mark, f"the method is changed by a run: {KEEPS}"
    assert _generators() == before, "a global random generator was moved"


@torch.no_grad()
def check_verifier(verifier: Verifier, samples: Tensor, problems: Problems, tolerance: float = 1e-4) -> None:
    """Check what methods rely on, on two samples (P, ...) or more that differ, one for each problem.

    - a score for each sample, finite, and the same when asked again;
    - a sample's score follows it when the order changes; unless the verifier is `relative` it is the same alone, and if
      the verifier is `blind` the same for another problem, up to `tolerance`;
    - samples stay as they are;
    - blame, where it is given, is one number a region, 0 or more;
    - no global random generator is moved;
    - its mark, by which a checkpoint knows it, stays what it was.
    """
    before, kept, calls, mark = _generators(), samples.clone(), Batched(verifier, unique=False), content(verifier)
    scores = calls(samples, problems)
    verifier(samples, problems)
    assert torch.equal(samples, kept), "the verifier changes its samples"
    _near(calls(samples, problems), scores, tolerance, tolerance, "a sample's score changes when asked again")
    back = _backwards(problems)
    _near(calls(samples[back], problems[back]).flip(0), scores, tolerance, tolerance, "scores are out of order")
    if not trait(verifier, "relative"):
        alone = torch.cat([calls(samples[i : i + 1], problems[i : i + 1]) for i in range(len(samples))])
        _near(alone, scores, tolerance, tolerance, "a sample's score depends on its batch")
    if trait(verifier, "blind"):
        others = calls(samples, problems[back])
        _near(others, scores, tolerance, tolerance, "the verifier is not blind: a score depends on the problem")
    if blames(verifier):
        calls.blame(samples, problems)
    assert _generators() == before, "a global random generator was moved"
    assert content(verifier) == mark, f"the verifier is changed by being called: {KEEPS}"


@torch.no_grad()
def check_task(task: Task, samples: Tensor) -> None:
    """Check what runs and experiments rely on, with two samples (P, ...) or more that differ, for the first P problems.

    - a problem follows from its number, whatever the number of problems, and an id of its own in every seed, split;
    - `frozen` is (P, R) for x (P, R, *region);
    - each metric has a value for each sample, (P,), which follows it when the order changes and is the same alone;
    - samples stay as they are, and no global random generator is moved.
    """
    before, kept = _generators(), samples.clone()
    problems, fewer = task.problems(len(samples)), task.problems(1)
    same = all(torch.equal(getattr(problems, name)[:1], getattr(fewer, name)) for name in ("ids", "x", "frozen"))
    assert same, "a problem depends on how many are made"
    ids = torch.cat([task.problems(len(samples), seed, split).ids for seed in (0, 1) for split in ("train", "test")])
    assert len(set(ids.tolist())) == len(ids), "two problems have one id"
    assert problems.frozen.shape == problems.x.shape[:2], f"frozen is of shape {tuple(problems.frozen.shape)}"
    metrics, back = task.evaluate(samples, problems), _backwards(problems)
    assert torch.equal(samples, kept), "the task changes its samples"
    turned = task.evaluate(samples[back], problems[back])
    alone = [task.evaluate(samples[i : i + 1], problems[i : i + 1]) for i in range(len(samples))]
    for name, values in metrics.items():
        assert values.shape == samples.shape[:1], f"{name} is of shape {tuple(values.shape)}"
        _near(turned[name].flip(0), values, 1e-4, 1e-6, f"{name} is out of order")
        _near(torch.cat([each[name] for each in alone]), values, 1e-4, 1e-6, f"{name} of a sample depends on its batch")
    assert _generators() == before, "a global random generator was moved"


def _backwards(problems: Problems) -> Tensor:
    return torch.arange(len(problems)).flip(0)


def _near(one: Tensor, other: Tensor, rtol: float, atol: float, complaint: str) -> None:
    assert torch.allclose(one.double(), other.double(), rtol=rtol, atol=atol, equal_nan=True), complaint


def _check_logits(model: Model, state: State, logits: Tensor, tolerance: float) -> None:
    assert logits.shape[:2] == state.x.shape, f"logits are of shape {tuple(logits.shape)}"
    mask = model.process.mask
    assert logits.shape[2] <= mask or bool((logits[:, :, mask] == -torch.inf).all()), "the mask itself can be drawn"
    alone = torch.cat([model.predict(state[i : i + 1]).logits for i in range(len(state))])  # type: ignore[misc]
    assert torch.allclose(alone.softmax(-1), logits.softmax(-1), atol=tolerance), "logits depend on the batch"


def _check_renoise(model: Model, state: State) -> None:
    where = torch.arange(state.t.shape[1]) % 2 == 0
    where = where & state.free
    streams = Streams.root(1, torch.arange(len(state)))
    higher = model.process.renoise(state, where, torch.full_like(state.t, 0.75), streams)
    _same_where(higher.x, state.x, ~where, "re-noising changes other regions")
    assert bool((higher.t[where] == 0.75).all()), "re-noising does not reach its level"
    lower = model.process.renoise(higher, where, torch.full_like(state.t, 0.5), streams)
    assert torch.equal(lower.x, higher.x), "re-noising to a lower level changes the state"


def _promises(method: Method, model: Model, problems: Problems, ledger: Ledger) -> bool:
    """Whether the drafts' stated costs cover what was spent."""
    draft, stated = Draft(problems.state()), torch.zeros(len(problems), dtype=torch.int64)
    streams = Streams.root(0, problems.ids)
    while True:
        cost = method.nfe(model, draft)
        following = next(method.drafts(model, draft, streams, None), None)  # begun anew after every draft
        if following is None:
            return bool((ledger.nfe <= stated).all())
        draft, stated = following, stated + cost


def _same_where(one: Tensor, other: Tensor, where: Tensor, complaint: str) -> None:
    assert torch.equal(one[where], other[where]), complaint


def _generators() -> tuple[bytes, str, str]:
    """The states of torch's, numpy's and Python's global generators."""
    return torch.get_rng_state().numpy().tobytes(), str(np.random.get_state()), str(random.getstate())  # noqa: NPY002
