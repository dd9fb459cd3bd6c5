"""Verifiers of the task `digits`: a supervised one, the one that is the metric, and one that has seen no label."""

from __future__ import annotations

from functools import partial

from redraft.core.fields import Share, checks
from redraft.core.model import Model
from redraft.core.task import Task
from redraft.models.nets.judge import Judge
from redraft.tasks.judges import ROWS, features, load_judge, logits
from redraft.verifiers.pictures import SelfAgreement
from redraft.verifiers.sets import ISOracle


def classifier(task: Task | None = None) -> ISOracle:
    """Log-probability of the wanted digit under the guide, a judge that the task does not measure by."""
    return ISOracle(partial(logits, _judge("guide", task)), ROWS)


def oracle(task: Task | None = None) -> ISOracle:
    """Log-probability of the wanted digit under the held-out judge, which the task measures by: a ceiling only."""
    return ISOracle(partial(logits, _judge("held-out", task)), ROWS)


@checks
def self_supervised(task: Task | None = None, denoiser: Model | None = None, level: Share = 0.4) -> SelfAgreement:
    """Agreement of a digit with the model's own prediction from a noisy copy, in features learned without labels.

    Args:
        task: its judges are taken; those that ship if not given.
        denoiser: the model; the one that ships if not given.
        level: of noise.
    """
    if denoiser is None:
        from redraft.models.load import load_model

        denoiser = load_model("digits")
    return SelfAgreement(denoiser, partial(features, _judge("label-free", task)), level, rows=ROWS)


def _judge(name: str, task: Task | None) -> Judge:
    return load_judge(name, getattr(task, "judges", None), getattr(task, "mnist", None))
