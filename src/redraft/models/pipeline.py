"""Any diffusers pipeline that starts from latents, as a model of one region: the whole picture or video.

A state's values (B, 1, *latent) have unit variance at every level: x = (1 - t) x0 + t e for flow matching, and
x = sqrt(1 - t^2) x0 + t e for all schedulers that are trained on variance-preserving noise, also those that count in
sigma (x0 + sigma e), whose scale the model's `Schedule` holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from redraft.core.content import content, marked
from redraft.core.errors import RedraftError, pickled, require, said, unknown
from redraft.core.fields import Count, checked
from redraft.core.memory import Fitting
from redraft.core.model import outlined
from redraft.core.state import Prediction, State, expand
from redraft.models import probe
from redraft.models.schedule import Schedule, schedule_of
from redraft.processes.flow import RectifiedFlow
from redraft.processes.vp import VariancePreserving, noise_in, signal

KINDS = ("epsilon", "sample", "v_prediction", "flow_prediction")


@dataclass(frozen=True)
class PipelineModel:
    """A diffusers pipeline; decoded samples are pictures (B, C, H, W) or videos (B, F, C, H, W) in [0, 1].

    Rows that do not fit into memory together are evaluated, or decoded, half as many at a time from then on.

    Attributes:
        name: how users call it.
        pipeline: of diffusers, with the scheduler that the model is to keep.
        example: what the network is conditioned on, for one row (1, ...) each.
        options: further arguments of the pipeline's call, such as guidance_scale, height and width.
        decode_rows: rows that are decoded at once.
        offload: the text encoders wait on the CPU and come to the denoiser's device only to encode.
    """

    name: str
    pipeline: Any
    example: dict[str, Tensor]
    options: dict[str, Any] = field(default_factory=dict)
    decode_rows: Count = 8
    offload: bool = False
    graph = None
    shows = "pictures"
    dtype = torch.float32
    _schedules: dict[int, Schedule] = field(default_factory=dict, repr=False, compare=False)
    _told: dict[float, Tensor] = field(default_factory=dict, repr=False, compare=False)
    _fitting: Fitting = field(default_factory=Fitting, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)

    def __repr__(self) -> str:
        """Class, name and offers."""
        return outlined(self)

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

    @property
    def mark(self) -> str:
        """Tells apart all that pictures follow from, as it is now.

        That is every network of the pipeline with its adapters, their scales and their weights, fused or not, the
        tokenizers, the scheduler's class and configuration, and the options of the call.
        """
        return content(probe.held(self.pipeline), self.options)

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
        if not flow and kind != "flow_prediction" and not hasattr(scheduler, "alphas_cumprod"):
            raise RedraftError(f"{type(scheduler).__name__} of {self.name!r} does not say what noise it was trained on")
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
        first = self._first[0]
        return (1, *(first.sample.shape[1:] if self._packing is None else first.drawn[1:]))

    @property
    def nfe_per_row(self) -> int:
        """Network rows that one row takes: 2 under guidance."""
        return self._first[1]

    def predict(self, state: State) -> Prediction:
        """One network evaluation for each row, guidance as the pipeline has it; rows of one level are one batch."""
        levels = sorted(set(state.t[:, 0].tolist()))
        if len(levels) == 1:
            return Prediction(self._at(state, levels[0]))
        clean = torch.empty_like(state.x)
        for level in levels:
            rows = (state.t[:, 0] == level).nonzero()[:, 0]
            clean[rows] = self._at(state[rows], level)
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
            RedraftError: its scheduler is not supported, see `redraft.models.schedule.schedule_of`.
        """
        if steps not in self._schedules:
            asked = probe.StandIn(self.pipeline.scheduler, None)
            probe.call(self.pipeline, asked, self._on_device(self.example), self._options(steps), None, self.name)
            made = schedule_of(self.pipeline.scheduler, steps, asked, self._first[0], self.flow)
            self._schedules[steps] = made
            self._told.update({level: made.timesteps[k : k + 1] for k, level in enumerate(made.levels[:-1].tolist())})
        return self._schedules[steps]

    def decode(self, x: Tensor) -> Tensor:
        """Pictures (B, C, H, W) or videos (B, F, C, H, W) in [0, 1] of clean latents (B, 1, *latent).

        It is the end of the pipeline's own call, with no steps before it.
        """
        return torch.cat(self._decoding(self._decoded, x, f"{self.name} to decode"))

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
        with probe.encoders_at(self.pipeline, probe.device_of(self.net) if self.offload else None):
            made = conditions(self.pipeline, prompts, self.options, self.name)
        _check_like(made, self.example, self.name)
        return made

    def cut(self, text: str) -> list[probe.Cut]:
        """Where the pipeline cuts a prompt off, as it is longer than a tokenizer takes."""
        return probe.cuts(self.pipeline, text)

    def drop_encoders(self) -> None:
        """Remove the text encoders from the pipeline for good, when all prompts are encoded; embeddings still work."""
        self.pipeline.register_modules(**dict.fromkeys(probe.encoders(self.pipeline)))

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
        stand_in = probe.StandIn(self.pipeline.scheduler, self._last)
        with probe.counted_rows(self.pipeline) as rows:
            probe.call(self.pipeline, stand_in, self._on_device(self.example), self._options(1), None, self.name)
        return stand_in, sum(rows)

    @property
    def _last(self) -> Tensor:
        """The timestep (1,) of the most noise."""
        return torch.tensor([self.pipeline.scheduler.config.num_train_timesteps - 1])

    @cached_property
    def _weight(self) -> Tensor:
        """A tensor of the denoiser's, for its device and dtype."""
        return next(self.net.parameters())

    def _options(self, steps: int) -> dict[str, Any]:
        return self.options | {"num_inference_steps": steps}

    def _on_device(self, cond: dict[str, Tensor]) -> dict[str, Tensor]:
        weight = self._weight
        return {k: v.to(weight.device, weight.dtype if v.is_floating_point() else None) for k, v in cond.items()}

    @cached_property
    def _decoding(self) -> Fitting:
        return Fitting(self.decode_rows)

    @cached_property
    def _packing(self) -> Tensor | None:
        """Where each number (N,) of a row that the pipeline is given stands in the row that the network sees.

        None if it is given what the network sees, as is usual; some pack what they are given.
        """
        seen, drawn = self._first[0].sample.shape[1:], self._first[0].drawn[1:]
        if seen == drawn:
            return None
        try:
            self._traced(seen)
        except RedraftError:  # it takes what it draws only
            return self._traced(drawn)
        return None

    def _traced(self, shape: torch.Size) -> Tensor:
        """See `_packing`, if it is given rows of `shape`: there each number is its own place, a digit of it a row."""
        place, digits = torch.arange(shape.numel()), range(max(1, -(-(shape.numel() - 1).bit_length() // 7)))
        latents = torch.stack([(place >> 7 * digit) & 127 for digit in digits]).reshape(len(digits), *shape)
        rows = torch.zeros(len(digits), dtype=torch.long)
        stand_in = probe.StandIn(self.pipeline.scheduler, self._last)
        cond = self._on_device({name: value[rows] for name, value in self.example.items()})
        probe.call(self.pipeline, stand_in, cond, self._options(1), latents.to(self._weight), self.name)
        seen = stand_in.sample[: len(digits)].flatten(1).round().long().cpu()
        order = sum((seen[digit] << 7 * digit for digit in digits), torch.zeros_like(seen[0]))
        if not torch.equal(order.sort().values, place):
            raise RedraftError(f"the pipeline of {self.name!r} changes the latents that it is given before its network")
        return order.argsort()

    def _unpacked(self, seen: Tensor) -> Tensor:
        """Rows (B, *latent) as the pipeline is given them, of rows as the network sees them."""
        if self._packing is None:
            return seen
        return seen.flatten(1)[:, self._packing.to(seen.device)].reshape(len(seen), *self._first[0].drawn[1:])

    def _at(self, state: State, level: float) -> Tensor:
        """The expected clean values (B, 1, *latent) of rows of one level, in batches that fit into memory."""
        timestep = self._timestep(level)
        parts = self._fitting(lambda part: self._clean(part, self._output(part, timestep)), state, self.name)
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _output(self, state: State, timestep: Tensor) -> Tensor:
        """The network's output (B, 1, *latent) for rows of one level."""
        stand_in = probe.StandIn(self.pipeline.scheduler, timestep.to(state.x.device))
        latents = state.x[:, 0].to(self._weight)
        known = probe.parameters(self.pipeline)
        cond = {name: value for name, value in state.cond.items() if name in known}
        with probe.counted_rows(self.pipeline) as rows:
            probe.call(self.pipeline, stand_in, self._on_device(cond), self._options(1), latents, self.name)
        self._check_output(stand_in, latents, sum(rows))
        return self._unpacked(stand_in.output[: len(latents)])[:, None].to(state.x)

    def _check_output(self, stand_in: probe.StandIn, latents: Tensor, rows: int) -> None:
        if not torch.equal(self._unpacked(stand_in.sample[: len(latents)]).to(latents), latents):
            raise RedraftError(f"the pipeline of {self.name!r} changes the latents that it is given before its network")
        if stand_in.output.shape != stand_in.sample.shape:
            raise RedraftError(
                f"the network of {self.name!r} gives more than its prediction: learned variances are unknown"
            )
        if rows != self.nfe_per_row * len(latents):
            raise RedraftError(
                f"{self.name!r} took {rows} network rows for {len(latents)} where {self.nfe_per_row} each were "
                "expected: guidance that changes on the way cannot be counted"
            )

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

    def _decoded(self, x: Tensor) -> Tensor:
        stand_in = probe.StandIn(self.pipeline.scheduler, torch.empty(0))
        cond = {name: value[torch.zeros(len(x), dtype=torch.long)] for name, value in self.example.items()}
        latents = x[:, 0].to(self._weight)
        options = self._options(1) | {"output_type": "pt"}
        given = probe.call(self.pipeline, stand_in, self._on_device(cond), options, latents, self.name)
        pictures: Tensor = given[0]
        return pictures.float()


def adapt(
    pipeline: Any, device: str | None = None, compile: bool = False, *, name: str | None = None, example: Any = None,
    offload: bool = False, **options: Any,
) -> PipelineModel:  # fmt: skip
    """The model that a pipeline of diffusers is.

    A network evaluation or two are made, to see the latents' shape and what guidance costs. The denoiser is set to
    evaluate.

    Args:
        pipeline: with a scheduler and a denoiser.
        device: to move it to; stays where it is if not given.
        compile: fuse the denoiser's operations by `torch.compile`.
        name: how errors call it; the class's name if not given.
        example: a prompt, class number, or dict of embeddings (1, ...) for that evaluation, needed if the pipeline has
            no text encoder.
        offload: keep the text encoders on the CPU but while they encode; see `PipelineModel.drop_encoders` to be rid of
            them once all prompts are encoded.
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
            raise unknown(
                "option", option, [*probe.parameters(pipeline), "device", "compile", "name", "example", "offload"]
            )
    if offload:
        probe.move(probe.encoders(pipeline), "cpu")
    if device is not None:
        with probe.attributes(pipeline, **dict.fromkeys(probe.encoders(pipeline) if offload else ())):
            pipeline.to(device)
    for option, value in options.items():
        marked(f"option {option!r}", value, "leave it out, as a run's randomness follows from its seed")
    for net in probe.denoisers(pipeline):
        net.eval()
        if compile:
            net.compile()
    with probe.encoders_at(pipeline, probe.device_of(probe.denoisers(pipeline)[0]) if offload else None):
        cond = conditions(pipeline, [_example(pipeline, example, name)], options, name)
    model = PipelineModel(name, pipeline, cond, options, offload=offload)
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
        raise RedraftError(f"{source!r} cannot be loaded by diffusers: {said(error)}{pickled(error)}") from error
    return adapt(pipeline, str(device), compile, **{"name": source} | options)


def conditions(pipeline: Any, prompts: Sequence[Any], options: dict[str, Any], name: str) -> dict[str, Tensor]:
    """See `PipelineModel.condition`."""
    kinds = {type(prompt) for prompt in prompts}
    if kinds == {str}:
        if not probe.encoders(pipeline) and hasattr(pipeline, "text_encoder"):
            raise RedraftError(f"{name!r} has no text encoder: give dicts of embeddings in place of texts")
        return probe.encoded(pipeline, list(prompts), options, name)
    if kinds == {int} and "class_labels" in probe.parameters(pipeline):
        return {"class_labels": torch.tensor(prompts)}
    if kinds == {dict}:
        if any(isinstance(value, list) for prompt in prompts for value in prompt.values()):
            raise RedraftError(f"embeddings for {name!r} come in lists: such pipelines are not supported")
        try:
            return {key: torch.cat([prompt[key] for prompt in prompts]) for key in prompts[0]}
        except (KeyError, TypeError, RuntimeError) as error:
            raise RedraftError(
                f"embeddings for {name!r} need the same names and lengths, one row each: {error}"
            ) from error
    raise RedraftError(f"{name!r} takes texts, class numbers, or dicts of embeddings for prompts, all of one kind")


def _check_like(made: dict[str, Tensor], example: dict[str, Tensor], name: str) -> None:
    """Raise unless the embeddings have the names and widths of the example's; masks may be left out where all count."""
    wanted, given = ({key for key in cond if not key.endswith("mask")} for cond in (example, made))
    if wanted != given:
        raise RedraftError(
            f"{name!r} is conditioned on {', '.join(sorted(wanted))}, not on {', '.join(sorted(given)) or 'nothing'}"
        )
    for key, value in ((key, value) for key, value in made.items() if key in example):
        other = example[key]
        lengthless = slice(2 if value.ndim > 2 or key.endswith("mask") else 1, None)
        if value.ndim != other.ndim or value.shape[lengthless] != other.shape[lengthless]:
            raise RedraftError(
                f"{key} for {name!r} is of shape {tuple(value.shape)}, where one row has {tuple(example[key].shape)}: "
                "only its length may differ"
            )


def _example(pipeline: Any, example: Any, name: str) -> Any:
    if example is not None:
        return example
    if "class_labels" in probe.parameters(pipeline):
        return 0
    if getattr(pipeline, "text_encoder", None) is None:
        raise RedraftError(f"{name!r} has no text encoder: give load_model(..., example={{'prompt_embeds': ...}})")
    return ""
