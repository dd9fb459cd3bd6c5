"""Samples that cells kept, to look at: boards, pictures and texts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from redraft.bench.cell import loaded
from redraft.bench.experiment import Cell
from redraft.bench.plain import canonical
from redraft.bench.store import Store
from redraft.core.errors import said
from redraft.core.files import regular
from redraft.report.gallery import SIDE, pixels
from redraft.report.pictures import board_picture, inline

MOST = 4  # samples of a method
ENDING = "media.safetensors"


HEAD = "<h2>Samples</h2>"
AFTER = "<h2>Settings</h2>"  # what follows the gallery in a report


def gallery(cells: list[Cell], store: Store) -> Iterator[str]:
    """HTML: for each method the first samples that were kept, the same problems for all.

    Raises:
        RedraftError: a file of samples is damaged.
    """
    several = len({cell.model for cell in cells}) > 1
    first: dict[str, Cell] = {}
    for cell in cells:
        name = f"{cell.model}, {cell.name}" if several else cell.name
        if cell.media and name not in first and store.path(cell.id, ENDING).exists():
            first[name] = cell
    if first:
        yield f'{HEAD}\n<p class="soft">The first problems, not picked by outcome.</p>'
    for name, cell in first.items():
        yield f"<figure><figcaption>{escape(name)}</figcaption>"
        yield from _shown(store, cell)
        yield "</figure>"


def shown_before(page: Path) -> Iterator[str]:
    """The gallery of a report that was made when there were samples."""
    try:
        text = regular(page).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return
    _, head, rest = text.partition(HEAD)
    found, after, _ = rest.partition(f"\n{AFTER}")
    if head and after:
        yield head + found


def _shown(store: Store, cell: Cell) -> Iterator[str]:
    try:
        samples, ids, text = _read(store.path(cell.id, ENDING))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise store.damage(cell.id, f"{cell.id}.{ENDING} cannot be read: {said(error)}") from error
    if text:
        yield f"<pre>{escape(chr(10).join(text))}</pre>"
    else:
        pictures = _pictures(samples, ids, cell.job)
        yield '<div class="gallery">'
        yield from (f'<img class="board" style="max-width:16rem" src="{inline(p)}" alt="sample">' for p in pictures)
        yield "</div>"


def _read(path: Path) -> tuple[Tensor, Tensor, list[str]]:
    """The first samples, the ids of their problems, and the samples' text if there is one."""
    with safe_open(regular(path), "pt") as file:
        samples, ids = file.get_tensor("samples")[:MOST], file.get_tensor("ids")[:MOST]
        text = json.loads((file.metadata() or {}).get("text", "null")) or []
    if len(samples) != len(ids) or not isinstance(text, list) or not all(isinstance(line, str) for line in text):
        raise ValueError("it holds something else")
    return samples, ids, text[:MOST]


def _pictures(samples: Tensor, ids: Tensor, job: dict[str, Any]) -> Iterator[Any]:
    """Pictures (H, W, 3), if there is a way to make them."""
    task = loaded("task", canonical(job["task"]))
    if samples.ndim == 4 and samples.shape[1] == 81:
        problems = task.problems(**job["problems"])
        given = problems[torch.isin(problems.ids, ids)].frozen
        for board, wrong, frozen in zip(samples, task.conflicts(samples), given, strict=True):
            yield board_picture(board.numpy(), frozen.numpy(), wrong.numpy())
    elif samples.is_floating_point() and samples.ndim in (3, 4) and samples.shape[-1] > 3:
        for sample in samples:
            picture = pixels(sample if sample.ndim > 2 else sample[None])
            times = max(1, SIDE // picture.shape[0])
            yield picture.repeat(times, 0).repeat(times, 1)
