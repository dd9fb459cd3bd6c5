"""What an experiment's file says, and the cells that it spans."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, reduce
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, Literal

from redraft.bench.checks import check, found_in
from redraft.bench.plain import DEEPEST, canonical, changed, merged, read
from redraft.bench.spec import Spec, in_short
from redraft.core.build import Map, call, wrong
from redraft.core.errors import RedraftError, unknown
from redraft.core.registry import METHODS, VERIFIERS
from redraft.core.result import described

SHIPPED = Path(__file__).parent / "experiments"
OWN = ("method", "grid", "scale", "verifier", "budget")  # keys of an entry that are not the method's settings
Goal = Literal["max", "min"]


@dataclass(frozen=True)
class Select:
    """Which setting of a grid is reported.

    Attributes:
        seeds: for choosing, none of them reported.
        metric: that chooses; its goal is what `metrics` says.
        budget: at which it is read, NFE; at the end if not given.
        problems: for choosing, where they differ from those reported.
    """

    seeds: tuple[int, ...]
    metric: str
    budget: int | None = None
    problems: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """A file's contents; see docs/bench.md.

    Attributes:
        name: of the experiment.
        claim: that it tests, in words.
        task: what samples are for.
        model: one or more.
        methods: entries by label; each names a method, its settings, a `grid` of settings to compare or to select
            from, a `scale` of settings that spend more compute, and a `verifier` or `budget` of its own.
        problems: arguments of the task's `problems`.
        metrics: to report, each with its goal; the first decides ranks.
        verifier: for methods that ask for one.
        held_out: verifiers by the name of their metric, which are asked about every draft and guide nothing.
        shard: most problems of a cell.
        seeds: of sampling.
        budget: ceiling on a problem's NFE, for every method without its own.
        budgets: NFE at which tables are read.
        seconds: seconds a problem at which tables are read.
        baseline: the label that others are compared with.
        select: how a grid's setting is chosen.
        media: samples of every cell that are kept.
    """

    name: str
    task: Spec
    model: tuple[Spec, ...]
    methods: dict[str, Any]
    problems: dict[str, Any]
    metrics: dict[str, Any]
    claim: str = ""
    verifier: Spec | None = None
    held_out: dict[str, Any] = field(default_factory=dict)
    shard: int = 50
    seeds: tuple[int, ...] = (0,)
    budget: int | None = None
    budgets: tuple[int, ...] = ()
    seconds: tuple[float, ...] = ()
    baseline: str | None = None
    select: Select | None = None
    media: int = 0

    @property
    def looks(self) -> dict[str, dict[str, Any]]:
        """The verifiers that are held out, each a name with settings."""
        return {name: Spec.parsed(self.held_out, name).plain() for name in self.held_out}

    def plain(self) -> dict[str, Any]:
        """As the JSON values that it can be made of again, by `checked`."""
        own = {"task": self.task.plain(), "model": [spec.plain() for spec in self.model]}
        verifier, select = self.verifier and self.verifier.plain(), self.select and vars(self.select)
        return vars(self) | own | {"verifier": verifier, "select": select}


@dataclass(frozen=True)
class Setting:
    """One method with all of its settings.

    Attributes:
        label: of its entry.
        variant: its place in the entry's grid, in words.
        point: its place on the entry's scale, in words.
        method: name and settings.
        verifier: of this method, if it asks for one; 'auto' is the experiment's.
        budget: ceiling, NFE.
    """

    label: str
    variant: str
    point: str
    method: dict[str, Any]
    verifier: dict[str, Any] | str | None
    budget: int | None


@dataclass(frozen=True)
class Cell:
    """What is run at once, as JSON values: one setting on one shard of problems under one seed.

    Attributes:
        job: all that the outcome depends on.
        label: of the setting's entry.
        variant: of the setting.
        point: of the setting.
        role: 'report', or 'tune' if it only helps to choose a setting.
        media: samples to keep.
    """

    job: dict[str, Any]
    label: str
    variant: str
    point: str
    role: str
    media: int = 0

    @cached_property
    def id(self) -> str:
        """Sixteen hexadecimal digits that tell cells apart."""
        return id_of(self.job)

    @property
    def model(self) -> str:
        """The model with its settings, in words."""
        return in_short(self.job["model"], "name")

    @property
    def entry(self) -> tuple[str, str]:
        """The model and the label: what a setting is chosen for."""
        return self.model, self.label

    @property
    def name(self) -> str:
        """The method with its place in the grid and on the scale."""
        return ", ".join(word for word in (self.label, self.variant, self.point) if word)

    @property
    def words(self) -> str:
        """Short, for people."""
        start, stop = self.job["shard"]
        return f"{self.name}; seed {self.job['seed']}, problems {start} to {stop - 1}"


def id_of(job: dict[str, Any]) -> str:
    """The id of the cell that does this job."""
    said = {key: value for key, value in job.items() if key != "method"}  # `resolved` says the same in full
    said["problems"] = {key: value for key, value in said["problems"].items() if key != "n"}  # the shard says which
    return hashlib.sha256(canonical(said).encode()).hexdigest()[:16]


def load(source: str, size: str = "full", changes: Iterable[str] = (), most: int | None = None) -> Experiment:
    """The experiment in a file, or one that ships by its name, in one of its sizes, with `changes` such as 'media=3'.

    Args:
        source: the file, or the name.
        size: one of the file's; 'full' is the file itself.
        changes: what the file says, changed.
        most: cells; more are refused before they are made.

    Raises:
        RedraftError: what is wrong with the file, with the line, or with a change.
    """
    return checked(values(source, size, changes), most)


def values(source: str, size: str = "full", changes: Iterable[str] = ()) -> Map:
    """What the file says in one of its sizes, and `changes` say, unchecked.

    Raises:
        RedraftError: it cannot be read, or has no such size; or what is wrong with a change.
    """
    found, known = _read(source)
    if size not in known:
        raise wrong(found, "sizes", str(unknown("size", size, known)))
    whole: Map = reduce(changed, changes, merged(found, known[size]))
    return whole


def sizes(source: str) -> list[str]:
    """The sizes that a file has, 'full' first."""
    return [*_read(source)[1]]


def _read(source: str) -> tuple[Map, dict[str, Any]]:
    """What the file says, and what each of its sizes changes."""
    path = Path(source)
    if not path.suffix and not path.is_file():
        names = sorted(p.stem for p in SHIPPED.glob("*.yaml"))
        if source not in names:
            raise unknown("experiment", source, names)
        path = SHIPPED / f"{source}.yaml"
    found = read(path)
    given = found.pop("sizes", None) or {}
    if not isinstance(given, dict) or not all(isinstance(value, dict) for value in given.values()):
        raise wrong(found, "sizes", "sizes must be a mapping of names to what they change")
    return found, {"full": {}} | given


def checked(found: Map, most: int | None = None) -> Experiment:
    """The experiment that plain values describe, with every name in it looked up.

    Raises:
        RedraftError: the first thing that is wrong, with its line; or that there are more cells than `most`.
    """
    if "model" in found and not isinstance(found["model"], list):
        found["model"] = [found["model"]]
    if isinstance(metric := found.get("metrics"), str):
        found["metrics"] = Map({metric: "max"}, {metric: found.places.get("metrics", "")})
    experiment: Experiment = call(Experiment, found)
    check(experiment, found)
    if most is not None and (count := counted(experiment)) > most:
        raise RedraftError(f"{count:,d} cells are many: say --yes if you mean it")
    for label, entry in experiment.methods.items():
        places: set[tuple[str, str]] = set()
        for setting in spread(label, entry, found):
            made(setting.method)
            place = (setting.variant, setting.point)
            if place in places:
                raise wrong(found["methods"], label, f"{label!r} has two settings {' '.join(place).strip()!r}")
            places.add(place)
    return experiment


def spread(label: str, entry: Any, found: Map) -> Iterator[Setting]:
    """The settings that an entry of `methods` spans."""
    methods = found["methods"]
    if entry is None:  # taken out by a size
        return
    if not isinstance(entry, dict):
        raise wrong(methods, label, f"{label!r} must be a mapping of settings, such as {{method: ipr}}")
    name = entry.get("method", label)
    if not isinstance(name, str) or name not in METHODS:
        raise wrong(entry if "method" in entry else methods, "method" if "method" in entry else label,
                    str(unknown("method", str(name), METHODS)))  # fmt: skip
    base = Map({k: v for k, v in entry.items() if k not in OWN} | {"name": name}, getattr(entry, "places", {}))
    own = _own_verifier(entry)
    verifier = own if "verifier" in entry else "auto"
    for variant in _product(entry, "grid"):
        for point in _zipped(entry, "scale"):
            method = base
            for path, value in {**variant, **point}.items():
                method = _put(method, path.split("."), value)
            budget = entry.get("budget", found.get("budget"))
            if budget is not None and (not isinstance(budget, int) or isinstance(budget, bool) or budget < 1):
                raise wrong(entry, "budget", f"budget is {budget!r}: it must be a whole number, 1 or more")
            yield Setting(label, _words(variant), _words(point), method, verifier, budget)


def _own_verifier(entry: dict[str, Any]) -> dict[str, Any] | None:
    """The verifier that an entry names for itself."""
    if not entry.get("verifier"):
        return None
    own = Spec.parsed(entry, "verifier")
    found_in(VERIFIERS, own, entry, "verifier")
    return own.plain()


def made(method: dict[str, Any]) -> Any:
    """The method that a name and settings describe."""
    rest = Map({k: v for k, v in method.items() if k != "name"}, getattr(method, "places", {}))
    return call(METHODS[method["name"]], rest)


def cells(experiment: Experiment, chosen: dict[tuple[str, str], str] | None = None) -> list[Cell]:
    """The cells of an experiment, in their order: by shard, so that a run that is ended early is a smaller one.

    Args:
        experiment: the experiment.
        chosen: variant by (model, label), for entries of which it has been chosen; others are only tuned.
    """
    found = Map(vars(experiment), {})
    made_cells: list[Cell] = []
    for model in experiment.model:
        for label, entry in experiment.methods.items():
            tuned = experiment.select is not None and bool(entry) and "grid" in entry
            for setting in spread(label, entry, found):
                if tuned:
                    made_cells += _shards(experiment, model, setting, "tune")
                if not tuned or (chosen or {}).get((model.words, label)) == setting.variant:
                    made_cells += _shards(experiment, model, setting, "report")
    return sorted(made_cells, key=lambda cell: (cell.role == "report", cell.job["shard"][0]))


def _shards(experiment: Experiment, model: Spec, setting: Setting, role: str) -> Iterator[Cell]:
    select, problems, seeds = experiment.select, experiment.problems, experiment.seeds
    if role == "tune" and select:
        problems, seeds = problems | select.problems, select.seeds
    verifier = experiment.verifier.plain() if experiment.verifier else None
    asked = verifier if setting.verifier == "auto" else setting.verifier
    resolved = described(made(setting.method))
    for seed in seeds:
        for start in range(0, problems["n"], experiment.shard):
            job = {
                "task": experiment.task.plain(),
                "model": model.plain(),
                "method": setting.method,
                "resolved": resolved,
                "verifier": asked,
                "judge": verifier,
                "problems": problems,
                "shard": [start, min(start + experiment.shard, problems["n"])],
                "seed": seed,
                "budget": setting.budget,
            }
            job |= {"held_out": experiment.looks} if experiment.held_out else {}
            media = experiment.media if role == "report" else 0
            yield Cell(json.loads(canonical(job)), setting.label, setting.variant, setting.point, role, media)


def counted(experiment: Experiment) -> int:
    """How many cells an experiment spans, those of settings yet to be chosen included; none is made."""
    return len(experiment.model) * sum(_span(experiment, entry) for entry in experiment.methods.values())


def _span(experiment: Experiment, entry: Any) -> int:
    """Cells of an entry of `methods` with one model."""
    if not isinstance(entry, dict):
        return 0
    variants = prod(map(len, _lists(entry, "grid").values()))
    points = max(map(len, _lists(entry, "scale").values()), default=1)
    reported = points * len(experiment.seeds) * _parts(experiment, experiment.problems)
    select = experiment.select
    if select is None or "grid" not in entry:
        return variants * reported
    return reported + variants * points * len(select.seeds) * _parts(experiment, experiment.problems | select.problems)


def _parts(experiment: Experiment, problems: dict[str, Any]) -> int:
    return -(-int(problems["n"]) // experiment.shard)


def _product(entry: dict[str, Any], key: str) -> Iterator[dict[str, Any]]:
    given = _lists(entry, key)
    return (dict(zip(given, some, strict=True)) for some in product(*given.values()))


def _zipped(entry: dict[str, Any], key: str) -> list[dict[str, Any]]:
    given = _lists(entry, key)
    if len({len(values) for values in given.values()}) > 1:
        raise wrong(entry, key, f"the lists of {key} must be of one length")
    return [dict(zip(given, values, strict=True)) for values in zip(*given.values(), strict=True)] or [{}]


def _lists(entry: dict[str, Any], key: str) -> dict[str, list[Any]]:
    given = entry.get(key) or {}
    if not isinstance(given, dict):
        raise wrong(entry, key, f"{key} must be a mapping of settings to lists of values")
    for name, values in given.items():
        if not isinstance(values, list) or not values:
            raise wrong(given, name, f"{name} is {values!r}: a {key} asks for a list of values")
        if name.count(".") > DEEPEST:
            raise wrong(given, name, f"a setting of {key} has more than {DEEPEST} dots")
    return given


def _put(method: dict[str, Any], path: list[str], value: Any) -> Map:
    """`method` with `value` at the path, such as sampler, steps."""
    key, *rest = path
    there = method.get(key) or Map({}, {})
    if rest and not isinstance(there, str | dict):
        raise wrong(method, key, f"{key} is {there!r}, which has no setting {'.'.join(rest)!r}")
    inner = _put(Map({"type": there}, {}) if isinstance(there, str) else there, rest, value) if rest else value
    return Map(dict(method) | {key: inner}, getattr(method, "places", {}))


def _words(values: dict[str, Any]) -> str:
    return ", ".join(f"{path.rpartition('.')[2]}={in_short(value)}" for path, value in values.items())


def outlook(experiment: Experiment, known: list[Cell]) -> list[Cell]:
    """The `known` cells, and as many more as settings that are not chosen yet will take: those of each grid's first."""
    reported = {cell.entry for cell in known if cell.role == "report"}
    first: dict[tuple[str, str], str] = {}
    for cell in known:
        first.setdefault(cell.entry, cell.variant)
    waiting = {key: variant for key, variant in first.items() if key not in reported}
    later = (cell for cell in cells(experiment, waiting) if cell.role == "report")
    return known + [cell for cell in later if cell.entry in waiting]
