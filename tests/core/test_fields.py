"""Declared settings: what is kept of right values, what is said of wrong ones."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import fuzz
import numpy as np
import pytest
import torch
from annotated_types import Ge
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import Toy, toy_problems

import redraft
from redraft import RedraftError
from redraft.core.counting import CountedModel
from redraft.core.fields import INFINITE, Among, Count, Inside, Share, checked, taken
from redraft.core.ledger import Ledger
from redraft.core.state import Prediction


@dataclass(frozen=True)
class Some:
    """Settings of every kind."""

    steps: Count = 3
    share: Share = 0.5
    most: Annotated[float, Ge(0), INFINITE] = 1.0
    levels: tuple[Inside, ...] = (0.5,)
    word: Literal["fresh", "fixed"] = "fresh"
    known: Annotated[str, Among({"one": 1}, "kind")] | None = None
    yes: bool = False

    def __post_init__(self):
        checked(self)


@pytest.mark.parametrize(
    ("given_", "kept"),
    [
        ({"steps": np.int64(2)}, 2),
        ({"steps": torch.tensor(2)}, 2),
        ({"share": 1}, 1.0),
        ({"share": np.float32(0.25)}, 0.25),
        ({"most": math.inf}, math.inf),
        ({"levels": [0.5, 0.25]}, (0.5, 0.25)),
        ({"levels": np.array([0.5, 0.25])}, (0.5, 0.25)),
        ({"known": "one"}, "one"),
        ({"yes": np.bool_(True)}, True),
    ],
)
def test_a_right_value_is_kept_as_python_s_own(given_, kept):
    (name,) = given_
    found = getattr(Some(**given_), name)
    assert found == kept
    assert type(found) is type(kept)


@pytest.mark.parametrize(
    ("given_", "sentence"),
    [
        ({"steps": 0}, "steps is 0: it must be a whole number of 1 or more"),
        ({"steps": True}, "steps is True: it must be a whole number of 1 or more"),
        ({"steps": 10**12}, "steps is 1000000000000: it must be a whole number of 1 or more, 16777215 at most"),
        (
            {"steps": 10**6000},
            "steps is a number of 19932 bits: it must be a whole number of 1 or more, 16777215 at most",
        ),
        ({"share": math.nan}, "share is nan: it must be a number in [0, 1]"),
        ({"share": math.inf}, "share is inf: it must be a number in [0, 1]"),
        ({"most": math.nan}, "most is nan: it must be a number of 0 or more, or infinity"),
        ({"levels": 0.5}, "levels is 0.5: it must be a list, each item a number in (0, 1)"),
        ({"levels": (0.5, 1)}, "levels is (0.5, 1): it must be a list, each item a number in (0, 1)"),
        ({"word": "frsh"}, "unknown word 'frsh'; did you mean 'fresh'?"),
        ({"word": []}, "word is []: it must be 'fresh' or 'fixed'"),
        ({"known": "two"}, "unknown kind 'two'; known: one"),
        ({"yes": 1}, "yes is 1: it must be True or False"),
        (
            {"steps": torch.empty((), device="meta")},
            "steps is a value of type Tensor: it must be a whole number of 1 or more",
        ),
    ],
)
def test_a_wrong_value_is_one_sentence(given_, sentence):
    with pytest.raises(RedraftError) as caught:
        Some(**given_)
    assert str(caught.value) == sentence


def test_a_part_has_the_methods_of_its_protocol():
    with pytest.raises(RedraftError, match="sampler is 3: it must be a Sampler, such as redraft.Parallel"):
        redraft.BestOfN(sampler=3)
    with pytest.raises(RedraftError, match=r"sampler is the class Parallel: .* write Parallel\(...\)"):
        redraft.BestOfN(sampler=redraft.Parallel)
    assert taken("sampler", redraft.Unmask(), redraft.samplers.AnySampler)


@pytest.mark.parametrize("value", fuzz.VALUES, ids=lambda value: type(value).__name__)
def test_every_setting_refuses_or_keeps(value):
    """See tests/fuzz.py."""
    assert fuzz.failures([value], fuzz.constructed()) == []


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(
    st.sampled_from(range(len(fuzz.constructed()))),
    st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.booleans()
    | st.lists(st.integers() | st.floats(), max_size=3),
)
def test_no_setting_ends_in_a_stack_of_calls(number, value):
    assert fuzz.failures([value], [fuzz.constructed()[number]]) == []


def test_what_is_accepted_runs():
    chosen = fuzz.accepted([1, 0.5], fuzz.constructed())[::4]
    assert [f"{case.where}.{case.name} = {value}" for case, value in chosen if case.runs(value) == "trace"] == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p, x: 1 / 0, "the model 'toy' raised ZeroDivisionError"),
        (lambda p, x: Prediction(x.long()), "'toy' predicted torch.int64, where the state's values are torch.float32"),
        (lambda p, x: Prediction(x.to(torch.complex64)), "'toy' predicted torch.complex64"),
        (lambda p, x: Prediction(x.to("meta")), "'toy' predicted values on meta, and the state is on cpu"),
        (lambda p, x: Prediction(x, uncertainty=x), r"'toy' predicted uncertainties of shape \(2, 6, 2\)"),
        (lambda p, x: Prediction(x, variance=x[:1]), r"'toy' predicted variances of shape \(1, 6, 2\)"),
        (lambda p, x: None, "'toy' predicted NoneType"),
        (lambda p, x: x.numpy(), "'toy' predicted ndarray"),
    ],
)
def test_a_network_that_misbehaves_is_one_sentence(change, words):
    model, state = Toy(), toy_problems([0, 0]).state()
    model.predict = lambda state: change(None, state.x)
    with pytest.raises(RedraftError, match=words):
        CountedModel(model, Ledger(2)).predict(state)


def test_a_network_of_double_precision_is_converted():
    model, state = Toy(), toy_problems([0]).state()
    model.predict = lambda state: Prediction(state.x.double())
    assert CountedModel(model, Ledger(1)).predict(state).clean.dtype == torch.float32


@pytest.mark.parametrize(
    ("decode", "words"),
    [
        (lambda x: 1 / 0, "asked to decode, raised Zero"),
        (lambda x: None, "to a NoneType"),
        (lambda x: x[:1], "one sample"),
    ],
)
def test_a_decoder_that_misbehaves_is_one_sentence(decode, words):
    model = Toy()
    model.decode = decode
    with pytest.raises(RedraftError, match=words):
        redraft.run(redraft.Generate(redraft.Parallel(2)), model, toy_problems([0, 0]), progress=False)


@pytest.mark.parametrize("metrics", [lambda x, p: 1 / 0, lambda x, p: None])
def test_metrics_that_misbehave_are_one_sentence(metrics):
    with pytest.raises(RedraftError, match="evaluate (raised ZeroDivisionError|gave None)"):
        redraft.run(redraft.Generate(redraft.Parallel(2)), Toy(), toy_problems([0]), evaluate=metrics, progress=False)
