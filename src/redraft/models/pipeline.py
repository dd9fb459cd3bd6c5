"""Any diffusers pipeline that starts from latents, as a model of one region: the whole picture or video.

A state's values (B, 1, *latent) have unit variance at every level: x = (1 - t) x0 + t e for flow matching, and
x = sqrt(1 - t^2) x0 + t e for all schedulers that are trained on variance-preserving noise, also those that count in
sigma (x0 + sigma e), whose scale the model's `Schedule` holds.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from redraft.core.errors import RedraftError, require, unknown
from redraft.core.state import Prediction, State, expand
from redraft.models import probe
from redraft.models.weights import fingerprint
from redraft.processes.flow import RectifiedFlow
from redraft.processes.vp import VariancePreserving, noise_in, signal

KINDS = ("epsilon", "sample", "v_prediction", "flow_prediction")


@dataclass(frozen=True)
class Schedule:
    """The steps of a pipeline's scheduler.

    Attributes:
        scheduler: a copy of it, with its timesteps set; never stepped itself.
        timesteps: of the n steps, as the network is told.
        levels: of noise (n + 1,) before each step and after the last, which is 0.
        scales: (n + 1,), what a state's values are multiplied by for the scheduler.
        start: what pure noise is multiplied by for the first step.
        options: the pipeline's own arguments of the scheduler's step.
    """

    scheduler: Any
    timesteps: Tensor
    levels: Tensor
    scales: Tensor
    start: float
    options: dict[str, Any]


@dataclass(frozen=True)
class PipelineModel:
    """A diffusers pipeline; decoded samples are pictures (B, C, H, W) or videos (B, F, C, H, W) in [0, 1].

    Attributes:
        name: how users call it.
        pipeline: of diffusers, with the scheduler that the model is to keep.
        example: what the network is conditioned on, for one row (1, ...) each.
        options: further arguments of the pipeline's call, such as guidance_scale, height and width.
        decode_rows: rows that are decoded at once.
    """

    name: str
    pipeline: Any
    example: dict[str, Tensor]
    options: dict[str, Any] = field(default_factory=dict)
    decode_rows: int = 4
    graph = None
    dtype = torch.float32
    _schedules: dict[int, Schedule] = field(default_factory=dict, repr=False, compare=False)
    _told: dict[float, Tensor] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def offers(self) -> frozenset[str]:
        """What it can do."""
        return frozenset({"schedule", "conditions"})

    @property
    def codec(self) -> PipelineModel:
        """Itself: it makes conditions of prompts."""
        return self

    @cached_property
    def net(self) -> nn.Module:
        """The denoiser."""
        return probe.denoisers(self.pipeline)[0]

    @cached_property
    def digest(self) -> str:
        """Tells the weights, the call's options and the schedulers apart."""
        scheduler = self.pipeline.scheduler
        settings = (sorted(self.options.items()), type(scheduler).__name__, sorted(scheduler.config.items()))
        return hashlib.sha256(f"{fingerprint(self.net)} {settings}".encode()).hexdigest()[:12]

    @cached_property
    def kind(self) -> str:
        """What the network's output means, one of `KINDS`."""
        scheduler = self.pipeline.scheduler
        flow = "FlowMatch" in type(scheduler).__name__
        kind = "flow_prediction" if flow else getattr(scheduler.config, "prediction_type", None)
        if kind not in KINDS:
            raise RedraftError(
                f"{type(scheduler).__name__} of {self.name!r} has prediction type {kind!r}; supported are "
                f"{', '.join(KINDS)}"
            )
        return str(kind)

    @property
    def flow(self) -> bool:
        """Whether noise is added by x = (1 - t) x0 + t e."""
        return self.kind == "flow_prediction"

    @property
    def process(self) -> RectifiedFlow | VariancePreserving:
        """The forward noising."""
        return RectifiedFlow() if self.flow else VariancePreserving()

    @property
    def shape(self) -> tuple[int | None, ...]:
        """(1, *latent)."""
        return (1, *self._first[0].sample.shape[1:])

    @property
    def nfe_per_row(self) -> int:
        """Network rows that one row takes: 2 under guidance."""
        return self._first[1]

    def predict(self, state: State) -> Prediction:
        """One network evaluation for each row, guidance as the pipeline has it; rows of one level are one batch."""
        clean = torch.empty_like(state.x)
        for level in sorted(set(state.t[:, 0].tolist())):
            rows = (state.t[:, 0] == level).nonzero()[:, 0]
            part = state[rows]
            clean[rows] = self._clean(part, self._output(part, self._timestep(level)))
        return Prediction(clean)

    def output(self, state: State, prediction: Prediction) -> Tensor:
        """What the scheduler calls the network's output (B, 1, *latent), as `kind` says, of a prediction."""
        if self.kind == "sample":
            return prediction.clean
        if self.flow:
            return RectifiedFlow().velocity(state, prediction)
        noise = noise_in(state, prediction.clean)
        if self.kind == "epsilon":
            return noise
        t = expand(state.t, state.x)
        return signal(t) * noise - t * prediction.clean

    def schedule(self, steps: int) -> Schedule:
        """The steps that the pipeline walks when it is asked for `steps` of them.

        Raises:
            RedraftError: its scheduler takes another number of network evaluations, or scales its input in a way that
                is not known here.
        """
        if steps not in self._schedules:
            made = self._made(steps)
            self._schedules[steps] = made
            self._told.update({level: made.timesteps[k : k + 1] for k, level in enumerate(made.levels[:-1].tolist())})
        return self._schedules[steps]

    def decode(self, x: Tensor) -> Tensor:
        """Pictures (B, C, H, W) or videos (B, F, C, H, W) in [0, 1] of clean latents (B, 1, *latent).

        It is the end of the pipeline's own call, with no steps before it.
        """
        return torch.cat([self._decoded(part) for part in torch.split(x, self.decode_rows)])

    def encode(self, samples: Tensor) -> Tensor:
        """Not known of a pipeline.

        Raises:
            RedraftError: always.
        """
        raise RedraftError(f"{self.name!r} cannot turn pictures back into latents: leave start=None")

    def condition(self, prompts: Sequence[Any]) -> dict[str, Tensor]:
        """What the network is conditioned on, by name, one entry a prompt.

        Args:
            prompts: texts, class numbers, or dicts of embeddings (1, ...) by the names of the pipeline's arguments.

        Raises:
            RedraftError: they are mixed, or not what the pipeline takes.
        """
        return conditions(self.pipeline, prompts, self.options, self.name)

    def check(self) -> None:
        """Raise unless the pipeline can be a model.

        Raises:
            RedraftError: it starts from something else than latents or classes, refuses its arguments, never calls its
                network, or has a scheduler of an unknown kind.
        """
        known = probe.parameters(self.pipeline)
        if "latents" not in known and "class_labels" not in known:
            raise RedraftError(f"the pipeline of {self.name!r} takes no latents and no classes: it has no known prior")
        if self.kind and not self.nfe_per_row:
            raise RedraftError(f"the pipeline of {self.name!r} ends before its network is called")
        self.schedule(4)  # any number shows whether the scheduler is a known one

    @cached_property
    def _first(self) -> tuple[probe.StandIn, int]:
        """One evaluation without latents given, which shows their shape, and the network rows that it took."""
        last = torch.tensor([self.pipeline.scheduler.config.num_train_timesteps - 1])
        stand_in = probe.StandIn(self.pipeline.scheduler, last)
        with probe.counted_rows(self.pipeline) as rows:
            probe.call(self.pipeline, stand_in, self._on_device(self.example), self._options(1), None, self.name)
        return stand_in, sum(rows)

    def _options(self, steps: int) -> dict[str, Any]:
        return self.options | {"num_inference_steps": steps}

    def _on_device(self, cond: dict[str, Tensor]) -> dict[str, Tensor]:
        weight = next(self.net.parameters())
        return {k: v.to(weight.device, weight.dtype if v.is_floating_point() else None) for k, v in cond.items()}

    def _output(self, state: State, timestep: Tensor) -> Tensor:
        """The network's output (B, 1, *latent) for rows of one level."""
        stand_in = probe.StandIn(self.pipeline.scheduler, timestep.to(state.x.device))
        latents = state.x[:, 0].to(next(self.net.parameters()).dtype)
        cond = {name: state.cond[name] for name in self.example if name in state.cond}
        with probe.counted_rows(self.pipeline) as rows:
            probe.call(self.pipeline, stand_in, self._on_device(cond), self._options(1), latents, self.name)
        if not torch.equal(stand_in.sample[: len(latents)].to(latents), latents):
            raise RedraftError(f"the pipeline of {self.name!r} changes the latents that it is given before its network")
        if stand_in.output.shape != stand_in.sample.shape:
            raise RedraftError(
                f"the network of {self.name!r} gives more than its prediction: learned variances are unknown"
            )
        if sum(rows) != self.nfe_per_row * len(latents):
            raise RedraftError(
                f"{self.name!r} took {sum(rows)} network rows for {len(latents)} where {self.nfe_per_row} each were "
                "expected: guidance that changes on the way cannot be counted"
            )
        return stand_in.output[: len(latents), None].to(state.x)

    def _clean(self, state: State, output: Tensor) -> Tensor:
        """The expected clean values of a network's output: (x - s e) / a, a x - s v, or x - s v for a flow."""
        t = expand(state.t, state.x)
        if self.kind == "sample":
            return output
        if self.flow:
            return state.x - t * output
        # pure noise is what the network was trained on at its last step: at level 1 itself nothing follows from noise
        last = float(1 - self.pipeline.scheduler.alphas_cumprod[-1]) ** 0.5
        t = torch.where(t > last + 1e-6, last, t)
        if self.kind == "epsilon":
            return (state.x - t * output) / signal(t)
        return signal(t) * state.x - t * output

    def _timestep(self, level: float) -> Tensor:
        """What the network is told (1,) of a level: as a schedule says, or else what it was trained with."""
        if level in self._told:
            return self._told[level]
        scheduler = self.pipeline.scheduler
        if self.flow:
            return torch.tensor([level * scheduler.config.num_train_timesteps])
        trained = (1 - scheduler.alphas_cumprod.double()).sqrt()
        nearest: Tensor = (trained - level).abs().argmin()
        return nearest.cpu()[None]

    def _made(self, steps: int) -> Schedule:
        stand_in = probe.StandIn(self.pipeline.scheduler, None)
        probe.call(self.pipeline, stand_in, self._on_device(self.example), self._options(steps), None, self.name)
        scheduler = copy.deepcopy(self.pipeline.scheduler)
        args, kwargs = stand_in.asked
        try:
            scheduler.set_timesteps(*args, **kwargs)
        except ValueError as error:
            raise RedraftError(f"{type(scheduler).__name__} refuses {steps} steps: {error}") from error
        timesteps = scheduler.timesteps.cpu()
        who = type(scheduler).__name__
        if len(timesteps) != steps or getattr(scheduler, "order", 1) != 1:
            raise RedraftError(
                f"{who} takes {len(timesteps)} network evaluations for {steps} steps: choose another scheduler, "
                "such as pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)"
            )
        sigma, levels = self._levels(scheduler, timesteps)
        first = copy.copy(scheduler)
        ones = torch.ones(1)
        scale_input = getattr(first, "scale_model_input", None)
        shrunk = float(scale_input(ones, scheduler.timesteps[0])) if scale_input else 1.0
        scales = torch.ones_like(levels) if shrunk == 1 else (1 + sigma**2).sqrt()
        if abs(shrunk * float(scales[0]) - 1) > 1e-4:
            raise RedraftError(f"{who} scales its input in a way that is not known here: choose another scheduler")
        if hasattr(scheduler, "is_scale_input_called"):
            scheduler.is_scale_input_called = True  # it would warn: the scale is in `scales`
        start = float(scheduler.init_noise_sigma) if self._first[0].scaled else 1.0
        return Schedule(scheduler, timesteps, levels.float(), scales.float(), start, self._first[0].options)

    def _levels(self, scheduler: Any, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """Sigmas and levels (n + 1,) each, float64."""
        end = torch.zeros(1, dtype=torch.float64)
        sigma = getattr(scheduler, "sigmas", None)
        if sigma is not None and len(sigma) > len(timesteps):
            sigma = torch.cat([torch.as_tensor(sigma).double().cpu()[: len(timesteps)], end])
        elif hasattr(scheduler, "alphas_cumprod") and not self.flow:
            bar = scheduler.alphas_cumprod.double().cpu()[timesteps.long()]
            sigma = torch.cat([((1 - bar) / bar).sqrt(), end])
        else:
            raise RedraftError(
                f"{type(scheduler).__name__} does not say how noisy its steps are: choose another scheduler"
            )
        levels = sigma if self.flow else sigma / (1 + sigma**2).sqrt()
        if not (levels.diff() < 0).all() or levels[0] > 1:
            raise RedraftError(
                f"the noise of {type(scheduler).__name__} does not fall at every step: choose another scheduler"
            )
        return sigma, levels

    def _decoded(self, x: Tensor) -> Tensor:
        stand_in = probe.StandIn(self.pipeline.scheduler, torch.empty(0))
        cond = {name: value[torch.zeros(len(x), dtype=torch.long)] for name, value in self.example.items()}
        latents = x[:, 0].to(next(self.net.parameters()).dtype)
        options = self._options(1) | {"output_type": "pt"}
        given = probe.call(self.pipeline, stand_in, self._on_device(cond), options, latents, self.name)
        pictures: Tensor = given[0]
        return pictures.float()


def adapt(
    pipeline: Any, device: str | None = None, compile: bool = False, *, name: str | None = None, example: Any = None,
    **options: Any,
) -> PipelineModel:  # fmt: skip
    """The model that a pipeline of diffusers is.

    One network evaluation is made, to see the latents' shape and what guidance costs. The denoiser is set to evaluate.

    Args:
        pipeline: with a scheduler and a denoiser.
        device: to move it to; stays where it is if not given.
        compile: fuse the denoiser's operations by `torch.compile`.
        name: how errors call it; the class's name if not given.
        example: a prompt, class number, or dict of embeddings (1, ...) for that evaluation, needed if the pipeline has
            no text encoder.
        options: further arguments of the pipeline's call, such as guidance_scale, height, width.

    Raises:
        RedraftError: it is no such pipeline, an option is unknown, it starts from something else than latents or
            classes, or its scheduler is not supported.
    """
    name = name or type(pipeline).__name__
    if not hasattr(pipeline, "scheduler") or not probe.denoisers(pipeline):
        raise RedraftError(f"{name!r} is not a diffusers pipeline with a scheduler and a denoiser")
    for option in options:
        if option not in probe.parameters(pipeline):
            raise unknown("option", option, [*probe.parameters(pipeline), "device", "compile", "name", "example"])
    if device is not None:
        pipeline.to(device)
    for net in probe.denoisers(pipeline):
        net.eval()
        if compile:
            net.compile()
    cond = conditions(pipeline, [_example(pipeline, example, name)], options, name)
    model = PipelineModel(name, pipeline, cond, options)
    model.check()
    return model


def load(
    source: str, device: torch.device, compile: bool = False, *, dtype: Any = None, revision: str | None = None,
    **options: Any,
) -> PipelineModel:  # fmt: skip
    """The pipeline in a folder or on the hub, from safetensors and without remote code; see `adapt`.

    Raises:
        RedraftError: it cannot be loaded, or see `adapt`.
    """
    diffusers = require("diffusers", "diffusers")
    try:
        pipeline = diffusers.DiffusionPipeline.from_pretrained(
            source, use_safetensors=True, torch_dtype=dtype, revision=revision
        )
    except Exception as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise RedraftError(f"{source!r} cannot be loaded by diffusers: {first}") from error
    return adapt(pipeline, str(device), compile, **{"name": source} | options)


def conditions(pipeline: Any, prompts: Sequence[Any], options: dict[str, Any], name: str) -> dict[str, Tensor]:
    """See `PipelineModel.condition`."""
    kinds = {type(prompt) for prompt in prompts}
    if kinds == {str}:
        return probe.encoded(pipeline, list(prompts), options, name)
    if kinds == {int} and "class_labels" in probe.parameters(pipeline):
        return {"class_labels": torch.tensor(prompts)}
    if kinds == {dict}:
        try:
            return {key: torch.cat([prompt[key] for prompt in prompts]) for key in prompts[0]}
        except (KeyError, TypeError, RuntimeError) as error:
            raise RedraftError(
                f"embeddings for {name!r} need the same names and lengths, one row each: {error}"
            ) from error
    raise RedraftError(f"{name!r} takes texts, class numbers, or dicts of embeddings for prompts, all of one kind")


def _example(pipeline: Any, example: Any, name: str) -> Any:
    if example is not None:
        return example
    if "class_labels" in probe.parameters(pipeline):
        return 0
    if getattr(pipeline, "text_encoder", None) is None:
        raise RedraftError(f"{name!r} has no text encoder: give load_model(..., example={{'prompt_embeds': ...}})")
    return ""
