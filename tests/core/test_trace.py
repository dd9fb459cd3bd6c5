"""The record of a run."""

import torch

from redraft.core.trace import Trace


def example():
    trace = Trace()
    trace.append(draft=torch.tensor([0, 0]), nfe=torch.tensor([3, 4]), seconds=torch.tensor([0.1, 0.1]))
    trace.append(draft=torch.tensor([1]), nfe=torch.tensor([7]), seconds=torch.tensor([0.2]), kept=torch.tensor([True]))
    trace.append(draft=torch.tensor([2]), nfe=torch.tensor([9]), seconds=torch.tensor([0.3]))
    return trace


def test_columns_that_a_draft_lacks_hold_nan():
    trace = example()
    assert len(trace) == 4
    assert list(trace) == ["draft", "nfe", "seconds", "kept"]
    assert trace["nfe"].tolist() == [3, 4, 7, 9]
    assert trace["nfe"].dtype == torch.int64
    assert trace["kept"].isnan().tolist() == [True, True, False, True]
    assert trace["kept"][2] == 1


def test_a_column_is_split_by_draft():
    by_draft = example().by_draft("nfe")
    assert {number: values.tolist() for number, values in by_draft.items()} == {0: [3, 4], 1: [7], 2: [9]}


def test_what_is_saved_is_loaded(tmp_path):
    trace = example()
    trace.save(tmp_path / "trace.parquet")
    loaded = Trace.load(tmp_path / "trace.parquet")
    assert len(loaded) == 4
    assert loaded == trace
    assert loaded["nfe"].dtype == torch.int64
    assert torch.equal(loaded["seconds"], trace["seconds"])
    loaded.append(draft=torch.tensor([3]), nfe=torch.tensor([11]), seconds=torch.tensor([0.4]))
    assert len(loaded) == 5


def test_traces_are_equal_but_for_their_seconds():
    first, second = Trace({"a": torch.arange(3)}), Trace({"a": torch.arange(3)})
    assert first == second
    assert Trace({"a": torch.arange(1), "seconds": torch.zeros(1)}) == Trace(
        {"a": torch.arange(1), "seconds": torch.ones(1)}
    )
    assert first != Trace({"a": torch.tensor([0, 1, 3])})
    assert first != Trace({"a": torch.arange(4)})
    assert first != Trace({"b": torch.arange(3)})
    assert first != {"a": 1}


def test_a_missing_value_is_not_a_zero():
    missing, zero = torch.tensor([torch.nan]), torch.tensor([0.0])
    assert Trace({"a": missing}) == Trace({"a": missing.clone()})
    assert Trace({"a": missing}) != Trace({"a": zero})
