"""What a search tells of the candidates that it evaluates: a table in `Result.candidates`, one row for each.

    problem     id of the problem, and
    draft       number of the draft that it was evaluated for
    candidate   its number within the problem, from 0
    parent      number of the candidate that it was made from, -1 if there is none
    round       the search's own count: candidates of a problem and round cost the same
    score       by the verifier; NaN where it was not asked
    shown       stands for the sample that the verifier was shown, the last of several: equal for equal samples, see
                `redraft.core.distinct.prints`; 0 where it was not asked about all of a round at once
    nfe         network evaluations since its parent, guidance included: all rows together are the ledger's NFE
    level       of noise, at which its own noise came in; 1 is its very beginning
    key0, key1  Philox key of that noise (see `redraft.core.streams`)

A method that moves noise adds how far: see `redraft.methods.lineage`, which makes a candidate's noise again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from redraft.core.state import Draft
from redraft.core.streams import Streams


@dataclass
class Candidates:
    """The candidates of one draft, written down round by round.

    Attributes:
        model: of the run, which knows what was spent.
        draft: the one before.
        first: number of the first candidate.
    """

    model: Any
    draft: Draft
    first: int = 0
    _rounds: list[dict[str, Tensor]] = field(default_factory=list)
    _spent: Tensor = field(init=False)

    def __post_init__(self) -> None:
        """See what was spent before."""
        self._spent = self._now()

    def add(
        self, scores: Tensor, noise: Streams, parent: Tensor | None = None, level: float = 1.0, **moved: float | Tensor
    ) -> Tensor:
        """Write down a round of K candidates of each of P problems, side by side, once they are scored.

        Args:
            scores: (P * K,) or (P, K); NaN where there are none.
            noise: the streams (P * K,) that their own noise was drawn from.
            parent: numbers (P, K) of the candidates that they were made from; None if from none.
            level: at which the noise came in.
            moved: by name, how far noise was moved by it; of each (P, K), or of all.

        Returns:
            Their numbers (P, K).
        """
        problems = len(self.draft)
        score = scores.detach().double().cpu().reshape(problems, -1)
        number = (self.first + torch.arange(score.shape[1])).expand_as(score)
        now = self._now()
        key = noise.key.cpu().reshape(problems, -1, 2)
        columns: dict[str, float | Tensor] = {"level": level, **moved}
        self._rounds.append(
            {
                "candidate": number,
                "parent": torch.full_like(number, -1) if parent is None else parent.cpu(),
                "round": torch.full_like(number, self.draft.number + 1 + len(self._rounds)),
                "score": score,
                "shown": self._shown(score.shape[1]),
                "nfe": ((now - self._spent) / score.shape[1])[:, None].expand_as(score),
                "key0": key[..., 0],
                "key1": key[..., 1],
            }
            | {name: torch.zeros_like(score) + value for name, value in columns.items()}
        )
        self.first, self._spent = self.first + score.shape[1], now
        return number

    def table(self) -> dict[str, Tensor]:
        """The columns (P, K), over all rounds."""
        return {name: torch.cat([each[name] for each in self._rounds], 1) for name in self._rounds[0]}

    def _shown(self, number: int) -> Tensor:
        """What the verifier was shown (P, number) just now, 0 where nobody knows."""
        problem = self.draft.state.problem
        known = getattr(self.model, "shown", None)
        return known(problem, number) if known else torch.zeros(len(problem), number, dtype=torch.int64)

    def _now(self) -> Tensor:
        """NFE (P,) so far, NaN where nobody counts."""
        problem = self.draft.state.problem
        counted = getattr(self.model, "spent", None)
        unknown = torch.full((len(problem),), torch.nan, dtype=torch.float64)
        return counted(problem).double() if counted else unknown
