"""Where measurements lie, and those that are one JSON file each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def measured(name: str) -> dict[str, Any]:
    """What bench/NAME.py stored; nothing if it has not run."""
    path = RESULTS / f"{name}.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


def record(name: str, found: Mapping[str, Any]) -> None:
    """Store what bench/NAME.py measured."""
    (RESULTS / f"{name}.json").write_text(json.dumps(found, indent=2) + "\n")
