"""The record of a run: one row for each draft of each problem."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from redraft.core.files import regular

OWN = ("problem", "draft", "nfe", "critic", "verifier_calls", "seconds")  # columns that a run writes


class Trace(Mapping[str, Tensor]):
    """Columns of equal length, by name: those of `OWN`, and whatever was scored.

    A column that some drafts lack holds NaN there.
    """

    def __init__(self, columns: dict[str, Tensor] | None = None) -> None:
        """A trace of the given columns."""
        self._parts: dict[str, list[Tensor]] = {name: [column] for name, column in (columns or {}).items()}
        self._rows = len(next(iter(columns.values()))) if columns else 0

    def append(self, **columns: Tensor) -> None:
        """Add rows; tensors (n,) on any device."""
        rows = len(next(iter(columns.values())))
        for name in [name for name in columns if name not in self._parts]:
            self._parts[name] = [torch.full((self._rows,), torch.nan)] if self._rows else []
        for name, parts in self._parts.items():
            parts.append(columns[name].cpu() if name in columns else torch.full((rows,), torch.nan))
        self._rows += rows

    def with_rows(self, **columns: Tensor) -> Trace:
        """A trace with these rows as well; this one stays as it is."""
        found = Trace()
        found._parts, found._rows = {name: [*parts] for name, parts in self._parts.items()}, self._rows
        found.append(**columns)
        return found

    def __len__(self) -> int:
        """How many rows there are."""
        return self._rows

    def __iter__(self) -> Iterator[str]:
        """The columns' names."""
        return iter(self._parts)

    def __getitem__(self, name: str) -> Tensor:
        """A column, as numbers; true and false are 1 and 0 where some drafts lack them."""
        parts = self._parts[name]
        if len(parts) > 1:
            parts[:] = [torch.cat(parts)]
        return parts[0]

    def __repr__(self) -> str:
        """How many rows of what."""
        return f"Trace: {len(self)} rows of {', '.join(self) or 'nothing'}"

    def __eq__(self, other: object) -> bool:
        """Equal columns, seconds aside."""
        if not isinstance(other, Trace) or set(self) != set(other):
            return NotImplemented if not isinstance(other, Trace) else False
        return all(_same(self[name], other[name]) for name in self if name != "seconds")

    __hash__ = None  # type: ignore[assignment]

    def last_rows(self) -> Tensor:
        """Where the last row of each problem stands (P,)."""
        last = {problem: row for row, problem in enumerate(self["problem"].tolist())} if len(self) else {}
        return torch.tensor([*last.values()], dtype=torch.int64)

    def by_draft(self, name: str) -> dict[int, Tensor]:
        """A column's values, split by the draft's number."""
        drafts = self["draft"]
        return {number: self[name][drafts == number] for number in sorted(set(drafts.tolist()))}

    def table(self) -> Any:
        """The trace as a `pyarrow.Table`; `.to_pandas()` if you have pandas."""
        import pyarrow as pa

        return pa.table({name: self[name].numpy() for name in self})

    def save(self, path: Path | BinaryIO) -> None:
        """Write a Parquet file."""
        import pyarrow.parquet as pq

        pq.write_table(self.table(), path)

    @classmethod
    def load(cls, path: Path | BinaryIO) -> Trace:
        """Read a Parquet file."""
        import pyarrow.parquet as pq

        table = pq.read_table(regular(path) if isinstance(path, Path) else path)
        return cls({name: torch.tensor(table[name].to_numpy()) for name in table.column_names})


def _same(one: Tensor, other: Tensor) -> bool:
    """Equal numbers, NaN with NaN."""
    return one.shape == other.shape and torch.allclose(one.double(), other.double(), 0, 0, equal_nan=True)
