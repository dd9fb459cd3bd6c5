"""Batches that are halved where memory runs out."""

import gc
import weakref

import pytest
import torch

from redraft import RedraftError
from redraft.core.errors import said
from redraft.core.memory import Fitting, out_of_memory

FULL = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
    MemoryError(),
]


def squares(most, error=FULL[0]):
    """Squares of no more than `most` numbers at a time, and how many each call was about."""
    asked = []

    def ask(rows):
        asked.append(len(rows))
        if len(rows) > most:
            raise error
        return rows**2

    return ask, asked


@pytest.mark.parametrize("error", FULL, ids=lambda error: type(error).__name__)
def test_rows_are_halved_in_order_and_the_size_is_remembered(error):
    ask, asked = squares(3, error)
    fitting, rows = Fitting(), torch.arange(11)
    assert torch.cat(fitting(ask, rows, "x")).tolist() == (rows**2).tolist()
    assert (asked, fitting.size) == ([11, 6, 3, 3, 3, 2], 3)
    asked.clear()
    assert torch.cat(fitting(ask, rows[:7], "x")).tolist() == (rows[:7] ** 2).tolist()
    assert asked == [3, 3, 1]


def test_a_size_from_the_start_and_no_rows():
    ask, asked = squares(9)
    assert len(Fitting(4)(ask, torch.arange(10), "x")) == 3
    assert (asked, Fitting()(ask, torch.arange(0), "x")) == ([4, 4, 2], [])


def test_one_row_that_does_not_fit_and_other_errors():
    with pytest.raises(RedraftError, match=r"one row of 'x' does not fit into memory \(CUDA out of memory.*dtype="):
        Fitting()(squares(0)[0], torch.arange(4), "'x'")
    with pytest.raises(RuntimeError, match="something else"):
        Fitting()(squares(0, RuntimeError("something else"))[0], torch.arange(4), "x")
    assert not out_of_memory(ValueError("out of memory"))


def test_what_a_failed_call_held_is_gone_before_the_next():
    held = []

    def ask(rows):
        assert all(reference() is None for reference in held)
        big = torch.zeros(len(rows))
        held.append(weakref.ref(big))
        if len(rows) > 1:
            raise FULL[0].__class__("out of memory")
        return rows

    gc.disable()  # it is gone without the collector's help
    try:
        Fitting()(ask, torch.arange(4), "x")
    finally:
        gc.enable()
    assert len(held) == 6


def test_an_error_is_told_by_its_first_line_or_its_type():
    assert [said(ValueError(text)) for text in ("\n one\ntwo", " \n", "")] == ["one", "ValueError", "ValueError"]
