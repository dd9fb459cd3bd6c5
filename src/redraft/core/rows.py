"""Values whose fields all have one entry for each row: indexed, repeated and joined together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from math import prod
from typing import Any, Self

import torch
from torch import Tensor

Index = Tensor | slice


class Rows:
    """Base of the frozen dataclasses that hold rows.

    Every field is a tensor or list with one entry a row, a dict of these, another `Rows`, or None; fields whose
    metadata has `shared=True` belong to all rows and are carried over unchanged.
    """

    def __repr__(self) -> str:
        """How many rows of what; no values."""
        return f"{type(self).__name__}: {len(self)} rows of {', '.join(map(_outline, _row_fields(self)))}"

    def __len__(self) -> int:
        """Number of rows."""
        return next(n for n in (_length(value) for _, value in _row_fields(self)) if n is not None)

    def __getitem__(self, index: Index) -> Self:
        """The rows at `index`: a slice, a tensor of row numbers (which may repeat) or a boolean mask (B,)."""
        return replace(self, **{name: _take(value, index) for name, value in _row_fields(self)})  # type: ignore[type-var]

    def repeat(self, times: int) -> Self:
        """Each row `times` times, copies of a row side by side."""
        return self[torch.arange(len(self)).repeat_interleave(times)]

    def put(self, where: Tensor, part: Self) -> Self:
        """The rows with those in `where` (B,) bool replaced by the rows of `part`, in order.

        A field that is None on either side is None afterwards.
        """
        if bool(where.all()):
            return part
        order = torch.cat([where.nonzero()[:, 0], (~where).nonzero()[:, 0]]).argsort()
        return type(self).cat([part, self[~where]])[order]

    @classmethod
    def cat(cls, parts: Sequence[Self]) -> Self:
        """The rows of all parts, in order; shared fields are taken from the first."""
        first = parts[0]
        columns = {name: _join([getattr(part, name) for part in parts]) for name, _ in _row_fields(first)}
        return replace(first, **columns)  # type: ignore[type-var]


def bytes_of(values: Tensor) -> Iterator[bytes]:
    """What tells each row of `values` (B, ...) from others, exactly."""
    rows = values.detach().cpu().reshape(len(values), prod(values.shape[1:])).contiguous()
    return (row.tobytes() for row in rows.view(torch.uint8).numpy())


def _row_fields(rows: Rows) -> list[tuple[str, Any]]:
    return [(f.name, getattr(rows, f.name)) for f in fields(rows) if not f.metadata.get("shared")]  # type: ignore[arg-type]


def _outline(named: tuple[str, Any]) -> str:
    """The field's name with the shape of a row, as in 'x (81, 8, 8)'."""
    name, value = named
    if isinstance(value, dict):
        return f"{name} ({', '.join(value)})" if value else f"no {name}"
    shape = tuple(value.shape[1:]) if isinstance(value, Tensor) else ()
    return f"no {name}" if value is None else f"{name} {shape}" if shape else name


def _length(value: Any) -> int | None:
    if isinstance(value, dict):
        return next((_length(v) for v in value.values()), None)
    return None if value is None else len(value)


def _take(value: Any, index: Index) -> Any:
    if isinstance(value, dict):
        return {key: _take(v, index) for key, v in value.items()}
    if isinstance(value, list):
        return value[index] if isinstance(index, slice) else [value[i] for i in _numbers(index)]
    if isinstance(value, Tensor) and isinstance(index, Tensor):
        return value[index.to(value.device)]
    return None if value is None else value[index]


def _numbers(index: Tensor) -> list[int]:
    return (index.nonzero()[:, 0] if index.dtype == torch.bool else index).tolist()


def _join(values: list[Any]) -> Any:
    first = values[0]
    if any(value is None for value in values):
        return None
    if isinstance(first, dict):
        return {key: _join([v[key] for v in values]) for key in first}
    if isinstance(first, list):
        return [item for v in values for item in v]
    if isinstance(first, Rows):
        return type(first).cat(values)
    return torch.cat(values)
