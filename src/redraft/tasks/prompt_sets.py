"""Sets of prompts from files that you have downloaded: DrawBench, PartiPrompts, T2I-CompBench, your own.

Saharia et al. 2022 (DrawBench), https://arxiv.org/abs/2205.11487; Yu et al. 2022 (PartiPrompts),
https://arxiv.org/abs/2206.10789; Huang et al. 2023 (T2I-CompBench), https://arxiv.org/abs/2307.06350.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redraft.core.errors import RedraftError, shown, unknown
from redraft.core.files import regular
from redraft.core.task import Problems
from redraft.tasks.prompts import prompts

if TYPE_CHECKING:
    from redraft.models.pipeline import PipelineModel
    from redraft.models.tokens import TokenModel

Entry = dict[str, str]
"""What a file says of one prompt: `prompt`, and facts such as `category`."""


@dataclass(frozen=True)
class PromptSet:
    """Prompts and what is known of each.

    Attributes:
        name: of the set.
        texts: the prompts.
        facts: what the file says of each, by name, such as `category`; "" where it says nothing.
        repeated: how many prompts were left out, as they were there already in the same category.
    """

    name: str
    texts: list[str]
    facts: dict[str, list[str]] = field(default_factory=dict)
    repeated: int = 0

    def __len__(self) -> int:
        """How many prompts there are."""
        return len(self.texts)

    def problems(self, model: TokenModel | PipelineModel) -> Problems:
        """One problem for each prompt, with the facts."""
        made = prompts(model, self.texts)
        return replace(made, facts=made.facts | self.facts)


def load_prompts(path: str | Path, kind: str | None = None) -> PromptSet:
    """The prompts in a file or folder; white space around them, empty lines and repetitions are left out.

    Args:
        path: of the file; of T2I-CompBench also the folder with its files, of which those named `*_val.txt` are taken.
        kind: 'drawbench' (CSV with the columns Prompts and Category), 'parti' (TSV with Prompt, Category, Challenge,
            Note), 't2i-compbench' (a file for each category, one prompt a line), 'text' (one prompt a line) or 'json'
            (a JSON object with `prompt` a line); by the name's ending if not given.

    Raises:
        RedraftError: unknown kind, a file that is missing, is not of its kind, or holds no prompts.
    """
    path = Path(path)
    kind = kind or ("t2i-compbench" if os.path.isdir(path) else ENDINGS.get(path.suffix.lower(), "text"))
    if kind not in KINDS:
        raise unknown("set of prompts", kind, KINDS)
    try:
        found = [entry for entry in KINDS[kind](path) if entry["prompt"]]
    except OSError as error:
        raise RedraftError(f"{path} cannot be read: {error.strerror}{WHERE.get(kind, '')}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise RedraftError(f"{path} is not a text file in UTF-8: {error}") from error
    if wrong := next((text for entry in found for text in entry.values() if not is_text(text)), None):
        raise RedraftError(f"{path} is not a text file in UTF-8: it holds {shown(wrong[:80])}")
    if not found:
        raise RedraftError(f"there are no prompts in {path}{WHERE.get(kind, '')}")
    first: dict[tuple[str, str], Entry] = {}
    for entry in found:
        first.setdefault((entry["prompt"], entry.get("category", "")), entry)
    different = list(first.values())
    names = {name for entry in different for name in entry} - {"prompt"}
    facts = {name: [entry.get(name, "") for entry in different] for name in sorted(names)}
    return PromptSet(kind, [entry["prompt"] for entry in different], facts, len(found) - len(different))


def is_text(text: str) -> bool:
    """Whether it can be written down in UTF-8, which half a character cannot, and holds no zero byte."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in regular(path).read_text(encoding="utf-8-sig").splitlines()]


def _text(path: Path) -> Iterator[Entry]:
    return ({"prompt": line} for line in _lines(path))


def _json(path: Path) -> Iterator[Entry]:
    for number, line in enumerate(_lines(path), 1):
        try:
            entry: Any = json.loads(line) if line else {"prompt": ""}
        except (ValueError, RecursionError):
            entry = None
        if not isinstance(entry, dict) or not isinstance(entry.get("prompt"), str):
            raise RedraftError(f'line {number} of {path} is not of the form {{"prompt": "..."}}')
        yield {name: str(value).strip() for name, value in entry.items()}


def _drawbench(path: Path) -> Iterator[Entry]:
    return _table(path, "drawbench", "Prompts")


def _parti(path: Path) -> Iterator[Entry]:
    # its quotation marks are part of the prompts
    return _table(path, "parti", "Prompt", delimiter="\t", quoting=csv.QUOTE_NONE)


def _table(path: Path, kind: str, column: str, **form: Any) -> Iterator[Entry]:
    """Rows of a file whose first line names the columns; `column` holds the prompts."""
    with regular(path).open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file, restval="", **form)
        names = {name.lower().strip(): name for name in rows.fieldnames or ()}
        if column.lower() not in names:
            have = ", ".join(rows.fieldnames or ()) or "none"
            raise RedraftError(f"{path} has no column {column!r} but {have[:80]}{WHERE[kind]}")
        for row in rows:
            facts = {key: (row[name] or "").strip() for key, name in names.items() if key}
            yield {"prompt": facts.pop(column.lower())} | facts


def _t2i_compbench(path: Path) -> Iterator[Entry]:
    files = sorted(path.glob("*_val.txt")) if path.is_dir() else [path]
    for file in files:
        category = file.stem.removesuffix("_val")
        yield from (entry | {"category": category} for entry in _text(file))


KINDS: dict[str, Callable[[Path], Iterator[Entry]]] = {
    "drawbench": _drawbench,
    "parti": _parti,
    "t2i-compbench": _t2i_compbench,
    "text": _text,
    "json": _json,
}
ENDINGS = {".csv": "drawbench", ".tsv": "parti", ".jsonl": "json", ".json": "json"}
WHERE = {
    "drawbench": "; DrawBench is a sheet to be saved as CSV: "
    "https://docs.google.com/spreadsheets/d/1y7nAbmR4FREi6npB1u-Bo3GFdwdOPYJc617rBOxIRHY",
    "parti": "; PartiPrompts.tsv is in https://github.com/google-research/parti",
    "t2i-compbench": "; its files are in https://github.com/Karine-Huang/T2I-CompBench, in examples/dataset",
}
