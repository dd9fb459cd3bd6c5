"""The contract tests that ship pass on sound parts, and each complains about a part that breaks it."""

from dataclasses import dataclass, replace

import pytest
import torch
from toys import Toy, toy_problems

from redraft import IPR, Disagreement, Generate, Preset, Sequential
from redraft.models.tokens import TokenModel
from redraft.tasks.markov import Markov
from redraft.tasks.python import Python
from redraft.tasks.sudoku_tokens import SudokuTokens
from redraft.testing import check_method, check_model, check_task, check_verifier

METHOD = IPR(iterations=2, initial=Sequential(2), refine=Sequential(2), keep=Disagreement())


def problems():
    return toy_problems([1, 3, 2])


def test_a_sound_model_and_a_sound_method_pass():
    check_model(Toy(), problems())
    check_method(METHOD, Toy(), problems())


class Mixing(Toy):
    def predict(self, state):
        prediction = super().predict(state)
        return replace(prediction, clean=prediction.clean + prediction.clean.mean(0))


class Silent(Toy):
    def predict(self, state):
        return replace(super().predict(state), uncertainty=None)


class Moving(Toy):
    def predict(self, state):
        torch.rand(1)
        return super().predict(state)


@pytest.mark.parametrize(
    ("model", "complaint"),
    [(Mixing, "depends on its batch"), (Silent, "does not predict it"), (Moving, "generator was moved")],
)
def test_a_broken_model_is_told_what_is_wrong(model, complaint):
    with pytest.raises(AssertionError, match=complaint):
        check_model(model(), problems())


def test_a_sound_model_of_tokens_passes_with_every_kind_of_sampler():
    task = Markov(length=8)
    check_model(task.model, task.problems(3, given=0.3))
    for sampler in (Preset("remdm-cap", 6), Preset("p2", 6), Sequential(1)):
        check_method(Generate(sampler), task.model, task.problems(3, given=0.3))
        check_method(IPR(2, initial=sampler, refine=sampler), task.model, task.problems(3, given=0.3))


def test_a_broken_model_of_tokens_is_told_what_is_wrong():
    task = Markov(length=8)

    def drawing_masks(x, state):
        return torch.zeros(*x.shape, 7), None

    def mixing(x, state):
        logits = task.model.forward(x, state)[0]
        return logits + torch.arange(len(x))[:, None, None] * torch.arange(7), None

    class Open(TokenModel):
        def _read(self, logits, state):
            return logits

    sound = task.model
    open_ = Open("open", drawing_masks, sound.convention, length=8)
    for model, complaint in ((open_, "mask itself"), (replace(sound, forward=mixing), "depend")):
        with pytest.raises(AssertionError, match=complaint):
            check_model(model, task.problems(3))


@dataclass(frozen=True)
class Cheap(IPR):
    def nfe(self, model, draft):
        return super().nfe(model, draft) - 1


@dataclass(frozen=True)
class Careless(IPR):
    def _refine(self, model, draft, streams, verifier):
        return replace(draft, state=draft.state.to(draft.state.x + 1, draft.state.t))


@dataclass(frozen=True)
class Unseeded(IPR):
    def _refine(self, model, draft, streams, verifier):
        noise = torch.rand(draft.state.x.shape, generator=torch.Generator().manual_seed(id(draft)))
        free = draft.state.free[..., None]
        return replace(draft, state=draft.state.to(draft.state.x + noise * free, draft.state.t))


@pytest.mark.parametrize(
    ("method", "complaint"),
    [(Cheap, "costs more"), (Careless, "given regions change"), (Unseeded, "depends on its batch|other samples")],
)
def test_a_broken_method_is_told_what_is_wrong(method, complaint):
    with pytest.raises(AssertionError, match=complaint):
        check_method(method(iterations=2, initial=Sequential(2), refine=Sequential(2)), Toy(), problems())


@dataclass(frozen=True)
class Counting(IPR):
    """Its settings change with use."""

    def nfe(self, model, draft):
        vars(self)["asked"] = vars(self).get("asked", 0) + 1
        return super().nfe(model, draft)


def test_a_method_or_a_verifier_that_is_changed_by_use_is_told_what_to_do():
    counting = Counting(iterations=2, initial=Sequential(2), refine=Sequential(2))
    with pytest.raises(AssertionError, match="the method is changed by a run: give it an attribute `mark`"):
        check_method(counting, Toy(), problems())
    calls = []

    def first(samples, problems):
        calls.append(1)
        return samples[:, 0, 0]

    samples = torch.rand(3, 6, 2)
    with pytest.raises(AssertionError, match="the verifier is changed by being called: give it an attribute `mark`"):
        check_verifier(first, samples, problems())
    first.mark = "first"
    check_verifier(first, samples, problems())


def test_tasks_that_ship_are_sound():
    check_task(Markov(length=8), Markov(length=8).problems(3, seed=5).x)
    boards = SudokuTokens()
    check_task(boards, boards.problems(3, seed=5).x)
    lines = Python(device="cpu")
    check_task(lines, lines.clean(3))


class Growing(Markov):
    def problems(self, n, seed=0, split="test", given=0.0):
        return super().problems(n, seed + n, split, given)


class Forgetful(Markov):
    def problems(self, n, seed=0, split="test", given=0.0):
        return super().problems(n, 0, split, given)


class Averaging(Markov):
    def evaluate(self, samples, problems):
        return {"mean": samples.double().mean().expand(len(samples))}


class Scalar(Markov):
    def evaluate(self, samples, problems):
        return {"mean": samples.double().mean()}


class Sorting(Markov):
    def evaluate(self, samples, problems):
        return {"first": samples[:, 0].sort().values}


class Erasing(Markov):
    def evaluate(self, samples, problems):
        found = super().evaluate(samples, problems)
        samples.zero_()
        return found


@pytest.mark.parametrize(
    ("task", "complaint"),
    [
        (Growing, "how many are made"),
        (Forgetful, "one id"),
        (Averaging, "mean of a sample depends on its batch"),
        (Scalar, "mean is of shape"),
        (Sorting, "first is out of order"),
        (Erasing, "changes its samples"),
    ],
)
def test_a_broken_task_is_told_what_is_wrong(task, complaint):
    broken = task(length=8)
    with pytest.raises(AssertionError, match=complaint):
        check_task(broken, torch.tensor([[1, 2, 3, 4, 5, 0, 1, 2], [0] * 8, [2] * 8]))
