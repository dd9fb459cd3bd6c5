"""Wrong values for every setting there is: each is refused in a sentence that names it, or kept as what was asked for.

python tests/fuzz.py      what comes of each value, counted: in construction, and in a run where it was accepted
"""

from __future__ import annotations

import inspect
import math
import re
import types
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from decimal import Decimal
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
import torch
from tokens import exact_model
from tokens import problems as token_problems
from toys import Toy, toy_problems

import redraft
from redraft.core.batched import Batched
from redraft.core.errors import RedraftError
from redraft.core.registry import METHODS, SAMPLERS
from redraft.processes.categorical import Draw
from redraft.processes.mask import Plateau
from redraft.samplers import budgets, revising, scorers
from redraft.samplers.rules import Rule
from redraft.tasks.markov import MarkovChain
from redraft.training import class_digits, critic, judges, kinds, reader, sudoku, tokens
from redraft.verifiers import Agreement, Metric, SelfAgreement, WeightedSum
from redraft.verifiers.grader import Grader
from redraft.verifiers.kinds import LineKind
from redraft.verifiers.sets import ISOracle

VALUES = [
    -1, 0, 1, 2, 0.5, 2.5, -0.5, math.nan, math.inf, -math.inf, 1e300, 10**12, -(10**12), 10**400, True, False, 1j,
    np.int64(3), np.int64(-3), np.float32(0.25), np.float64("nan"), np.bool_(True), np.array([1, 2]), Decimal(1),
    torch.tensor(2), torch.tensor(0.5), torch.tensor(math.nan), torch.tensor([1.0]), torch.empty((), device="meta"),
    None, "", "3", "no such", "fresh ", b"x", [], (), {}, [1], ["a"], (math.nan,), (0.5, 0.25), ([],), {"a": 1}, {1},
    object(), int, lambda: 1, Toy,
]  # fmt: skip
PLAIN = (int, float, complex, str, bytes, list, tuple, set, dict, types.NoneType)
RUNS = 100.0  # larger values are kept, and not run with


@dataclass(frozen=True)
class Case:
    """A setting: its name, what it is to be by its annotation, and how something is made with it."""

    where: str
    name: str
    hint: Any
    make: Callable[[Any], Any]
    run: Callable[[Any], Any] | None = None

    def outcome(self, value: Any) -> str:
        """'sentence', 'right', 'nameless' for a sentence about something else, 'trace', or 'wrong' if it is kept."""
        try:
            made = self.make(value)
        except RedraftError as error:
            word = isinstance(value, str) and repr(value) in str(error)
            named = word or re.search(rf"\b{re.escape(self.name.removesuffix('s'))}s?\b", str(error))
            return "sentence" if named and "\n" not in str(error) else "nameless"
        except Exception:
            return "trace"
        kept = getattr(made, self.name) if is_dataclass(made) and hasattr(made, self.name) else plain(value)
        return "right" if fits(self.hint, kept) else "wrong"

    def runs(self, value: Any) -> str:
        """What comes of a run with an accepted value: 'ran', 'sentence', 'trace', or 'wrong' samples."""
        try:
            result = self.run(self.make(value)) if self.run else None
        except RedraftError:
            return "sentence"
        except Exception:
            return "trace"
        return "ran" if result is None or bool(result.samples.double().isfinite().all()) else "wrong"


def plain(value: Any) -> Any:
    """Python's own number."""
    whole = getattr(value, "ndim", None) == 0 and str(getattr(value, "device", "")) != "meta"
    return value.item() if whole else value


def fits(hint: Any, value: Any) -> bool:
    """Whether a value is what an annotation says, by itself: without bounds, and of parts only that they are none."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(fits(each, value) for each in args)
    if origin is Literal:
        return any(type(value) is type(each) and value == each for each in args)
    if hint in (None, types.NoneType):
        return value is None
    if hint in (int, float, bool, str):
        allowed = (int, float) if hint is float else (hint,)
        return type(value) in allowed and value == value and (hint is not int or abs(value) < 2**63)
    if origin in (tuple, list, Sequence):
        items = value.tolist() if isinstance(value, np.ndarray | torch.Tensor) else value
        return isinstance(items, list | tuple) and all(fits(args[0], each) for each in items)
    if hint is Any or hint is object:
        return True
    if origin in (dict, Mapping) or hint is dict:
        return isinstance(value, dict)
    if origin is not None:
        return callable(value)
    return hint is Path and isinstance(value, Path) or not isinstance(value, (*PLAIN, type))


# ---- what there is


def of_class(kind: type, run: Callable[[Any], Any] | None = None, **needed: Any) -> Iterator[Case]:
    """The fields of a dataclass, or the arguments of a class without fields."""
    make = kind if is_dataclass(kind) else kind.__init__
    hints = get_type_hints(make)
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    known = [p.name for p in inspect.signature(kind).parameters.values() if p.kind not in several]
    for name in [each.name for each in fields(kind) if each.init] if is_dataclass(kind) else known:
        yield Case(kind.__name__, name, hints[name], partial(_with, kind, needed, name), run)


def of_function(where: str, make: Callable[..., Any], names: Sequence[str], **needed: Any) -> Iterator[Case]:
    """Arguments of a function."""
    hints = get_type_hints(make)
    for name in names:
        yield Case(where, name, hints[name], partial(_with, make, needed, name))


def _with(make: Callable[..., Any], needed: dict[str, Any], name: str, value: Any) -> Any:
    return make(**needed | {name: value})


def score(samples: Any, problems: Any) -> Any:
    """A verifier of anything."""
    return samples.double().flatten(1).sum(1)


def features(samples):
    return samples.flatten(1)


@cache
def cases() -> list[Case]:
    """Every setting."""
    return [*_methods(), *_samplers(), *_parts(), *_verifiers(), *_tasks(), *_recipes(), *_border()]


def _methods() -> Iterator[Case]:
    for name in METHODS:
        kind = METHODS[name]
        yield from of_class(kind, _search)
    for select in (redraft.Uncertainty, redraft.Disagreement):
        yield from of_class(select, lambda made: _run(redraft.IPR(2, 0.5, initial=QUICK, refine=QUICK, select=made)))
    yield from of_class(redraft.Blame)
    yield from of_class(redraft.Metropolis)
    yield from of_class(redraft.Reward, lambda made: _tokens(redraft.SVDD(2, made, sampler=redraft.Preset(steps=2))))
    yield from of_class(redraft.Budget)


QUICK = redraft.Parallel(2)
SMALL = {
    "IPR": {"iterations": 2, "initial": QUICK, "refine": QUICK},
    "IterRef": {"levels": (0.5,), "moves": 1, "sampler": redraft.Preset(steps=2)},
    "ZeroOrder": {"rounds": 2, "sampler": QUICK},
    "Paths": {"level": 0.5, "forward": 0.4, "backward": 0.8, "sampler": QUICK},
    "DraftThenVerify": {"draft": QUICK, "sampler": QUICK, "candidates": 3},
    "Halving": {"candidates": 3, "sampler": QUICK},
    "Evolution": {"population": 3, "elites": 1, "sampler": QUICK},
}
"""Settings that make a run short, where they are still the usual ones."""


def _search(method: Any) -> Any:
    usual = type(method)()
    small = {
        name: to
        for name, to in SMALL.get(type(method).__name__, {}).items()
        if getattr(method, name) == getattr(usual, name)
    }
    method = replace(method, **small)
    sampler = getattr(method, "sampler", 0)
    if isinstance(sampler, redraft.Preset) or sampler is None:
        return _tokens(replace(method, sampler=redraft.Preset(steps=2)))
    return _run(method)


def _tokens(method: Any) -> Any:
    asks = not isinstance(method, redraft.Generate)
    return redraft.run(method, exact_model(), token_problems(1), verifier=score if asks else None, progress=False)


def _run(method: Any) -> Any:
    asks = not isinstance(method, redraft.Generate | redraft.IPR)
    return redraft.run(method, Toy(variance=0.1), toy_problems([2]), verifier=score if asks else None, progress=False)


def _samplers() -> Iterator[Case]:
    for kind in (redraft.Parallel, redraft.Sequential):
        yield from of_class(kind, lambda made: _run(redraft.Generate(made)))
    yield from of_class(redraft.Scheduled)
    for kind in (redraft.Unmask, redraft.Preset):
        yield from of_class(kind, lambda made: _tokens(redraft.Generate(made)))
    for name in SAMPLERS:
        make = SAMPLERS[name]
        names = [each for each in inspect.signature(make).parameters if each != "draw"]
        hints = get_type_hints(make)
        for each in names:
            case = Case(f"preset {name}", each, hints[each], partial(_with, redraft.preset, {"name": name}, each))
            yield replace(case, make=partial(_preset, name, each))


def _preset(name: str, setting: str, value: Any) -> Any:
    redraft.preset(name, **{setting: value})
    return value


def _parts() -> Iterator[Case]:
    for kind in (budgets.Remask, budgets.OnSchedule, budgets.Proportional, budgets.Refresh):
        yield from of_class(kind, lambda made: _tokens(redraft.Generate(redraft.Unmask(3, Rule(made)))))
    for kind in (budgets.Threshold, budgets.Factor, budgets.EntropyBound):
        yield from of_class(kind, lambda made: _tokens(redraft.Generate(redraft.Unmask(None, Rule(made)))))
    for kind in (scorers.Confidence, scorers.Margin, scorers.Entropy, scorers.Halton):
        yield from of_class(kind, lambda made: _tokens(redraft.Generate(redraft.Unmask(3, Rule(budgets.Even(), made)))))
    for kind in (scorers.Planner, scorers.Judge, scorers.Quality, revising.Edit, revising.Corrector, Plateau):
        yield from of_class(kind)
    yield from of_class(Draw, lambda made: _tokens(redraft.Generate(redraft.Unmask(3, draw=made))))
    yield from of_class(Rule, lambda made: _tokens(redraft.Generate(redraft.Unmask(3, made))), budget=budgets.Even())


def _verifiers() -> Iterator[Case]:
    task = redraft.load_task("markov")
    yield from of_class(Metric, task=task, name="log_likelihood")
    yield from of_class(Agreement, features=features)
    yield from of_class(SelfAgreement, model=Toy(), features=features)
    yield from of_class(ISOracle, network=features)
    yield from of_class(LineKind)
    yield from (case for case in of_class(Batched, verifier=score))
    yield from (case for case in of_class(Grader, llm="some-model") if case.name != "cache")  # which is made
    yield Case("WeightedSum", "a", Any, lambda value: WeightedSum({"a": (score, value)}))


def _tasks() -> Iterator[Case]:
    for name in ("sudoku", "sudoku-tokens", "python", "markov", "digits"):
        task = redraft.load_task(name)
        yield from (case for case in of_class(type(task)))
        names = list(inspect.signature(task.problems).parameters)
        needed = {} if name.startswith("sudoku") is False else {"difficulty": "corrupted", "swaps": 1}
        for case in of_function(f"{name}.problems", task.problems, names, **{"n": 1} | needed):
            yield replace(case, make=partial(_done, case.make))
    chain = redraft.load_task("markov").chain
    yield from (
        case
        for case in of_class(MarkovChain, transition=chain.transition, initial=chain.initial, length=3)
        if case.name == "length"
    )


def _done(make: Callable[[Any], Any], value: Any) -> Any:
    make(value)
    return value


def _recipes() -> Iterator[Case]:
    for module in (class_digits, judges, kinds, reader, sudoku, tokens):
        for name, kind in vars(module).items():
            if name.startswith("Train") and kind.__module__ == module.__name__:
                yield from of_class(kind)
    yield from of_class(critic.TrainCritic, model="python", task="python")
    yield from of_class(critic.Lesson)


def _border() -> Iterator[Case]:
    needed = {"method": redraft.Generate(QUICK), "model": Toy(), "problems": toy_problems([2]), "progress": False}
    names = ["method", "model", "problems", "verifier", "budget", "seed", "evaluate", "on_draft", "progress"]
    hints = get_type_hints(redraft.run)
    yield from (Case("run", name, hints[name], partial(_ran, needed, name)) for name in names)
    digits = redraft.load_model("digits")
    yield Case("guided", "scale", float, lambda value: _done(partial(redraft.guided, digits), value))
    for load in (redraft.load_task, redraft.load_verifier):
        yield Case(load.__name__, "name", str, lambda value, load=load: load(value))
    yield Case(
        "load_model", "device", str | None, lambda value: _done(lambda d: redraft.load_model("digits", d), value)
    )
    yield Case(
        "load_model", "compile", bool, lambda value: _done(lambda c: redraft.load_model("digits", None, c), value)
    )


def _ran(needed: dict[str, Any], name: str, value: Any) -> Any:
    redraft.run(**needed | {name: value})
    return value


# ---- what comes of it


@cache
def constructed() -> list[Case]:
    """The settings of dataclasses and presets, which cost nothing to make."""
    return [*_methods(), *_samplers(), *_parts(), *_recipes()]


def counts(values: Sequence[Any] = VALUES, of: Sequence[Case] | None = None) -> Counter[str]:
    """How often each outcome comes, of every setting with every value."""
    return Counter(case.outcome(value) for case in of or cases() for value in values)


def failures(values: Sequence[Any] = VALUES, of: Sequence[Case] | None = None) -> list[str]:
    """The settings and values that end in neither a sentence nor the right thing."""
    found = ((case, value, case.outcome(value)) for case in of or cases() for value in values)
    return [f"{case.where}.{case.name} = {shown(value)}: {what}" for case, value, what in found if what not in GOOD]


GOOD = ("sentence", "right")


def accepted(values: Sequence[Any] = VALUES, of: Sequence[Case] | None = None) -> list[tuple[Case, Any]]:
    """Settings and values that can be run."""
    return [
        (case, value)
        for case in of or cases()
        for value in values
        if case.run
        and case.outcome(value) == "right"
        and not (isinstance(plain(value), int | float) and abs(plain(value)) > RUNS)
    ]


def shown(value: Any) -> str:
    """A value in a few words."""
    return f"{type(value).__name__} {str(value)[:40]}" if not isinstance(value, int) or abs(value) < 2**64 else "huge"


if __name__ == "__main__":
    print(f"{len(cases())} settings, {len(VALUES)} values each: {dict(counts())}")
    ran = [(case, value, case.runs(value)) for case, value in accepted()]
    print(f"runs with what was accepted: {dict(Counter(what for *_, what in ran))}")
    bad = failures() + [
        f"{case.where}.{case.name} = {shown(value)}: {what}" for case, value, what in ran if what in ("trace", "wrong")
    ]
    print("\n".join(bad))
