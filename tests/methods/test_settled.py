"""A method that was given no sampler walks with one that suits the model, and results say which."""

from dataclasses import dataclass, fields

import pytest
import torch
from tokens import exact_model
from toys import Toy, toy_problems

import redraft
from redraft import IPR, Generate, IterRef, Parallel, Preset, Scheduled, Sequential, ZeroOrder
from redraft.core.method import settled
from redraft.core.registry import METHODS
from redraft.core.result import described

TOKENS, BOARD, PICTURE, PIPELINE = (
    exact_model(),
    Toy(),
    Toy(regions=1, offers=()),
    Toy(regions=1, offers=("schedule",)),
)
WALKS = {
    "generate": (Sequential(), Parallel(50), Scheduled(30)),
    "best-of-n": (Sequential(), Parallel(50), Scheduled(30)),
    "zero-order": (Parallel(50), Parallel(50), Scheduled(30)),
    "paths": (Parallel(50), Parallel(50), Scheduled(30)),
    "evolution": (Parallel(50), Parallel(50), Scheduled(30)),
    "halving": (Parallel(50), Parallel(50), Scheduled(30)),
    "draft-then-verify": (Parallel(50), Parallel(50), Scheduled(30)),
}
RANDOM = Parallel(50, stochasticity=1.0), Parallel(50, stochasticity=1.0), Scheduled(30, stochasticity=1.0)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "ipr"])
def test_every_method_has_a_sampler_for_every_kind_of_model(name):
    method = METHODS[name]()
    board, picture, pipeline = WALKS.get(name, RANDOM)
    assert settled(method, TOKENS).sampler == Preset()
    assert settled(method, BOARD).sampler == board
    assert settled(method, PICTURE).sampler == picture
    assert settled(method, PIPELINE).sampler == pipeline


@pytest.mark.parametrize("name", [name for name in METHODS if name != "ipr"])
def test_a_sampler_that_is_given_stays(name):
    given = METHODS[name](sampler=Parallel(3, stochasticity=1.0))
    for model in (TOKENS, BOARD, PICTURE):
        assert settled(given, model).sampler == given.sampler


def test_nothing_is_left_open_once_a_method_is_settled():
    for method in (METHODS[name]() for name in METHODS):
        for model in (TOKENS, BOARD, PICTURE, PIPELINE):
            done = settled(method, model)
            assert settled(done, model) is done
            assert all(getattr(done, f.name) is not None for f in fields(done) if "suits" in f.metadata)
    assert settled(IPR(), BOARD) == IPR()


def test_the_result_says_which_sampler_was_taken():
    result = redraft.run(Generate(), Toy(), toy_problems([0, 2]))
    assert result.settings["method"]["sampler"] == described(Sequential())
    assert result.ledger.nfe.tolist() == [18, 12]


@pytest.mark.parametrize("method", [IterRef(), ZeroOrder(rounds=0), METHODS["svdd"](), METHODS["halving"](2)])
def test_what_a_method_says_it_costs_is_of_the_sampler_that_suits(method):
    draft = redraft.core.state.Draft(toy_problems([0, 2]).state())
    whole = settled(method, BOARD)
    assert torch.equal(method.nfe(BOARD, draft), whole.nfe(BOARD, draft))
    assert torch.equal(method.verifier_calls(BOARD, draft), whole.verifier_calls(BOARD, draft))


def test_a_method_within_another_finds_its_sampler_itself():
    @dataclass(frozen=True)
    class Again:
        inner: Generate = Generate()

        def drafts(self, model, draft, streams, verifier=None):
            yield from self.inner.drafts(model, draft, streams)

        def nfe(self, model, draft):
            return self.inner.nfe(model, draft)

        def total(self):
            return 1

    one, other = (redraft.run(method, Toy(), toy_problems([0, 2])) for method in (Again(), Generate()))
    assert torch.equal(one.samples, other.samples)
