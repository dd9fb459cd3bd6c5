"""A search by name, as large as a budget allows."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from typing import Any, get_type_hints

import torch
from torch import Tensor

import redraft
from redraft.core.build import value as value_of
from redraft.core.errors import RedraftError, unknown
from redraft.core.method import Method
from redraft.core.model import Model
from redraft.core.registry import METHODS
from redraft.core.state import Draft
from redraft.core.task import Problems

SIZES = {
    "best-of-n": "n",
    "zero-order": "rounds",
    "paths": "width",
    "draft-then-verify": "candidates",
    "halving": "candidates",
    "evolution": "population",
    "svdd": "children",
    "beam": "children",
    "fk": "particles",
}
"""The setting of each method that grows with the budget."""
OTHER_NAMES = {"random": "best-of-n"}
SAMPLERS = ("sampler", "draft")
"""Settings that options of their own make: how samples are walked."""
MOST = 1 << 20


@dataclass(frozen=True)
class Plan:
    """A method whose size is still open.

    Attributes:
        name: of the method.
        settings: those that are fixed.
        batch: samples of a problem that best-of-N draws together; half as many where more fit into the budget so.
        asked: the name that it was asked for by.
    """

    name: str
    settings: dict[str, Any]
    batch: int = 1
    asked: str = ""

    @property
    def size(self) -> str:
        """The setting that grows."""
        return SIZES[self.name]

    def of(self, size: int | None = None) -> Method:
        """The method of a size, or of its own."""
        settings = dict(self.settings)
        if size is not None:
            settings[self.size] = size
            if (step := settings.get("at_once", 0)) > 0:
                settings["n"] = max(step, size - size % step)
        if self.name == "best-of-n" and "at_once" not in settings and "n" in settings:
            settings["n"], settings["at_once"] = together(settings["n"], self.batch, exact=size is None)
        method: Method = METHODS[self.name](**settings)
        return method

    @property
    def is_fixed(self) -> bool:
        """Whether the size is one of the settings."""
        return self.size in self.settings

    def check(self, budget: int | None) -> None:
        """Raise unless the settings make a method.

        Raises:
            RedraftError: they do not.
        """
        self.of(None if self.is_fixed or budget is None else self._least())

    def within(self, model: Model, problem: Problems, budget: int, beside: int = 0) -> Method:
        """The method of a fixed size, which ends early if need be, with what is spent `beside` it.

        Raises:
            RedraftError: not even its first draft keeps to the budget.
        """
        self._refuse(first_cost(self.of(), model, problem) + beside, budget)
        return self.of()

    def fitted(self, model: Model, problem: Problems, budget: int, beside: int = 0) -> Method:
        """The largest of those methods whose every draft keeps to the budget, with what is spent `beside` it.

        Raises:
            RedraftError: none does.
        """
        low = self._least()
        self._refuse(cost(self.of(low), model, problem) + beside, budget)
        high = low + 1
        while high < MOST and cost(self.of(high), model, problem) + beside <= budget:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            if cost(self.of(middle), model, problem) + beside <= budget:
                low = middle
            else:
                high = middle
        return self.of(low)

    def _refuse(self, need: int, budget: int) -> None:
        if need > budget:
            name = self.asked or self.name
            raise RedraftError(f"a budget of {budget} NFE is too small for {name}, which takes {need} or more")

    def _least(self) -> int:
        """The smallest size that there is."""
        for size in range(64):
            with suppress(RedraftError):
                self.of(size)
                return size
        self.of(64)  # says what is wrong with the other settings
        return 64


def plan(name: str, batch: int = 1, given: tuple[str, ...] = (), **settings: Any) -> Plan:
    """The method called `name`, or 'random', with settings as `name=value` and as objects.

    Raises:
        RedraftError: unknown names, what is no setting, or a value of another type.
    """
    asked, name = name, OTHER_NAMES.get(name, name)
    if name not in SIZES:
        raise unknown("--method", asked, [*SIZES, *OTHER_NAMES])
    types = get_type_hints(METHODS[name])
    known = [each.name for each in fields(METHODS[name])]
    settings = {key: value for key, value in settings.items() if key in known}
    for text in given:
        key, _, value = text.partition("=")
        if key in SAMPLERS and key in known:
            raise RedraftError(f"{key!r} is none of --settings: it is made of --steps, --stochasticity and --path")
        if key not in known:
            raise unknown(f"setting of {asked}", key, [each for each in known if each not in SAMPLERS])
        settings[key] = value_of(types[key], {key: _value(value, text)}, key)
    return Plan(name, settings, batch, asked)


def _value(value: str, text: str) -> Any:
    try:
        found = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise RedraftError(f"{text!r} is not name=value with a number, a list, true, false or null") from error
    return tuple(found) if isinstance(found, list) else found


def together(n: int, batch: int, exact: bool = False) -> tuple[int, int]:
    """How many of `n` samples are drawn, and how many at once: `batch`, or down to half of it where more then fit.

    All `n` if they must be `exact`, as many at once as divide them.
    """
    sizes = range(1, min(batch, n) + 1)
    if exact:
        return n, max((size for size in sizes if n % size == 0), default=1)
    at_once = max((size for size in sizes if 2 * size >= len(sizes)), key=lambda size: (n - n % size, size), default=1)
    return n - n % at_once, at_once


def cost(method: Method, model: Model, problem: Problems) -> int:
    """The most NFE that all drafts of one problem take, guidance included."""
    draft, total = Draft(problem.state()), torch.zeros(len(problem), dtype=torch.int64)
    for number in range(method.total() or 0):
        total += _nfe(method, model, replace(draft, number=number - 1))
    return int(total.max()) * int(getattr(model, "nfe_per_row", 1))


def first_cost(method: Method, model: Model, problem: Problems) -> int:
    """The most NFE that the first draft of one problem takes, guidance included."""
    return int(_nfe(method, model, Draft(problem.state())).max()) * int(getattr(model, "nfe_per_row", 1))


def baseline(method: Method, sampler: Any) -> Method:
    """A plain sample: the search's own first candidate where that is a whole sample."""
    if isinstance(method, redraft.ZeroOrder):
        return replace(method, rounds=0)
    return redraft.BestOfN(1, sampler=sampler)


def takes_part(method: Method) -> bool:
    """Whether the baseline is no candidate of the search, and so is compared with its answer in the end."""
    return not isinstance(method, redraft.BestOfN | redraft.ZeroOrder)


def _nfe(method: Method, model: Model, draft: Draft) -> Tensor:
    return method.nfe(model, draft).cpu().long()
