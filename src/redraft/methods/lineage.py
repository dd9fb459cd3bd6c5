"""A candidate's noise again, from the keys in its line of descent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from redraft.core.errors import RedraftError
from redraft.core.fields import checks
from redraft.core.model import Model, device_of
from redraft.core.streams import Streams
from redraft.core.task import Problems
from redraft.core.trace import Trace
from redraft.methods.evolution import mutated
from redraft.methods.zero_order import neighbour

MOVES: dict[str, Callable[..., Tensor]] = {"cosine": neighbour, "beta": mutated}
"""How noise was moved, by the column that says how far."""


@checks
def noise(model: Model, problem: Problems, candidates: Trace, number: int) -> Tensor:
    """The noise (1, R, *region) that a candidate's walk began from, bit for bit, without any network evaluation.

    A candidate that was taken up on its parent's way has its parent's noise. Of a diffusers pipeline the noise is
    `latents[:, None]`.

    Args:
        model: that the run was made with.
        problem: the candidate's, one row.
        candidates: `Result.candidates`.
        number: the candidate's; that of a draft's sample is in the trace's column `candidate`.

    Raises:
        RedraftError: there is no such candidate.
    """
    state = problem.state(device_of(model, problem.x.device))
    x = state.x
    for row in _line(candidates, int(problem.ids[0]), number):
        if row["level"] < 1:
            break
        key = torch.tensor([[row["key0"], row["key1"]]], dtype=torch.int64, device=x.device)
        fresh = model.process.prior(state, state.free, Streams(key)).x
        moves = [(move, row[name]) for name, move in MOVES.items() if name in row and row[name] == row[name]]
        x = moves[0][0](x, fresh, state.free, moves[0][1]) if moves else fresh
    return x


def _line(candidates: Trace, problem: int, number: int) -> list[dict[str, Any]]:
    """The candidate and those that it descends from, the first of them first."""
    if not len(candidates):
        raise RedraftError("the run tells nothing of its candidates")
    mine = candidates["problem"] == problem
    columns = {name: candidates[name][mine].tolist() for name in candidates}
    place = {candidate: i for i, candidate in enumerate(columns.get("candidate", ()))}
    line: list[dict[str, Any]] = []
    while number >= 0:
        if number not in place:
            raise RedraftError(f"problem {problem} has no candidate {number}; it has {len(place)}")
        line.append({name: column[place[number]] for name, column in columns.items()})
        number = line[-1]["parent"]
    if not line:
        raise RedraftError(f"problem {problem} has no candidate {number}; it has {len(place)}")
    return line[::-1]
