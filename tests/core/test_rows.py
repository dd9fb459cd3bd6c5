"""Rows are indexed, repeated and joined, with all that their fields hold."""

from dataclasses import dataclass, field
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from redraft.core.rows import Rows


@dataclass(frozen=True)
class Inner(Rows):
    key: torch.Tensor


@dataclass(frozen=True)
class Outer(Rows):
    x: torch.Tensor
    inner: Inner
    words: list[str]
    cond: dict[str, Any]
    nothing: torch.Tensor | None = None
    label: str = field(default="", metadata={"shared": True})


def make(n):
    number = torch.arange(n)
    words = [f"w{i}" for i in range(n)]
    cond = {"deep": {"words": words, "x": number[:, None] * 10}, "none": None}
    return Outer(number.double()[:, None].expand(n, 2), Inner(number * 100), words, cond, label="all")


def numbers(rows):
    """The rows' numbers, after checking that every field has the same."""
    found = rows.x[:, 0].long().tolist()
    assert (rows.inner.key // 100).tolist() == found
    assert rows.words == rows.cond["deep"]["words"] == [f"w{i}" for i in found]
    assert (rows.cond["deep"]["x"][:, 0] // 10).tolist() == found
    assert rows.nothing is None
    assert rows.cond["none"] is None
    assert rows.label == "all"
    assert len(rows) == len(found)
    return found


def test_rows_are_indexed_by_slice_numbers_and_mask():
    rows = make(5)
    assert numbers(rows) == [0, 1, 2, 3, 4]
    assert numbers(rows[1:3]) == [1, 2]
    assert numbers(rows[::2]) == [0, 2, 4]
    assert numbers(rows[torch.tensor([4, 0, 0])]) == [4, 0, 0]
    assert numbers(rows[torch.tensor([True, False, False, True, False])]) == [0, 3]
    assert numbers(rows[torch.zeros(5, dtype=torch.bool)]) == []


def test_copies_of_a_row_stand_side_by_side():
    assert numbers(make(3).repeat(2)) == [0, 0, 1, 1, 2, 2]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(1, 8), st.lists(st.integers(0, 8), max_size=3))
def test_joined_parts_are_the_whole(n, cuts):
    rows, edges = make(n), [0, *sorted(min(c, n) for c in cuts), n]
    parts = [rows[a:b] for a, b in zip(edges, edges[1:], strict=False)]
    assert numbers(Outer.cat(parts)) == list(range(n))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 5), max_size=8), st.data())
def test_rows_of_rows_are_rows_of_the_composed_index(first, data):
    second = data.draw(st.lists(st.integers(0, len(first) - 1), max_size=8)) if first else []
    index, then = torch.tensor(first, dtype=torch.int64), torch.tensor(second, dtype=torch.int64)
    assert numbers(make(6)[index][then]) == [first[i] for i in second]
