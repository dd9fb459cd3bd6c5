"""Adapters on tiny pipelines, as PEFT's layers are, and marks of pipelines with pictures."""

import numpy as np
import pipelines
import torch
from PIL import Image
from torch import nn

from redraft.models.pipeline import PipelineModel


class Lora(nn.Module):
    """The attributes by which PEFT's LoRA layers are told what to do; `base_layer` and two pairs of small matrices."""

    def __init__(self, base):
        super().__init__()
        self.base_layer, self._active_adapter, self._disable_adapters = base, ["one"], False
        self.r, self.lora_alpha = {"one": 1, "two": 1}, {"one": 1, "two": 1}
        self.scaling, self.merged_adapters = {"one": 1.0, "two": 1.0}, []
        drawn = {name: pipelines.normal(seed, 2, 16) for seed, name in enumerate(self.r)}
        self.lora_A = nn.ParameterDict({name: pair[:1, : base.in_features] for name, pair in drawn.items()})
        self.lora_B = nn.ParameterDict({name: pair[1:, : base.out_features].T for name, pair in drawn.items()})

    @property
    def active_adapters(self):
        return self._active_adapter

    def set_adapter(self, names):
        self._active_adapter = list(names)

    def set_scale(self, name, scale):
        self.scaling[name] = scale * self.lora_alpha[name] / self.r[name]

    def enable_adapters(self, enabled):
        self._disable_adapters = not enabled

    def forward(self, x):
        active = [] if self._disable_adapters else self._active_adapter
        return self.base_layer(x) + sum(self.scaling[n] * (x @ self.lora_A[n].T @ self.lora_B[n].T) for n in active)

    def fuse(self):
        """What PEFT's `merge` does."""
        for name in self._active_adapter:
            self.base_layer.weight.data += self.scaling[name] * self.lora_B[name] @ self.lora_A[name]
            self.merged_adapters.append(name)


def adapted(net, kind=Lora):
    """The network with adapters on all queries of its attention."""
    for layer in [layer for layer in net.modules() if isinstance(getattr(layer, "to_q", None), nn.Linear)]:
        layer.to_q = kind(layer.to_q)
    return net.requires_grad_(False)


def loras(net):
    return [layer for layer in net.modules() if isinstance(layer, Lora)]


def model(pipeline, **options):
    """The pipeline as a model that is not looked at."""
    return PipelineModel("tiny", pipeline, {}, options)


def shaded(shade):
    return Image.fromarray(np.full((8, 8, 3), shade, dtype=np.uint8))


def pipeline_marks():
    """Marks of a pipeline with pictures, lists of them and tensors among its options."""
    pipeline = pipelines.made(pipelines.stable_diffusion)
    options = {f"picture {shade}": {"image": [shaded(shade)]} for shade in (0, 1)} | {
        "tensors": {"image": torch.arange(5000.0), "clip_skip": 2}
    }
    return {name: model(pipeline, **given).mark for name, given in options.items()}
