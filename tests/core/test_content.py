"""Marks by content: equal wherever the content is, different wherever it is."""

import json
import random
import subprocess
import sys
import threading
from collections import deque
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from redraft import RedraftError
from redraft.core.bits import WORDS, bits
from redraft.core.content import content, marked

TESTS = Path(__file__).parent.parent
FACTOR, LOG = 2.0, []


def picture(shade=0, mode="RGB"):
    return Image.fromarray(np.full((9, 7, 3), shade, dtype=np.uint8)).convert(mode)


def scaled(factor):
    return lambda x: factor * x


def by_global(x):
    LOG.append(x)
    return helped(FACTOR * x)


def helped(x):
    return x + 1


@dataclass(frozen=True)
class Setting:
    a: object = 1
    seen: dict = field(default_factory=dict, compare=False)

    @cached_property
    def derived(self):
        return object()


class Holder:
    def __init__(self, held):
        self.held = held

    def call(self, x):
        return x


class Slotted:
    __slots__ = ("held",)

    def __init__(self, held):
        self.held = held


long = torch.arange(4000.0)
other = long.clone()
other[2000] += 1e-3
net, shifted = nn.Linear(3, 2), nn.Linear(3, 2)
shifted.load_state_dict(net.state_dict())
shifted.bias.data[1] += 1e-6
DIFFERENT = {
    "numbers": (1, 2),
    "kinds of numbers": (1, True),
    "texts": ("1", 1),
    "bytes": (b"a", "a"),
    "lists": ([1, 2], [2, 1]),
    "nesting": ([1, [2]], [[1], 2]),
    "mappings": ({"a": 1}, {"a": 2}),
    "sets": ({1, 2}, {1, 3}),
    "tensors": (long, other),
    "shapes": (long, long[None]),
    "dtypes": (torch.zeros(3), torch.zeros(3).bfloat16()),
    "arrays": (long.numpy(), other.numpy()),
    "pictures": (picture(0), picture(1)),
    "modes": (picture(), picture(mode="L")),
    "networks": (net, shifted),
    "functions": (helped, lambda x: x + 2),
    "captured values": (scaled(2.0), scaled(3.0)),
    "captured tensors": (scaled(long), scaled(other)),
    "defaults": (lambda x, k=1: x, lambda x, k=2: x),
    "inner functions": (lambda x: x.apply(lambda y: y + 1), lambda x: x.apply(lambda y: y + 2)),
    "partials": (partial(helped, long), partial(helped, other)),
    "methods": (Holder(1).call, Holder(2).call),
    "built-in methods": ([1].index, [2].index),
    "classes": (Holder, Slotted),
    "dataclasses": (Setting(1), Setting(2)),
    "objects": (Holder(net), Holder(shifted)),
    "slots": (Slotted(long), Slotted(other)),
    "dtypes by name": (torch.float32, torch.float64),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_what_differs_has_different_marks(name):
    one, another = DIFFERENT[name]
    assert content(one) == content(one)
    assert content(one) != content(another)
    assert content([{"deep": one}]) != content([{"deep": another}])


def test_what_is_equal_has_equal_marks():
    assert content({"a": 1, "b": 2}) == content({"b": 2, "a": 1})
    assert content([1, 2]) == content((1, 2)) == content(deque([1, 2]))
    assert content(long) == content(long.clone()) == content(long.view(40, 100).T.contiguous().T.reshape(-1))
    assert content(picture()) == content(picture().copy())
    assert content(scaled(2.0)) == content(scaled(2.0))
    assert content(nn.Parameter(long)) == content(long)
    assert content(Holder([1])) == content(Holder([1]))


def test_what_is_derived_or_kept_of_use_does_not_count():
    used = Setting()
    used.seen["x"] = used.derived
    assert content(used) == content(Setting())
    cached = lru_cache(helped)
    before = content(cached, by_global)
    cached(1), by_global(1)
    assert content(cached, by_global) == before


def test_globals_that_a_function_names_count(monkeypatch):
    before = content(by_global)
    monkeypatch.setitem(globals(), "FACTOR", 3.0)
    changed = content(by_global)
    assert changed != before
    monkeypatch.setitem(globals(), "helped", lambda x: x + 3)
    assert content(by_global) not in (before, changed)


def test_what_holds_itself_is_told():
    loop = [1]
    loop.append(loop)
    assert content(loop) != content([1, [1]])

    def again(x):
        return again(x - 1) if x else 0

    assert content(again) == content(again)


def test_a_text_called_mark_is_all_that_counts():
    one, two = Holder(threading.Lock()), Holder(threading.Lock())
    one.mark = two.mark = "mine"
    assert content(one) == content(two)

    def function(x):
        return x

    function.mark = "mine"
    assert content(function) != content(one)


@pytest.mark.parametrize(
    "value",
    [torch.Generator(), random.Random(0), np.random.default_rng(0), threading.Lock(), (i for i in [1]),
     torch.zeros(3, device="meta")],
    ids=["torch", "random", "numpy", "lock", "iterator", "meta"],
)  # fmt: skip
def test_what_has_no_content_is_refused_in_one_sentence(value):
    with pytest.raises(RedraftError, match="nothing tells a .* from another one: give it an attribute `mark`"):
        content([Holder(value)])
    with pytest.raises(RedraftError, match="the thing holds a .*, and nothing tells that from another one: mend it"):
        marked("the thing", {"deep": value}, "mend it")


# ---- networks


class Layer(nn.Module):
    """With whatever a layer of a quantised or adapted network may hold."""

    def __init__(self, extra=None):
        super().__init__()
        self.packed = nn.Parameter(torch.arange(8, dtype=torch.uint8), requires_grad=False)
        self.small = nn.Parameter(torch.ones(3).to(torch.float8_e4m3fn), requires_grad=False)
        self.register_buffer("angles", torch.arange(4.0), persistent=False)
        self.scaling, self.rotary_cache, self.lazy, self.extra = {"one": 1.0}, {}, None, extra

    def get_extra_state(self):
        return self.extra


def changed(change):
    layer = Layer({"kind": "nf4", "none": None})
    change(layer)
    return layer


CHANGES = {
    "packed": lambda layer: layer.packed.data[7:].fill_(0),
    "small": lambda layer: layer.small.data.copy_(torch.zeros(3)),
    "angles": lambda layer: layer.angles[3:].fill_(0),
    "scaling": lambda layer: layer.scaling.update(one=0.5),
    "adapter": lambda layer: setattr(layer, "_active_adapter", ["two"]),
    "disabled": lambda layer: setattr(layer, "_disable_adapters", True),
    "mode": lambda layer: layer.eval(),
    "processor": lambda layer: setattr(layer, "processor", Holder(3)),
    "state without numbers": lambda layer: layer.extra.update(kind="fp4"),
    "configuration": lambda layer: setattr(layer, "config", {"shift": 2.0}),
    "another layer": lambda layer: setattr(layer, "more", nn.Identity()),
}


@pytest.mark.parametrize("name", CHANGES)
def test_all_that_a_network_computes_with_counts(name):
    plain = changed(lambda layer: None)
    assert content(changed(CHANGES[name])) != content(plain)
    assert content(nn.Sequential(changed(CHANGES[name]))) != content(nn.Sequential(plain))


def test_what_a_network_keeps_of_its_use_and_its_place_do_not_count():
    used = changed(lambda layer: None)
    used.rotary_cache["sin"], used.lazy, used._calls = torch.ones(2), torch.ones(1), 3
    used.register_forward_pre_hook(lambda *given: None)
    used.config = {"_name_or_path": "/here", "_class_name": "Layer"}
    assert content(used) == content(changed(lambda layer: None))


def test_a_compiled_network_is_the_same_network():
    plain = nn.Sequential(nn.Linear(2, 2))
    inside = nn.Sequential(torch.compile(plain[0]))
    assert content(torch.compile(plain)) == content(plain) == content(inside)


def test_weights_that_wait_elsewhere_are_looked_up():
    there, here = nn.Linear(2, 2), nn.Linear(2, 2, device="meta")
    with pytest.raises(RedraftError, match="on the device 'meta'"):
        content(here)
    here._hf_hook = Holder(None)
    here._hf_hook.weights_map = dict(there.state_dict())
    assert content(here) == content(there)


def test_what_is_packed_in_several_tensors_is_told_by_all_of_them():
    from torch.testing._internal.two_tensor import TwoTensor

    values, scales = torch.arange(4.0), torch.ones(4)
    one, same, other = (TwoTensor(values, each) for each in (scales, scales.clone(), 2 * scales))
    layers = [nn.Linear(2, 2, bias=False) for _ in range(3)]
    for layer, packed in zip(layers, (one, same, other), strict=True):
        layer.weight = nn.Parameter(packed, requires_grad=False)
    assert content(layers[0]) == content(layers[1]) != content(layers[2])


# ---- bits


def test_every_bit_of_a_large_tensor_counts():
    x = torch.zeros(2 * WORDS * 3 + 5)
    seen = {bits(x).digest()}
    for place in (0, 1, 2 * WORDS - 1, 2 * WORDS, 5 * WORDS, len(x) - 1):
        other = x.clone()
        other[place] = -0.0
        seen.add(bits(other).digest())
    swapped, both = x.clone(), x.clone()
    swapped[[1, 3]] = torch.tensor([1.0, -1.0])
    seen |= {bits(swapped).digest()}
    swapped[[1, 3]] = torch.tensor([-1.0, 1.0])
    both[[1, 3]] = -0.0
    seen |= {bits(swapped).digest(), bits(both).digest()}
    assert len(seen) == 10


def test_bits_do_not_depend_on_place_or_threads():
    x = torch.randn(4 * WORDS + 3, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    whole = bits(x).digest()
    assert bits(torch.cat([x[:3], x])[3:]).digest() == whole  # at an odd offset
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3 - min(before, 2))
        assert bits(x).digest() == whole
    finally:
        torch.set_num_threads(before)
    assert bits(torch.stack([x, x], 1)[:, 0]).digest() == whole


def test_bits_of_every_kind_of_tensor():
    complex_ = torch.ones(2, dtype=torch.complex64).conj()
    for value in (torch.tensor(True), torch.zeros(0), complex_, complex_.imag, torch.eye(3).to_sparse()):
        assert bits(value).digest() == bits(value.clone()).digest()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_bits_are_those_of_any_device():
    x = torch.randn(5 * WORDS + 3)
    assert bits(x).digest() == bits(x.cuda()).digest()


# ---- processes


def told():
    """Marks of all sorts of things, as JSON values."""
    from tiny_marks import pipeline_marks

    values = {name: pair[0] for name, pair in DIFFERENT.items() if "network" not in name and name != "objects"}
    return {name: content(value) for name, value in values.items()} | {
        "words": content({"one", "two", "three"}, lambda x: x in {"one", "two", "three"}),
        **pipeline_marks(),
    }


@pytest.mark.filterwarnings(r"ignore::DeprecationWarning:diffusers(\..*)?")
def test_marks_are_equal_in_another_process():
    script = f"import sys; sys.path[:0] = [{str(TESTS)!r}, {str(Path(__file__).parent)!r}]\n"
    script += "import json, test_content\nprint(json.dumps(test_content.told()))"
    ran = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True)
    there = json.loads(ran.stdout.splitlines()[-1])
    assert there == told()
    assert there["picture 0"] != there["picture 1"]
