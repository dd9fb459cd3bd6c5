"""Compute, counted one way: rows through a network, by kind and by problem."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from redraft.core.fields import Ceiling, checked

KINDS = ("denoiser", "critic", "verifier")


@dataclass(frozen=True)
class Budget:
    """A ceiling on what each problem may cost; None means no ceiling.

    Attributes:
        nfe: denoiser plus critic rows.
        verifier_calls: verifier rows.
    """

    nfe: Ceiling | None = None
    verifier_calls: Ceiling | None = None

    def __str__(self) -> str:
        """The ceilings there are, in words."""
        words = {"nfe": "NFE", "verifier_calls": "verifier calls"}
        return " and ".join(f"{value} {words[name]}" for name, value in vars(self).items() if value is not None)

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)


def are_accounts(held: dict[str, Tensor], problems: int) -> bool:
    """Whether these are rows by kind (P,), as a ledger of so many problems holds them."""
    whole = all(v.dtype == torch.int64 and v.shape == (problems,) and bool((v >= 0).all()) for v in held.values())
    return set(held) == set(KINDS) and whole


@dataclass(repr=False)
class Ledger:
    """What was spent, and what caches saved, on each of `problems` problems.

    Attributes:
        spent: rows through a network by kind, (P,) each.
        saved: rows that a cache answered instead, by kind, (P,) each.
    """

    problems: int
    spent: dict[str, Tensor] = field(default_factory=dict)
    saved: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Open an account for every kind."""
        for account in (self.spent, self.saved):
            for kind in KINDS:
                account.setdefault(kind, torch.zeros(self.problems, dtype=torch.int64))

    def __repr__(self) -> str:
        """What was spent in all."""
        spent = ", ".join(f"{rows} {kind}" for kind, rows in self.totals()["spent"].items())
        return f"Ledger: {self.problems} problems, {spent} rows in all"

    def copy(self) -> Ledger:
        """The accounts as they are now."""
        spent, saved = ({kind: v.clone() for kind, v in account.items()} for account in (self.spent, self.saved))
        return Ledger(self.problems, spent, saved)

    def charge(self, kind: str, problem: Tensor, rows: int | Tensor = 1) -> None:
        """Count `rows` evaluations for each entry of `problem` (B,), which may name a problem more than once."""
        self._add(self.spent[kind], problem, rows)

    def credit(self, kind: str, problem: Tensor, rows: int | Tensor = 1) -> None:
        """Count evaluations that a cache made unnecessary."""
        self._add(self.saved[kind], problem, rows)

    @staticmethod
    def _add(account: Tensor, problem: Tensor, rows: int | Tensor) -> None:
        problem = problem.cpu()
        account.index_add_(0, problem, torch.as_tensor(rows, dtype=torch.int64).cpu().expand(len(problem)))

    @property
    def nfe(self) -> Tensor:
        """Denoiser plus critic rows, (P,)."""
        return self.spent["denoiser"] + self.spent["critic"]

    @property
    def verifier_calls(self) -> Tensor:
        """Verifier rows, (P,)."""
        return self.spent["verifier"]

    def totals(self) -> dict[str, dict[str, int]]:
        """Sums over all problems: `{"spent": {kind: rows}, "saved": {kind: rows}}`."""
        accounts = {"spent": self.spent, "saved": self.saved}
        return {name: {k: int(v.sum()) for k, v in account.items()} for name, account in accounts.items()}
