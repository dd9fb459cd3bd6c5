"""The contract test of tasks."""

from __future__ import annotations

from numbers import Real
from typing import Any

import torch
from torch import Tensor

from redraft.core.content import content
from redraft.core.task import Problems, Task
from redraft.testing.saying import asked, backwards, contract, must, near, of_kind, shaped

TOLERANCE = 1e-5  # of metrics


@contract("task")
@torch.no_grad()
def check_task(task: Task, samples: Tensor) -> None:
    """Check what runs and experiments rely on, with two samples (P, ...) or more that differ, for the first P problems.

    - a problem follows from its number, whatever the number of problems, with what it is conditioned on and its facts,
      and has an id of its own in every seed, split;
    - `frozen` is (P, R) truths for x (P, R, *region), and something is free in each problem;
    - each metric has a value for each sample, (P,), which follows it when the order changes, is the same alone and when
      asked again; `evaluate_set`, where there is one, gives numbers by name;
    - samples and problems stay as they are, and no global random generator is moved.

    Raises:
        AssertionError: it breaks one of these; the sentence says which.
    """
    of_kind(samples, Tensor, "`samples`")
    must(samples.ndim > 0 and len(samples) >= 2, "one sample shows nothing of batches: give two or more")
    of_kind(task.name, str, "the task's `name`")
    problems = _check_problems(task, len(samples))
    kept, given = samples.clone(), content(problems)
    _check_metrics(task, samples, problems, kept)
    if measure := getattr(task, "evaluate_set", None):
        found = asked("evaluate_set", measure, samples, problems)
        of_kind(found, dict, "what `evaluate_set` gives")
        for name, value in found.items():
            of_kind(value, (int, float, Real), f"{name} of the set")
    must(torch.equal(samples, kept), "the task changes its samples")
    must(content(problems) == given, "the task changes its problems")


def _check_problems(task: Task, n: int) -> Problems:
    problems: Any = asked("problems", task.problems, n)
    of_kind(problems, Problems, "what `problems` gives")
    must(len(problems) == n, f"{n} problems are asked for, and there are {len(problems)}")
    must(content(asked("problems", task.problems, n)) == content(problems), "problems change when asked for again")
    fewer = asked("problems, of one,", task.problems, 1)
    must(content(problems[:1]) == content(fewer), "a problem depends on how many are made")
    kinds = [asked("problems", task.problems, n, seed, split) for seed in (0, 1) for split in ("train", "test")]
    ids = torch.cat([each.ids for each in kinds])
    must(problems.ids.dtype == torch.int64, f"ids are of {problems.ids.dtype}, where int64 is asked for")
    must(len(set(ids.tolist())) == len(ids), "two problems have one id")
    must(
        torch.equal(kinds[1].ids, problems.ids),
        "problems are not those of seed 0 and split 'test' unless others are named",
    )
    shaped(problems.frozen, problems.x.shape[:2], "frozen")
    must(problems.frozen.dtype == torch.bool, f"frozen is of {problems.frozen.dtype}, where truths are asked for")
    must(not problems.frozen.all(1).any(), "a problem has every region frozen: there is nothing to generate")
    made: Problems = problems
    return made


def _check_metrics(task: Task, samples: Tensor, problems: Problems, kept: Tensor) -> None:
    """What is measured of a sample is its own."""
    metrics, back = asked("evaluate", task.evaluate, samples, problems), backwards(problems)
    must(torch.equal(samples, kept), "the task changes its samples")
    of_kind(metrics, dict, "what `evaluate` gives")
    again = asked("evaluate", task.evaluate, samples, problems)
    turned = asked("evaluate", task.evaluate, samples[back], problems[back])
    rows = range(len(samples))
    alone = [asked("evaluate, of one,", task.evaluate, samples[i : i + 1], problems[i : i + 1]) for i in rows]
    for name, values in metrics.items():
        shaped(values, samples.shape[:1], f"{name}")
        for found, when in (
            (again, "asked again"),
            (turned, "the order changes"),
            *((each, "alone") for each in alone),
        ):
            must(name in found, f"{name} is not there when {when}")
        near(again[name], values, TOLERANCE, f"{name} changes when asked again")
        near(turned[name].flip(0), values, TOLERANCE, f"{name} is out of order")
        near(torch.cat([each[name] for each in alone]), values, TOLERANCE, f"{name} of a sample depends on its batch")
