"""Sudoku in handwriting: complete a board of pictures so that every row, column and box holds each digit once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from annotated_types import Interval
from torch import Tensor

from redraft.core.content import content
from redraft.core.fields import Among, checked, checks
from redraft.core.task import HowMany, Problems, ProblemSeed, check_samples, origin
from redraft.models.weights import digest_at
from redraft.tasks.boards import conflicts, corruption, dig, random_board, violations
from redraft.tasks.glyphs import glyphs, load_reader

GIVEN = {"easy": (54, 80), "medium": (27, 53), "hard": (0, 26)}
KINDS = (*GIVEN, "extreme", "corrupted")
SPLITS = {"train": 0, "test": 1}
Split = Annotated[str, Among(SPLITS)]
Difficulty = Annotated[str, Among(KINDS)]
Swaps = Annotated[int, Interval(ge=0, le=10_000)]


@dataclass(frozen=True)
class Sudoku:
    """Boards (81, side, side) of handwritten digits, some of them given.

    Attributes:
        mnist: a folder with MNIST's files, or 'download', for 28x28 digits; scikit-learn's 8x8 if not given.
        reader: a folder that `redraft train reader` wrote; the reader that ships if not given.
    """

    mnist: str | None = None
    reader: str | None = None
    name = "sudoku"

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)

    @property
    def mark(self) -> str:
        """Tells pictures and reader apart by the files."""
        return content(digest_at(self.mnist), digest_at(self.reader))

    @checks
    def problems(
        self,
        n: HowMany,
        seed: ProblemSeed = 0,
        split: Split = "test",
        difficulty: Difficulty = "hard",
        swaps: Swaps = 5,
    ) -> Problems:
        """`n` puzzles; number i follows from (seed, split, difficulty, i) alone.

        Args:
            n: how many.
            seed: of the boards, the givens and the pictures.
            split: 'train' or 'test'; each draws with its own pictures and its own boards.
            difficulty: 'easy', 'medium' or 'hard' with 54-80, 27-53 or 0-26 given cells; 'extreme' with so few that
                none can go while the solution is still the only one; 'corrupted', full boards to be put right, with no
                cell given.
            swaps: of 'corrupted', how often two cells in different rows and columns are exchanged (SRM's K).
        """
        made = puzzles(n, seed, split, difficulty, swaps)
        pictures = glyphs(split, self.mnist, self.reader).draw(made.solution, made.uniform)
        return Problems(
            ids=made.ids,
            x=pictures[torch.arange(n)[:, None], made.order],
            frozen=made.given,
            facts={"solution": made.solution, "unique": torch.full((n,), difficulty == "extreme")},
        )

    def evaluate(self, samples: Tensor, problems: Problems) -> dict[str, Tensor]:
        """Metrics (P,) of boards (P, 81, side, side).

        Returns:
            valid: each row, column and box holds each digit once; solved: equals the solution (NaN where there may be
            more); givens_kept: given cells are unchanged; violations: sum over units and digits of |count - 1|;
            confidence: the reader's, in its least sure cell.

        Raises:
            RedraftError: samples that are no boards for these problems.
        """
        check_samples(samples, problems, facts=("solution", "unique"))
        boards, confidence = self.read(samples)
        wrong = torch.from_numpy(violations(boards.numpy()))
        frozen = problems.frozen
        same = (samples.cpu() == problems.x).flatten(2).all(2) | ~frozen
        solved = (boards == problems.facts["solution"]).all(1).double()
        return {
            "valid": wrong == 0,
            "solved": torch.where(problems.facts["unique"], solved, torch.nan),
            "givens_kept": same.all(1),
            "violations": wrong,
            "confidence": confidence.min(1).values,
        }

    def read(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Digits 1..9 (P, 81) and the reader's confidence (P, 81) of boards of pictures."""
        reader = load_reader(self.reader, self.mnist)
        logits = torch.cat([reader(part) for part in torch.split(samples.cpu().flatten(0, 1), 8192)])
        best = logits[:, 1:].softmax(-1).max(-1)
        shape = samples.shape[:2]
        return best.indices.view(shape) + 1, best.values.view(shape)

    def conflicts(self, samples: Tensor) -> Tensor:
        """Cells (P, 81) that break a rule, for pictures and for verifiers that give blame."""
        return torch.from_numpy(conflicts(self.read(samples)[0].numpy()))


class Puzzles(NamedTuple):
    """Puzzles before anything is drawn: what the tasks with and without pictures share.

    Attributes:
        ids: (P,).
        solution: digits 1..9 (P, 81).
        given: cells (P, 81) that are given.
        order: (P, 81) where each cell's content comes from; other than 0..80 if corrupted.
        uniform: numbers (P, 81) in [0, 1) that choose pictures.
    """

    ids: Tensor
    solution: Tensor
    given: Tensor
    order: Tensor
    uniform: Tensor


@checks
def puzzles(n: HowMany, seed: ProblemSeed, split: Split, difficulty: Difficulty, swaps: Swaps) -> Puzzles:
    """`n` puzzles; number i follows from (seed, split, difficulty, i) alone. Arguments as for `Sudoku.problems`.

    Raises:
        RedraftError: an unknown difficulty or split, or no number of puzzles.
    """
    ids = ((origin(SPLITS[split], seed) * len(KINDS) + KINDS.index(difficulty)) << 24) + torch.arange(n)
    made = [_puzzle(seed, split, difficulty, swaps, number) for number in range(n)]
    boards, given, order, uniform = (torch.from_numpy(np.stack(part)) for part in zip(*made, strict=True))
    return Puzzles(ids, boards.long(), given, order, uniform)


def _puzzle(seed: int, split: str, difficulty: str, swaps: int, number: int) -> tuple[Any, ...]:
    """The solution (81,), the given cells (81,), where each cell's picture comes from (81,), picture choices (81,)."""
    rng = np.random.default_rng([seed, SPLITS[split], KINDS.index(difficulty), number])
    board, order = random_board(rng), np.arange(81)
    if difficulty == "extreme":
        given = dig(board, rng)
    elif difficulty == "corrupted":
        given, order = np.zeros(81, dtype=bool), corruption(swaps, rng)
    else:
        low, high = GIVEN[difficulty]
        given = rng.permutation(81) < rng.integers(low, high + 1)
    return board, given, order, rng.uniform(size=81)
