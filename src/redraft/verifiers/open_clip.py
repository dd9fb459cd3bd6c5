"""HPSv2: CLIP-H, tuned on what people prefer.

Wu et al., "Human preference score v2: a solid benchmark for evaluating human preferences of text-to-image synthesis",
2023, https://arxiv.org/abs/2306.09341. The published weights name their layers as OpenCLIP does; here they are renamed
into the layers of `transformers`, so that none of the original packages is needed.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor

from redraft.core.errors import require
from redraft.core.fields import Among, checks
from redraft.models.weights import pick_device, pick_dtype
from redraft.verifiers.encoders import Dtype, from_pretrained
from redraft.verifiers.heads import Weights, filled, read_weights, weight_file
from redraft.verifiers.pictures import CLIPScore

FILES = {"2.0": "HPS_v2_compressed.pt", "2.1": "HPS_v2.1_compressed.pt"}
RENAMED = (
    (r"^visual\.transformer\.resblocks\.", "vision_model.encoder.layers."),
    (r"^transformer\.resblocks\.", "text_model.encoder.layers."),
    (r"\.ln_([12])\.", r".layer_norm\1."),
    (r"\.attn\.", ".self_attn."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
    (r"^visual\.class_embedding$", "vision_model.embeddings.class_embedding"),
    (r"^visual\.positional_embedding$", "vision_model.embeddings.position_embedding.weight"),
    (r"^visual\.conv1\.", "vision_model.embeddings.patch_embedding."),
    (r"^visual\.ln_pre\.", "vision_model.pre_layrnorm."),
    (r"^visual\.ln_post\.", "vision_model.post_layernorm."),
    (r"^visual\.proj$", "visual_projection.weight"),
    (r"^positional_embedding$", "text_model.embeddings.position_embedding.weight"),
    (r"^token_embedding\.", "text_model.embeddings.token_embedding."),
    (r"^ln_final\.", "text_model.final_layer_norm."),
    (r"^text_projection$", "text_projection.weight"),
)
"""Names of OpenCLIP's layers, and what they are called in transformers."""


@checks
def hpsv2(
    weights: str | Path = "xswu/HPSv2",
    *,
    version: Annotated[str, Among(FILES, "version of HPSv2")] = "2.1",
    clip: str = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
    device: str | None = None,
    dtype: Dtype = None,
    revision: str | None = None,
    **options: Any,
) -> CLIPScore:
    """HPSv2: the cosine of a picture to its prompt, about 0.2 to 0.35; differences are what counts.

    A picture is not cropped: its longer side is resized and the shorter filled up with black.

    Args:
        weights: the file, or a folder or hub id with it.
        version: '2.1' or '2.0', which of the published files.
        clip: folder or hub id of the CLIP that was tuned, for its sizes, preprocessing and tokenizer.
        device: such as 'cuda'; a GPU if there is one when not given.
        dtype: of the weights; float32 when not given.
        revision: of the weights: branch, tag or commit on the hub.
        options: of `CLIPScore`.

    Raises:
        RedraftError: something cannot be loaded, or these are not the weights of HPSv2.
    """
    found = read_weights(weight_file(weights, (FILES[version],), revision))
    config = from_pretrained("AutoConfig", clip)
    with torch.device("meta"):  # draws no random numbers
        net = require("transformers", "diffusers").CLIPModel(config)
    net = filled(net, renamed(found), "HPSv2").to(pick_device(device), pick_dtype(dtype))
    score = CLIPScore(net, processor_of=clip, **{"scale": "cosine"} | options)
    prepare = score.features.prepare
    score.features.prepare = replace(prepare, short=None, long=prepare.short, torchvision=True)
    return score


def renamed(weights: Weights) -> dict[str, Tensor]:
    """Weights of OpenCLIP by the names and in the shapes that CLIP has in transformers."""
    found = {}
    for name, value in weights.items():
        for pattern, target in RENAMED:
            name = re.sub(pattern, target, name)
        if name in ("visual_projection.weight", "text_projection.weight"):
            found[name] = value.T
        elif "self_attn.in_proj_" in name:
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                found[name.replace("in_proj_", f"{letter}_proj.")] = part
        else:
            found[name] = value
    return found
