"""Sudoku as tokens: complete a board of 81 digits so that every row, column and box holds each digit once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from redraft.core.fields import checks
from redraft.core.task import HowMany, Problems, ProblemSeed, Split, check_samples
from redraft.tasks.boards import conflicts, violations
from redraft.tasks.sudoku import Difficulty, Swaps, puzzles

MASK, VOCABULARY = 9, 10  # 0..8 are the digits 1..9


def decode(samples: Tensor) -> list[str]:
    """Nine lines of nine digits for each board of ids (N, 81); a dot for a mask."""
    rows = ["".join("123456789."[i] for i in board) for board in samples.tolist()]
    return ["\n".join(row[i : i + 9] for i in range(0, 81, 9)) for row in rows]


@dataclass(frozen=True)
class SudokuTokens:
    """Boards of 81 digits, some of them given: the task `sudoku` without its pictures."""

    name = "sudoku-tokens"

    @checks
    def problems(
        self,
        n: HowMany,
        seed: ProblemSeed = 0,
        split: Split = "test",
        difficulty: Difficulty = "hard",
        swaps: Swaps = 5,
    ) -> Problems:
        """`n` puzzles; number i follows from (seed, split, difficulty, i) alone, and is the one of the task `sudoku`.

        Args:
            n: how many.
            seed: of the boards and the givens.
            split: 'train' or 'test'; each has its own boards.
            difficulty: as for the task `sudoku`: 'easy', 'medium', 'hard', 'extreme' or 'corrupted'.
            swaps: of 'corrupted', how often two cells in different rows and columns are exchanged (SRM's K).
        """
        made = puzzles(n, seed, split, difficulty, swaps)
        x = made.solution.gather(1, made.order) - 1
        facts = {"solution": made.solution, "unique": torch.full((n,), difficulty == "extreme")}
        return Problems(made.ids, x, made.given, facts=facts)

    def clean(self, n: int, seed: int = 0, split: str = "train") -> Tensor:
        """`n` full boards (n, 81) to train on: the solutions of the puzzles of that seed and split."""
        return puzzles(n, seed, split, "hard", 0).solution - 1

    def evaluate(self, samples: Tensor, problems: Problems) -> dict[str, Tensor]:
        """Metrics (P,) of boards of ids (P, 81).

        Returns:
            valid: each row, column and box holds each digit once; solved: equals the solution (NaN where there may be
            more); givens_kept: given cells are unchanged; violations: sum over units and digits of |count - 1|, where
            a mask is no digit.

        Raises:
            RedraftError: samples that are no boards for these problems.
        """
        check_samples(samples, problems, VOCABULARY, ("solution", "unique"))
        samples = samples.cpu()
        wrong = torch.from_numpy(violations((samples + 1).numpy()))
        solved = (samples + 1 == problems.facts["solution"]).all(1).double()
        return {
            "valid": wrong == 0,
            "solved": torch.where(problems.facts["unique"], solved, torch.nan),
            "givens_kept": ((samples == problems.x) | ~problems.frozen).all(1),
            "violations": wrong,
        }

    def evaluate_set(self, samples: Tensor, problems: Problems) -> dict[str, float]:
        """How two of the samples (P, 81) of a problem differ.

        Returns:
            differ: share of the free cells, averaged over all such pairs; nothing if each problem has one sample.

        Raises:
            RedraftError: as for `evaluate`.
        """
        check_samples(samples, problems, VOCABULARY)
        same = (problems.ids[:, None] == problems.ids).triu(1)
        one, other = same.nonzero(as_tuple=True)
        free = ~problems.frozen[one]
        unlike = ((samples[one] != samples[other]) & free).sum(1) / free.sum(1)
        return {"differ": float(unlike.double().mean())} if len(one) else {}

    def conflicts(self, samples: Tensor) -> Tensor:
        """Cells (P, 81) that break a rule, for pictures and for verifiers that give blame."""
        return torch.from_numpy(conflicts((samples + 1).cpu().numpy()))
