"""What an experiment's file names and sets, looked up before anything runs."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin

from redraft.bench.spec import Spec
from redraft.core.build import Map, hints_of, stray, value, wrong
from redraft.core.errors import RedraftError, check_settings, unknown
from redraft.core.registry import MODELS, TASKS, VERIFIERS, Registry
from redraft.core.trace import OWN as COLUMNS

if TYPE_CHECKING:
    from redraft.bench.experiment import Experiment

OF_MODELS = ("device", "compile")  # settings of models that ship
SIMPLE = (bool, int, float, str, NoneType)


def check(experiment: Experiment, found: Map) -> None:
    """Look up every name of an `experiment`, but for those of methods' settings, and see that values can be.

    Raises:
        RedraftError: the first thing that is wrong, with its line in `found`.
    """
    found_in(TASKS, experiment.task, found, "task")
    for spec, given in zip(experiment.model, found["model"], strict=True):
        _model(spec, given, found)
    if experiment.verifier:
        found_in(VERIFIERS, experiment.verifier, found, "verifier")
    for name in experiment.held_out:
        if name in (*COLUMNS, "score"):
            raise wrong(experiment.held_out, name, f"{name!r} is a column of its own: call the metric something else")
        found_in(VERIFIERS, Spec.parsed(experiment.held_out, name), experiment.held_out, name)
    _problems(experiment, found)
    for name, goal in experiment.metrics.items():
        if goal not in ("max", "min"):
            raise wrong(experiment.metrics, name, f"the goal of {name!r} is {goal!r}: use max or min")
        if name in COLUMNS:
            raise wrong(experiment.metrics, name, f"{name!r} is no metric: name those of the task, or score")
    _labels(experiment, found)
    _numbers(experiment, found)


def _problems(experiment: Experiment, found: Map) -> None:
    """Raise unless the task takes the arguments of `problems`."""
    make, select = TASKS[experiment.task.name].problems, experiment.select
    known = inspect.signature(make).parameters.keys() - {"self", "model"}
    chosen = select.problems if select else {}
    for given, key in ((experiment.problems, "problems"), (experiment.problems | chosen, "select")):
        number = given.get("n")
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise wrong(found, key, "problems needs `n`, 1 or more")
    for given in (experiment.problems, chosen):
        for key in given:
            if key not in known:
                raise stray(given, key, known, f"argument of {experiment.task.name!r}'s problems")
            _typed(make, given, key)


def _typed(make: Callable[..., Any], given: dict[str, Any], key: str) -> None:
    """Raise if `make` states that its argument `key` is a number, a word or a truth, and it is not."""
    hint = hints_of(make).get(key, Any)
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if all(kind in SIMPLE for kind in kinds):
        value(hint, given, key)


def found_in(registry: Registry, spec: Spec, holder: dict[str, Any], key: str) -> None:
    """Raise unless the `registry` has what `holder[key]` names, and that takes its settings.

    Raises:
        RedraftError: with the line.
    """
    if spec.name not in registry:
        raise wrong(holder, key, str(unknown(registry.kind, spec.name, registry)))
    for setting in spec.settings:
        try:
            check_settings(f"{registry.kind} {spec.name!r}", registry[spec.name], [setting])
        except RedraftError as error:
            raise wrong(holder[key], setting, str(error)) from error
        _typed(registry[spec.name], holder[key], setting)


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
