"""What an experiment's file says, and the cells that it spans."""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, reduce
from itertools import product
from pathlib import Path
from typing import Any, Literal, Self

from redraft.bench.plain import canonical, changed, merged, read
from redraft.core.build import Map, call, stray, wrong
from redraft.core.errors import RedraftError, check_settings, unknown
from redraft.core.registry import METHODS, MODELS, TASKS, VERIFIERS, Registry
from redraft.core.result import described
from redraft.core.trace import OWN as COLUMNS

SHIPPED = Path(__file__).parent / "experiments"
OWN = ("method", "grid", "scale", "verifier", "budget")  # keys of an entry that are not the method's settings
OF_MODELS = ("device", "compile")  # settings of models that ship
Goal = Literal["max", "min"]


@dataclass(frozen=True)
class Spec:
    """A name of a registry, with settings."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def parsed(cls, holder: dict[str, Any], key: str) -> Self:
        """From a name, or a mapping with `name` and settings."""
        given = holder[key]
        if isinstance(given, str):
            return cls(given)
        if not isinstance(given, dict) or not isinstance(given.get("name"), str):
            raise wrong(holder, key, f"{key} must be a name, or a mapping with a `name`")
        return cls(given["name"], {k: v for k, v in given.items() if k != "name"})

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        return {"name": self.name, **self.settings}

    @property
    def words(self) -> str:
        """Short, for people."""
        return _word(self.plain(), "name")


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
        said = {key: value for key, value in self.job.items() if key != "method"}  # `resolved` says the same in full
        said["problems"] = {key: value for key, value in said["problems"].items() if key != "n"}  # the shard says which
        return hashlib.sha256(canonical(said).encode()).hexdigest()[:16]

    @property
    def model(self) -> str:
        """The model with its settings, in words."""
        return _word(self.job["model"], "name")

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


def load(source: str, size: str = "full", changes: Iterable[str] = ()) -> Experiment:
    """The experiment in a file, or one that ships by its name, in one of its sizes, with `changes` such as 'media=3'.

    Raises:
        RedraftError: what is wrong with the file, with the line, or with a change.
    """
    path = Path(source)
    if not path.suffix and not path.is_file():
        names = sorted(p.stem for p in SHIPPED.glob("*.yaml"))
        if source not in names:
            raise unknown("experiment", source, names)
        path = SHIPPED / f"{source}.yaml"
    found = read(path)
    sizes = found.pop("sizes", None) or {}
    if not isinstance(sizes, dict) or not all(isinstance(value, dict) for value in sizes.values()):
        raise wrong(found, "sizes", "sizes must be a mapping of names to what they change")
    if size != "full" and size not in sizes:
        raise wrong(found, "sizes", str(unknown("size", size, ["full", *sizes])))
    return checked(reduce(changed, changes, merged(found, sizes.get(size) or {})))


def checked(found: Map) -> Experiment:
    """The experiment that plain values describe, with every name in it looked up.

    Raises:
        RedraftError: the first thing that is wrong, with its line.
    """
    if "model" in found and not isinstance(found["model"], list):
        found["model"] = [found["model"]]
    if isinstance(metric := found.get("metrics"), str):
        found["metrics"] = Map({metric: "max"}, {metric: found.places.get("metrics", "")})
    experiment: Experiment = call(Experiment, found)
    _names(experiment, found)
    for label, entry in experiment.methods.items():
        places: set[tuple[str, str]] = set()
        for setting in spread(label, entry, found):
            made(setting.method)
            place = (setting.variant, setting.point)
            if place in places:
                raise wrong(found["methods"], label, f"{label!r} has two settings {' '.join(place).strip()!r}")
            places.add(place)
    return experiment


def _names(experiment: Experiment, found: Map) -> None:
    _found(TASKS, experiment.task, found, "task")
    for spec, given in zip(experiment.model, found["model"], strict=True):
        _model(spec, given, found)
    if experiment.verifier:
        _found(VERIFIERS, experiment.verifier, found, "verifier")
    for name in experiment.held_out:
        if name in (*COLUMNS, "score"):
            raise wrong(experiment.held_out, name, f"{name!r} is a column of its own: call the metric something else")
        _found(VERIFIERS, Spec.parsed(experiment.held_out, name), experiment.held_out, name)
    known = inspect.signature(TASKS[experiment.task.name].problems).parameters.keys() - {"self", "model"}
    for given in (experiment.problems, experiment.select.problems if experiment.select else {}):
        for key in given:
            if key not in known:
                raise stray(given, key, known, f"argument of {experiment.task.name!r}'s problems")
    select = experiment.select
    for given, key in (
        (experiment.problems, "problems"),
        (experiment.problems | (select.problems if select else {}), "select"),
    ):
        number = given.get("n")
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise wrong(found, key, "problems needs `n`, 1 or more")
    for name, goal in experiment.metrics.items():
        if goal not in ("max", "min"):
            raise wrong(experiment.metrics, name, f"the goal of {name!r} is {goal!r}: use max or min")
        if name in COLUMNS:
            raise wrong(experiment.metrics, name, f"{name!r} is no metric: name those of the task, or score")
    _labels(experiment, found)
    _numbers(experiment, found)


def _found(registry: Registry, spec: Spec, holder: dict[str, Any], key: str) -> None:
    """Raise unless the `registry` has what `holder[key]` names, and that takes its settings."""
    if spec.name not in registry:
        raise wrong(holder, key, str(unknown(registry.kind, spec.name, registry)))
    for setting in spec.settings:
        try:
            check_settings(f"{registry.kind} {spec.name!r}", registry[spec.name], [setting])
        except RedraftError as error:
            raise wrong(holder[key], setting, str(error)) from error


def _model(spec: Spec, given: Any, found: Map) -> None:
    """Raise unless there may be such a model; settings of others than those that ship are seen when they are loaded."""
    if Path(spec.name).is_dir():
        return
    if not MODELS.ships(spec.name):
        if "/" not in spec.name and spec.name not in MODELS:
            raise wrong(found, "model", str(unknown("model", spec.name, MODELS)))
        return
    for setting in spec.settings:
        if setting not in OF_MODELS:
            raise stray(given, setting, OF_MODELS, f"setting of model {spec.name!r}")


def _labels(experiment: Experiment, found: Map) -> None:
    name = experiment.name
    if not name.strip() or name.startswith(".") or "/" in name or "\\" in name:  # it becomes a folder's
        raise wrong(found, "name", f"name is {name!r}: it must be a word without slashes that begins with no dot")
    if experiment.shard < 1 or not experiment.seeds:
        raise wrong(found, "shard", "shard must be 1 or more, and seeds name one or more")
    for key in ("model", "metrics"):
        if not getattr(experiment, key):
            raise wrong(found, key, f"{key} must name one or more")
    if experiment.media < 0:
        raise wrong(found, "media", f"media is {experiment.media}: it must be 0 or more")
    labels = [label for label, entry in experiment.methods.items() if entry is not None]
    if not labels:
        raise wrong(found, "methods", "methods names no method")
    if experiment.baseline is not None and experiment.baseline not in labels:
        raise wrong(found, "baseline", str(unknown("method", experiment.baseline, labels)))
    select = experiment.select
    if select is None:
        entry = None if experiment.baseline is None else experiment.methods[experiment.baseline]
        if isinstance(entry, dict) and entry.get("grid"):
            raise wrong(found, "baseline", "a baseline with a grid needs `select`, which chooses one of its settings")
        return
    if not select.seeds:
        raise wrong(found["select"], "seeds", "seeds must name one or more")
    if select.metric not in experiment.metrics:
        raise wrong(found["select"], "metric", str(unknown("metric", select.metric, experiment.metrics)))
    shared = set(select.seeds) & set(experiment.seeds)
    same = {**experiment.problems, **select.problems, "n": 0} == {**experiment.problems, "n": 0}
    if shared and same:
        raise wrong(found["select"], "seeds", f"seed {min(shared)} both selects and reports: use others, or `problems`")


def _numbers(experiment: Experiment, found: Map) -> None:
    for key in ("budgets", "seconds"):
        for given in getattr(experiment, key):
            if not 0 < given <= sys.float_info.max:
                raise wrong(found, key, f"{key} has {given}: each must be more than 0, and finite")
    _seeds(experiment.seeds, found)
    select = experiment.select
    if select:
        _seeds(select.seeds, found["select"])
        if select.budget is not None and select.budget < 1:
            raise wrong(found["select"], "budget", f"budget is {select.budget}: it must be 1 or more")


def _seeds(seeds: tuple[int, ...], holder: dict[str, Any]) -> None:
    for place, seed in enumerate(seeds):
        if seed in seeds[:place]:
            raise wrong(holder, "seeds", f"seeds has {seed} twice")
        if abs(seed) >= 2**63:
            raise wrong(holder, "seeds", f"seeds has {seed}: it must lie between -2**63 and 2**63")


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
    _found(VERIFIERS, own, entry, "verifier")
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


def _product(entry: dict[str, Any], key: str) -> list[dict[str, Any]]:
    given = _lists(entry, key)
    return [dict(zip(given, values, strict=True)) for values in product(*given.values())]


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
    return ", ".join(f"{path.rpartition('.')[2]}={_word(value)}" for path, value in values.items())


def _word(value: Any, *kinds: str) -> str:
    """A value in short: a mapping by its kind, with its other keys in brackets, so that no two are the same."""
    if isinstance(value, dict):
        kind = next((key for key in (*kinds, "preset", "type") if key in value), None)
        rest = ", ".join(f"{key}={_word(other)}" for key, other in value.items() if key != kind)
        return f"{value[kind] if kind else ''}({rest})" if rest else str(value[kind] if kind else "{}")
    return canonical(value) if isinstance(value, list) else str(value)


def outlook(experiment: Experiment, known: list[Cell]) -> list[Cell]:
    """The `known` cells, and as many more as settings that are not chosen yet will take: those of each grid's first."""
    reported = {cell.entry for cell in known if cell.role == "report"}
    first: dict[tuple[str, str], str] = {}
    for cell in known:
        first.setdefault(cell.entry, cell.variant)
    waiting = {key: variant for key, variant in first.items() if key not in reported}
    later = (cell for cell in cells(experiment, waiting) if cell.role == "report")
    return known + [cell for cell in later if cell.entry in waiting]
