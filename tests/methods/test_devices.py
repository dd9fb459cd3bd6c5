"""No method mixes what it makes on the default device with what is on the model's, though both are the CPU here."""

from dataclasses import replace

import pytest
import torch
from tokens import exact_model, problems
from torch.overrides import TorchFunctionMode

from redraft import FK, IPR, SVDD, Beam, BestOfN, Disagreement, Generate, IterRef, ParticleGibbs, Sequential, Unmask
from redraft.core.state import Draft
from redraft.core.streams import Streams
from redraft.methods.blame import Blame, Metropolis
from redraft.methods.value import Reward
from redraft.samplers.budgets import Even
from redraft.samplers.rules import Rule

ONE_BY_ONE = Unmask(4, Rule(Even(), None))
METHODS = {
    "generate": Generate(ONE_BY_ONE),
    "fk": FK(3, Reward(draws=2), sampler=ONE_BY_ONE),
    "fk, max": FK(3, potential="max", ramp=1.0, threshold=1.0, choose="weight", sampler=ONE_BY_ONE),
    "svdd": SVDD(2, sampler=ONE_BY_ONE),
    "beam": Beam(2, 2, sampler=ONE_BY_ONE),
    "best of n": BestOfN(4, 2, sampler=ONE_BY_ONE),
    "particle gibbs": ParticleGibbs(2, 2, sampler=ONE_BY_ONE),
    "iterref": IterRef((0.5, 0.0), rounds=1, candidates=2, sampler=ONE_BY_ONE),
    "iterref, one try": IterRef((0.5,), a=1.0, candidates=1, sampler=ONE_BY_ONE),
    "iterref, several tries": IterRef((0.5,), a=1.0, candidates=2, sampler=ONE_BY_ONE),
    "ipr": IPR(2, 0.5, initial=Sequential(1), refine=ONE_BY_ONE, keep=Metropolis(), select=Blame()),
    "ipr, disagreement": IPR(2, 0.5, initial=ONE_BY_ONE, refine=Sequential(1), select=Disagreement()),
}


MAKERS = (torch.zeros, torch.ones, torch.full, torch.arange, torch.tensor, torch.empty, torch.eye, torch.linspace)


class Elsewhere(torch.Tensor):
    """A tensor of another device: it may index, be an only number or be moved, and nothing else."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        with torch._C.DisableTorchFunctionSubclass():
            if func is torch.Tensor.to:
                return func(args[0].as_subclass(torch.Tensor), *args[1:], **kwargs or {})
            everything = [part for arg in args for part in (arg if isinstance(arg, tuple | list) else (arg,))]
            tensors = [part for part in everything if isinstance(part, torch.Tensor) and part.ndim]
            if {type(part) for part in tensors} == {cls, torch.Tensor}:
                if func is torch.Tensor.__getitem__ and type(args[0]) is torch.Tensor:
                    return args[0][args[1].as_subclass(torch.Tensor)]
                if func is torch.Tensor.expand_as:  # which reads a shape only
                    return _elsewhere(func(*args))
                raise RuntimeError(f"{func.__name__} of tensors on two devices")
            made = func(*args, **kwargs or {})
            return made if any(type(part) is torch.Tensor for part in tensors) else _elsewhere(made)


def _elsewhere(made):
    if isinstance(made, tuple | list):
        return type(made)([_elsewhere(part) for part in made])
    return made.as_subclass(Elsewhere) if isinstance(made, torch.Tensor) else made


class ElsewhereByDefault(TorchFunctionMode):
    """Tensors that are made without a device are `Elsewhere`."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        if func is torch.as_tensor and "device" in kwargs:
            return made.as_subclass(torch.Tensor)
        return made.as_subclass(Elsewhere) if func in MAKERS and "device" not in kwargs else made


class Blaming:
    """A reward, and blame, made where the samples are."""

    blames = True

    def __call__(self, samples, problem):
        return samples.double().sum(1)

    def blame(self, samples, problem):
        return samples.double()


class Broken(FK):
    """Negative control: numbers that are made anywhere."""

    def _factor(self, cloud, value):
        return super()._factor(cloud, value + torch.zeros(value.shape))


def drafts(method):
    """All drafts, on the device of the state, with another by default."""
    given = problems(3)
    draft, streams = Draft(given.state()), Streams.root(0, given.ids)
    verifier = None if isinstance(method, Generate) or "disagree" in repr(method).lower() else Blaming()
    model = exact_model()

    def forward(x, state):  # the chain's own tables are made anywhere
        with torch._C.DisableTorchFunction():
            return model.forward(x, state)

    with ElsewhereByDefault():
        return list(method.drafts(replace(model, forward=forward), draft, streams, verifier))


@pytest.mark.parametrize("name", METHODS)
def test_a_method_computes_where_the_state_is(name):
    found = drafts(METHODS[name])
    assert len(found) == METHODS[name].total()
    for draft in found:
        held = (draft.state.x, draft.state.t, *draft.scores.values(), *draft.carry.values())
        assert not any(isinstance(value, Elsewhere) for value in held)


def test_a_method_that_does_not_is_found():
    with pytest.raises(RuntimeError, match="two devices"):
        drafts(Broken(3, sampler=ONE_BY_ONE))
