"""Search from the command line: pictures that verifiers like, of any diffusers pipeline, and a page that shows them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import redraft
from redraft.commands.hunt import CALL, Hunt, claim, classes, problems_of
from redraft.commands.sized import Plan, baseline, cost, plan, takes_part
from redraft.core.errors import RedraftError, check_settings, require, said, unknown
from redraft.core.files import text_of
from redraft.core.lock import locked
from redraft.core.registry import VERIFIERS
from redraft.models.load import check_call
from redraft.models.weights import pick_device, pick_dtype, read_config
from redraft.tasks.prompt_sets import PromptSet, is_text, load_prompts
from redraft.verifiers.combined import MeanRank, WeightedSum
from redraft.verifiers.load import asks, needed

if TYPE_CHECKING:
    from redraft.core.method import Method


OF_RANDOM_STEPS = ("beam", "svdd", "fk")
"""Methods whose walks part on their way, for which the pipeline's own solver, which draws nothing, will not do."""
OF_OTHERS = ("batched", "mean-rank", "weighted-sum")
"""Verifiers that are made of verifiers."""


@dataclass(frozen=True)
class Kind:
    """What a search takes for granted of a kind of model.

    Attributes:
        sampler: makes the walk of all candidates, of the steps, their stochasticity and path.
        verifier: that guides.
        held_out: verifiers that are shown beside it.
        is_pipeline: it is called with further arguments.
    """

    sampler: Callable[..., Any]
    verifier: str
    held_out: str | None = None
    is_pipeline: bool = True


PIPELINE = Kind(redraft.Scheduled, "clip")
KINDS = {"digits": Kind(redraft.Parallel, "digit-classifier", "digit-oracle", is_pipeline=False)}


def kind_of(model: str) -> Kind:
    """The kind of the model of this name or in this folder, before it is loaded."""
    if os.path.isdir(model):
        with suppress(RedraftError):  # what the folder lacks is said when the model is loaded
            model = str(read_config(Path(model)).get("model"))
    return KINDS.get(model, PIPELINE)


@dataclass(frozen=True)
class Search:
    """Search for pictures that verifiers like best, with any diffusers pipeline, and write a page of them.

    Attributes:
        model: hub id of a pipeline, such as 'black-forest-labs/FLUX.1-dev', or a folder with model_index.json; or
            'digits', which ships, or a folder that `redraft train digits` wrote.
        prompt: what to draw; a class number where the model takes one, of digits 0 to 9.
        prompts: instead, a file of many; see `redraft.tasks.prompt_sets`.
        set: what file it is: 'drawbench', 'parti', 't2i-compbench', 'text' or 'json'; by its ending when not given.
        limit: take the first so many prompts only.
        verifier: guides the search, a name from `redraft list`; of several, as in 'clip,aesthetic', the mean rank
            does; with weights, as in 'clip:1,aesthetic:0.1', their sum. By default 'clip', of digits
            'digit-classifier'.
        held_out: verifiers that are only shown beside it; of digits 'digit-oracle' if no verifier is named at all.
        verifier_options: settings of verifiers as JSON or the path of a file with it: {"clip": {"checkpoint": "..."}}.
        method: 'random', 'zero-order', 'paths', 'halving', 'draft-then-verify', 'evolution', 'beam', 'svdd' or 'fk'.
        settings: of the method, such as neighbours=2 cosine=0.9.
        budget: the most network evaluations (NFE) that an image may cost, guidance counted twice; the method is made as
            large as fits. The method's own size when not given.
        steps: of the pipeline's scheduler, or of Euler's method.
        stochasticity: of a step, 0 for the pipeline's own solver, 1 for ancestral sampling along its levels; by default
            0, and 1 for 'beam', 'svdd' and 'fk', which need random steps.
        path: 'own', or of random steps and a flow 'vp', the levels of a variance-preserving path.
        n_images: for each prompt, each with a search of its own.
        batch: candidates of an image at once, in random search.
        seed: of all randomness.
        out: folder to write to; the same command with the same folder goes on where it was stopped.
        device: such as 'cuda'; a GPU if there is one when not given.
        dtype: of the weights, such as 'bfloat16'.
        guidance_scale: of the pipeline's call; the pipeline's own when not given.
        negative_prompt: of the pipeline's call.
        height: of the pictures in pixels, with width.
        width: of the pictures in pixels, with height.
    """

    model: str
    prompt: str | None = None
    prompts: Path | None = None
    set: str | None = None
    limit: int | None = None
    verifier: str | None = None
    held_out: str | None = None
    verifier_options: str | None = None
    method: str = "random"
    settings: tuple[str, ...] = ()
    budget: int | None = None
    steps: int = 30
    stochasticity: float | None = None
    path: Literal["own", "vp"] = "own"
    n_images: int = 1
    batch: int = 4
    seed: int = 0
    out: Path = Path("redraft-search")
    device: str | None = None
    dtype: str | None = None
    guidance_scale: float | None = None
    negative_prompt: str | None = None
    height: int | None = None
    width: int | None = None

    def run(self) -> Hunt:
        """Search, prompt by prompt, and write the page."""
        require("PIL.Image", extra="plot")
        kind = kind_of(self.model)
        command = self._of(kind)
        command._check(kind)
        prompts, sampler = command._prompts(), command._sampler(kind)
        open_plan = command._plan(sampler)
        command._check_verifiers()
        with locked(claim(self.out)):
            early = command._early()
            model = redraft.load_model(self.model, self.device, **self.given())
            hunt = command._hunt(model, sampler, open_plan, early, prompts)
            hunt.check()
            hunt.go()
        return hunt

    def given(self) -> dict[str, Any]:
        """What the model and its call are given, of `CALL`."""
        return {name: value for name in CALL if (value := getattr(self, name)) is not None}

    @cached_property
    def options(self) -> dict[str, dict[str, Any]]:
        """Settings of the verifiers, by name.

        Raises:
            RedraftError: they are none, or of verifiers that there are not or that are not asked.
        """
        _, parts, apart = self._names
        return _options(self.verifier_options, (*parts, *apart))

    def _of(self, kind: Kind) -> Search:
        """The command with the verifiers of the kind, if it names none."""
        if self.verifier is not None:
            return self
        return replace(self, verifier=kind.verifier, held_out=kind.held_out if self.held_out is None else self.held_out)

    @cached_property
    def _names(self) -> tuple[dict[str, float] | None, list[str], list[str]]:
        return guides(self.verifier or "", self.held_out)

    def _check(self, kind: Kind) -> None:
        """Raise for what no search can be made of, before anything is loaded."""
        for name in ("n_images", "steps", "batch", "limit", "budget"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise RedraftError(f"--{name.replace('_', '-')} is {value}: it must be 1 or more")
        if self.given() and not kind.is_pipeline:
            name = next(iter(self.given()))
            raise RedraftError(f"--{name.replace('_', '-')} is for pipelines of diffusers: leave it out")
        pick_device(self.device)
        pick_dtype(self.dtype)
        check_call(self.given())

    def _prompts(self) -> PromptSet:
        if (self.prompt is None) == (self.prompts is None):
            raise RedraftError("give either --prompt, one text, or --prompts, a file of them")
        for option, text in (("--prompt", self.prompt), ("--negative-prompt", self.negative_prompt)):
            if not is_text(text or ""):
                raise RedraftError(f"{option} is {text!r}, which is no text in UTF-8")
        found = PromptSet("one", [self.prompt]) if self.prompt is not None else load_prompts(self.prompts, self.set)  # type: ignore[arg-type]
        if found.repeated:
            print(f"{found.repeated} repeated prompts are left out")
        if self.limit is None:
            return found
        facts = {name: values[: self.limit] for name, values in found.facts.items()}
        return PromptSet(found.name, found.texts[: self.limit], facts)

    def _sampler(self, kind: Kind) -> Any:
        """The walk of all candidates."""
        stochasticity = self.stochasticity
        if stochasticity is None:
            stochasticity = float(self.method in OF_RANDOM_STEPS)
        if not 0 <= stochasticity <= 1:
            raise RedraftError(f"--stochasticity is {stochasticity}: it must lie in [0, 1]")
        if self.path != "own" and not stochasticity and kind.is_pipeline:
            raise RedraftError(
                f"--path {self.path} is for random steps, as the pipeline's solver has levels of its own: add "
                "--stochasticity 1"
            )
        return kind.sampler(self.steps, stochasticity=stochasticity, path=self.path)

    def _plan(self, sampler: Any) -> Plan:
        """The method, of a size that is still open."""
        rough = replace(sampler, steps=max(1, self.steps // 4))
        found = plan(self.method, self.batch, self.settings, sampler=sampler, draft=rough)
        found.check(self.budget)
        weights, parts, _ = self._names
        if self.method in OF_RANDOM_STEPS and weights is None and len(parts) > 1:
            weighed = ",".join(f"{name}:1" for name in parts)
            raise RedraftError(
                f"{self.method} compares scores of different calls, and several verifiers without weights give ranks "
                f"within one: weigh them, as in --verifier {weighed}"
            )
        return found

    def _check_verifiers(self) -> None:
        _, parts, apart = self._names
        options = self.options
        for name in (*parts, *apart):
            check_verifier(name, options.get(name, {}))

    def _early(self) -> dict[str, Any]:
        """The verifiers that need no model, which are soon loaded, or soon refused, beside one."""
        _, parts, apart = self._names
        names, options = [name for name in (*parts, *apart) if not asks(name, "denoiser")], self.options
        return {name: made_verifier(name, None, options.get(name, {})) for name in names}

    def _hunt(self, model: Any, sampler: Any, open_plan: Plan, early: dict[str, Any], prompts: PromptSet) -> Hunt:
        """The search, with all that it needs."""
        weights, parts, apart = self._names
        self._check_model(model, sampler, prompts)
        options = self.options
        loaded = {
            name: early[name] if name in early else made_verifier(name, model, options.get(name, {}))
            for name in (*parts, *apart)
        }
        guide = combined(weights, {name: loaded[name] for name in parts})
        roles = dict.fromkeys(parts, "guide") | dict.fromkeys(apart, "held out")
        method = self._sized(open_plan, model, sampler, problems_of(model, prompts, 0, 1))
        return Hunt(self, model, sampler, method, guide, loaded, roles, prompts, self.out)

    def _sized(self, open_plan: Plan, model: Any, sampler: Any, problem: Any) -> Method:
        """The method, as large as the budget allows."""
        if self.budget is None:
            return open_plan.of()
        known = open_plan.of(open_plan.settings.get(open_plan.size, 64))
        beside = cost(baseline(known, sampler), model, problem) if takes_part(known) else 0
        sized = open_plan.within if open_plan.is_fixed else open_plan.fitted
        return sized(model, problem, self.budget, beside)

    def _check_model(self, model: Any, sampler: Any, prompts: PromptSet) -> None:
        """Raise for a model that the search cannot be made with; say which prompts it cuts off."""
        if not hasattr(model, "condition") or isinstance(sampler, redraft.Scheduled) and "schedule" not in model.offers:
            raise RedraftError(f"{self.model!r} is no pipeline of diffusers: use `redraft sample` for it")
        if self.method in OF_RANDOM_STEPS and not sampler.random_steps(model):
            raise RedraftError(
                f"{self.method} lets several walks go on from one state, which need random steps, and this model's own "
                "draw nothing: leave out --stochasticity, or give --stochasticity 1"
            )
        if numbers := classes(model, prompts.texts):
            model.condition(numbers)
        elif hasattr(model, "cut"):
            tell_of_cuts(model, prompts.texts)


def tell_of_cuts(model: Any, texts: list[str]) -> None:
    """Say once if prompts are longer than the pipeline reads, which cuts them off."""
    cuts = [(number, cut) for number, text in enumerate(texts, 1) for cut in model.cut(text)[:1]]
    if not cuts:
        return
    number, cut = cuts[0]
    which = "the prompt is"
    if len(texts) > 1:
        which = f"{len(cuts)} of {len(texts)} prompts are" if len(cuts) > 1 else f"prompt number {number} is"
    first = f"number {number} has " if len(cuts) > 1 else ""
    print(
        f"redraft: {which} longer than the pipeline reads, which cuts off the rest: {first}{cut.tokens} tokens, and "
        f"its {cut.tokenizer} takes {cut.most}",
        file=sys.stderr,
    )


def check_verifier(name: str, options: dict[str, Any]) -> None:
    """Raise unless there is a verifier of that name that a search can make with these settings.

    Raises:
        RedraftError: there is none.
    """
    if name in OF_OTHERS:
        raise RedraftError(f"{name!r} is made of verifiers: name these, as in --verifier clip,aesthetic")
    check_settings(f"verifier {name!r}", VERIFIERS[name], options)
    missing = [key for key in needed(name) if key not in options]
    if "task" in missing:
        raise RedraftError(f"the verifier {name!r} judges what a task asks for, and a prompt is none: name another one")
    if missing:
        example = json.dumps({name: dict.fromkeys(missing, "...")})
        raise RedraftError(f"the verifier {name!r} needs {', '.join(missing)}: give --verifier-options '{example}'")


def made_verifier(name: str, model: Any, options: dict[str, Any]) -> Any:
    """The verifier of that name, with the model if it asks for one.

    Raises:
        RedraftError: it cannot be loaded, or refuses a setting.
    """
    try:
        return redraft.load_verifier(name, None, model, **options)
    except (TypeError, ValueError) as error:
        raise RedraftError(f"--verifier-options of {name!r} cannot be followed: {said(error)}") from error


def guides(verifier: str, apart: str | None) -> tuple[dict[str, float] | None, list[str], list[str]]:
    """Weights by name, if there are any, the guides' names, and those held out.

    Raises:
        RedraftError: no names, some with a weight and some without, no weight but 0, or one name twice.
    """
    pairs = [name.strip().partition(":") for name in verifier.split(",") if name.strip()]
    names = [name for name, _, _ in pairs]
    others = [name.strip() for name in (apart or "").split(",") if name.strip()]
    if not names:
        raise RedraftError("give a verifier, such as --verifier clip")
    if twice := [name for place, name in enumerate(names + others) if name in (names + others)[:place]]:
        raise RedraftError(f"verifier {twice[0]!r} is named twice")
    weights = [weight for _, _, weight in pairs]
    if not any(weights):
        return None, names, others
    try:
        guide = {name: float(weight) for name, weight in zip(names, weights, strict=True)}
    except ValueError as error:
        raise RedraftError(f"{verifier!r} gives no number for each verifier: as in clip:1,aesthetic:0.1") from error
    if not any(guide.values()):
        raise RedraftError(f"{verifier!r} gives no verifier a weight, so that all pictures score 0: weigh one by 1")
    return guide, names, others


def combined(weights: dict[str, float] | None, parts: dict[str, Any]) -> Any:
    """One verifier of all."""
    if weights:
        return WeightedSum({name: (verifier, weights[name]) for name, verifier in parts.items()})
    return next(iter(parts.values())) if len(parts) == 1 else MeanRank(parts)


def _options(given: str | None, asked: Collection[str]) -> dict[str, dict[str, Any]]:
    """Settings of the verifiers `asked`, by name.

    Raises:
        RedraftError: it is none, or of verifiers that there are not or that are not asked.
    """
    if given is None:
        return {}
    try:
        found = json.loads(given if given.lstrip().startswith("{") else text_of(Path(given)))
        if not all(isinstance(value, dict) for value in found.values()):
            raise ValueError("a verifier's settings are no object")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise RedraftError(f"--verifier-options is neither JSON by verifier nor a file with it: {error}") from error
    for name in found:
        if name not in VERIFIERS:
            raise unknown("verifier in --verifier-options", name, VERIFIERS)
        if name not in asked:
            raise RedraftError(f"--verifier-options has settings of {name!r}, which no --verifier or --held-out names")
    return dict(found)
