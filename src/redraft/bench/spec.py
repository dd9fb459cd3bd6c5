"""Names of a registry with settings, as experiments' files give them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

from redraft.bench.plain import canonical
from redraft.core.build import wrong


@dataclass(frozen=True)
class Spec:
    """A name of a registry, with settings."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def parsed(cls, holder: dict[str, Any], key: str) -> Self:
        """From a name, or a mapping with `name` and settings."""
        given = holder[key]
        if isinstance(given, str):
            return cls(given)
        if not isinstance(given, dict) or not isinstance(given.get("name"), str):
            raise wrong(holder, key, f"{key} must be a name, or a mapping with a `name`")
        return cls(given["name"], {k: v for k, v in given.items() if k != "name"})

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        return {"name": self.name, **self.settings}

    @property
    def words(self) -> str:
        """Short, for people."""
        return in_short(self.plain(), "name")


def in_short(value: Any, *kinds: str) -> str:
    """A value in short: a mapping by its kind, with its other keys in brackets, so that no two are the same."""
    if isinstance(value, dict):
        kind = next((key for key in (*kinds, "preset", "type") if key in value), None)
        rest = ", ".join(f"{key}={in_short(other)}" for key, other in value.items() if key != kind)
        return f"{value[kind] if kind else ''}({rest})" if rest else str(value[kind] if kind else "{}")
    return canonical(value) if isinstance(value, list) else str(value)
