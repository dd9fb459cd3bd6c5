"""ImageReward: BLIP that reads the prompt while it looks at the picture, and a head that says what people prefer.

Xu et al., "ImageReward: learning and evaluating human preferences for text-to-image generation", 2023,
https://arxiv.org/abs/2304.05977. The published weights name their layers as BLIP's authors do; here they are renamed
into the layers of `transformers`, so that none of the original packages is needed. Sizes are read off the weights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from redraft.core.errors import RedraftError, require
from redraft.core.fields import Count, checks
from redraft.core.task import Problems
from redraft.models.weights import pick_device, pick_dtype
from redraft.verifiers.encoders import Dtype, Preprocess, per_frame, processor, prompts_of
from redraft.verifiers.heads import Weights, chain, filled, foreign, read_weights, weight_file
from redraft.verifiers.words import Words

NAME = "ImageReward"
MEAN, STD = 0.16717362830052426, 1.0333394966054072  # of rewards in its training
WORDS = 35  # tokens of a prompt that it reads
HEAD = 64  # width of an attention head, in all of BLIP's networks
COLOURS = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))  # mean and std, as for CLIP

VISION = (
    (r"cls_token", "embeddings.class_embedding"),
    (r"pos_embed", "embeddings.position_embedding"),
    (r"patch_embed\.proj\.(\w+)", r"embeddings.patch_embedding.\1"),
    (r"blocks\.(\d+)\.norm([12])\.(\w+)", r"encoder.layers.\1.layer_norm\2.\3"),
    (r"blocks\.(\d+)\.attn\.qkv\.(\w+)", r"encoder.layers.\1.self_attn.qkv.\2"),
    (r"blocks\.(\d+)\.attn\.proj\.(\w+)", r"encoder.layers.\1.self_attn.projection.\2"),
    (r"blocks\.(\d+)\.mlp\.(fc[12])\.(\w+)", r"encoder.layers.\1.mlp.\2.\3"),
    (r"norm\.(\w+)", r"post_layernorm.\1"),
)
"""Names of BLIP's vision transformer, and what they are called in transformers."""


class ImageReward:
    """The reward of a picture for its prompt: standardised, so that 0 is an ordinary picture of its training set.

    Attributes:
        frames: most frames of a video.
        rows: samples at a time.
    """

    @checks
    def __init__(
        self,
        weights: str | Path = "THUDM/ImageReward",
        tokenizer: str = "google-bert/bert-base-uncased",
        *,
        frames: Count = 1,
        device: str | None = None,
        dtype: Dtype = None,
        rows: Count = 16,
        revision: str | None = None,
    ) -> None:
        """Load it.

        Args:
            weights: the file ImageReward.pt, or a folder or hub id with it.
            tokenizer: folder or hub id of BERT's.
            frames: most frames of a video.
            device: such as 'cuda'; a GPU if there is one when not given.
            dtype: of BLIP's weights; float32 when not given.
            rows: samples at a time.
            revision: of the weights: branch, tag or commit on the hub.

        Raises:
            RedraftError: something cannot be loaded, or these are not the weights of ImageReward.
        """
        found = read_weights(weight_file(weights, ("ImageReward.safetensors", "ImageReward.pt"), revision))
        target = pick_device(device)
        self._vision, self._text = (net.to(target, pick_dtype(dtype)) for net in blip(found))
        self.head = chain(found, "mlp.layers", self._text.config.hidden_size).to(target)
        self._words = Words(processor("AutoTokenizer", tokenizer, None), WORDS, NAME)
        side = self._vision.config.image_size
        self._prepare = Preprocess(short=side, crop=(side, side), torchvision=True, mean=COLOURS[0], std=COLOURS[1])
        self.frames, self.rows = frames, rows

    def __call__(self, samples: Tensor, problems: Problems) -> Tensor:
        """Scores (B,), float64."""
        texts = prompts_of(problems)
        return per_frame(samples, problems, self.frames, lambda x, row: self._scores(x, [texts[i] for i in row]))

    def _scores(self, pictures: Tensor, texts: list[str]) -> Tensor:
        net, device = self._text, self._text.device
        seen = self._vision(pixel_values=self._prepare(pictures.to(device)).to(net.dtype)).last_hidden_state
        read = self._words(texts, "max_length")
        both = net(
            input_ids=read["input_ids"].to(device),
            attention_mask=read["attention_mask"].to(device),
            encoder_hidden_states=seen,
            encoder_attention_mask=torch.ones(seen.shape[:2], dtype=torch.long, device=device),
        )
        reward: Tensor = self.head(both.last_hidden_state[:, 0].float())[:, 0]
        return (reward - MEAN) / STD


def blip(weights: Weights) -> tuple[Any, Any]:
    """BLIP's vision network and its text network that looks at pictures, of weights by their original names.

    Raises:
        RedraftError: weights are missing, of other shapes or too many.
    """
    blip_of = require("transformers.models.blip.modeling_blip", "diffusers")
    text_of = require("transformers.models.blip.modeling_blip_text", "diffusers")
    vision, text = renamed(weights)
    try:
        with torch.device("meta"):  # draws no random numbers
            eye = blip_of.BlipVisionModel(_vision_config(vision))
            reader = text_of.BlipTextModel(_text_config(text), add_pooling_layer=False)
    except (KeyError, IndexError) as error:
        raise _foreign(f"they lack {error}") from error
    return filled(eye, vision, NAME), filled(reader, text, NAME)


def renamed(weights: Weights) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights of the vision and of the text network by the names that they have in transformers."""
    vision, text = {}, {}
    for name, value in weights.items():
        if name.startswith("blip.visual_encoder."):
            vision[_vision_name(name.removeprefix("blip.visual_encoder."))] = value
        elif name.startswith("blip.text_encoder.") and not name.endswith("position_ids"):
            text[name.removeprefix("blip.text_encoder.")] = value
    return vision, text


def _vision_name(name: str) -> str:
    for pattern, target in VISION:
        if match := re.fullmatch(pattern, name):
            return match.expand(target)
    raise _foreign(f"the vision network has no layer {name!r}")


def _foreign(what: str) -> RedraftError:
    return foreign(NAME, what)


def _vision_config(weights: Mapping[str, Tensor]) -> Any:
    patch = weights["embeddings.patch_embedding.weight"]
    side = int((weights["embeddings.position_embedding"].shape[1] - 1) ** 0.5)
    return require("transformers", "diffusers").BlipVisionConfig(
        hidden_size=patch.shape[0],
        intermediate_size=weights["encoder.layers.0.mlp.fc1.weight"].shape[0],
        num_hidden_layers=_layers(weights),
        num_attention_heads=max(1, patch.shape[0] // HEAD),
        image_size=side * patch.shape[-1],
        patch_size=patch.shape[-1],
        layer_norm_eps=1e-6,
    )


def _text_config(weights: Mapping[str, Tensor]) -> Any:
    words = weights["embeddings.word_embeddings.weight"]
    return require("transformers", "diffusers").BlipTextConfig(
        vocab_size=words.shape[0],
        hidden_size=words.shape[1],
        encoder_hidden_size=weights["encoder.layer.0.crossattention.self.key.weight"].shape[1],
        intermediate_size=weights["encoder.layer.0.intermediate.dense.weight"].shape[0],
        num_hidden_layers=_layers(weights),
        num_attention_heads=max(1, words.shape[1] // HEAD),
        max_position_embeddings=weights["embeddings.position_embeddings.weight"].shape[0],
        layer_norm_eps=1e-12,
    )


def _layers(weights: Mapping[str, Tensor]) -> int:
    return 1 + max(int(match[1]) for name in weights if (match := re.match(r"encoder\.layers?\.(\d+)\.", name)))
