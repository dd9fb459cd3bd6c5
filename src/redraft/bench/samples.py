"""Samples that cells kept, to look at: boards, pictures and texts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from redraft.bench.cell import loaded
from redraft.bench.experiment import Cell
from redraft.bench.plain import canonical
from redraft.bench.store import Store
from redraft.core.files import regular
from redraft.report.gallery import SIDE, pixels
from redraft.report.pictures import board_picture, inline

MOST = 4  # samples of a method


HEAD = "<h2>Samples</h2>"
AFTER = "<h2>Settings</h2>"  # what follows the gallery in a report


def gallery(cells: list[Cell], store: Store) -> Iterator[str]:
    """HTML: for each method the first samples that were kept, the same problems for all."""
    several = len({cell.model for cell in cells}) > 1
    first: dict[str, Path] = {}
    jobs: dict[str, dict[str, Any]] = {}
    for cell in cells:
        name = f"{cell.model}, {cell.name}" if several else cell.name
        path = store.path(cell.id, "media.safetensors")
        if cell.media and name not in first and path.exists():
            first[name], jobs[name] = path, cell.job
    if first:
        yield f'{HEAD}\n<p class="soft">The first problems, not picked by outcome.</p>'
    for name, path in first.items():
        yield f"<figure><figcaption>{escape(name)}</figcaption>"
        yield from _shown(path, jobs[name])
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


def _shown(path: Path, job: dict[str, Any]) -> Iterator[str]:
    with safe_open(path, "pt") as file:
        samples, ids = file.get_tensor("samples")[:MOST], file.get_tensor("ids")[:MOST]
        text = json.loads((file.metadata() or {}).get("text", "null"))
    if text:
        yield f"<pre>{escape(chr(10).join(text[:MOST]))}</pre>"
    else:
        pictures = _pictures(samples, ids, job)
        yield '<div class="gallery">'
        yield from (f'<img class="board" style="max-width:16rem" src="{inline(p)}" alt="sample">' for p in pictures)
        yield "</div>"


def _pictures(samples: torch.Tensor, ids: torch.Tensor, job: dict[str, Any]) -> Iterator[Any]:
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
