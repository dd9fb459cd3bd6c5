"""Masked models of image tokens, row by row of the picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from redraft.core.errors import RedraftError
from redraft.core.state import State
from redraft.models.tokens import Convention, TokenModel


@dataclass(frozen=True)
class PictureCodec:
    """From ids to pictures, and from prompts to what the network is conditioned on.

    Attributes:
        pixels: ids (B, R) to pictures (B, 3, H, W) in [0, 1], or None.
        condition: prompts to `State.cond`, by name, one entry a prompt.
    """

    pixels: Callable[[Tensor], Tensor] | None
    condition: Callable[[Sequence[Any]], dict[str, Tensor]]

    def __call__(self, samples: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [0, 1] of ids (B, R).

        Raises:
            RedraftError: the decoder of the tokens was not given.
        """
        if self.pixels is None:
            raise RedraftError("this model was made without the decoder of its tokens: give it by decode=...")
        return self.pixels(samples)


def amused(
    net: nn.Module,
    vqvae: nn.Module,
    text_encoder: nn.Module,
    tokenizer: Any,
    *,
    name: str = "amused",
    aesthetic: float = 6.0,
    crop: tuple[int, int] = (0, 0),
) -> TokenModel:
    """The adapter of aMUSEd (Patil et al. 2024): text to image, by diffusers and a CLIP text encoder.

    The network reads ids (B, h, w) and gives logits (B, K, h, w) over the K codes only; its last input id is the mask.
    `State.cond` holds `text` (B, 77, D), the encoder's last hidden state but one, and `pooled` (B, D); without a
    condition means the empty prompt.

    Args:
        net: `UVit2DModel`; all three networks are put into evaluation mode.
        vqvae: `VQModel`.
        text_encoder: `CLIPTextModelWithProjection`.
        tokenizer: `CLIPTokenizer`.
        name: how errors call it.
        aesthetic: the score, of 10, that the picture is asked to have.
        crop: top and left corner that the picture is told to be cut from.
    """
    for part in (net, vqvae, text_encoder):
        part.eval()
    config: Any = net.config
    codes: Any = vqvae.config
    side, scale = config.sample_size, 2 ** (len(codes.block_out_channels) - 1)

    @torch.no_grad()
    def condition(prompts: Sequence[Any]) -> dict[str, Tensor]:
        ids = tokenizer(
            list(prompts), return_tensors="pt", padding="max_length", truncation=True,
            max_length=tokenizer.model_max_length,
        ).input_ids  # fmt: skip
        output = text_encoder(ids.to(_device(text_encoder)), output_hidden_states=True)
        return {"text": output.hidden_states[-2], "pooled": output.text_embeds}

    def forward(x: Tensor, state: State) -> tuple[Tensor, None]:
        text, pooled = _conditions(state, name, "text", "pooled")
        about = torch.tensor([side * scale, side * scale, *crop, aesthetic], device=x.device, dtype=text.dtype)
        logits = net(
            x.reshape(-1, side, side),
            encoder_hidden_states=text,
            pooled_text_emb=pooled,
            micro_conds=about.expand(len(x), -1),
        )
        return logits.flatten(2).transpose(1, 2), None

    def pixels(samples: Tensor) -> Tensor:
        decoder: Any = vqvae
        grid = (len(samples), side, side, codes.latent_channels)
        ids = samples.to(_device(vqvae)).reshape(-1, side, side)
        with torch.no_grad():
            pictures: Tensor = decoder.decode(ids, force_not_quantize=True, shape=grid).sample
        return pictures.clamp(0, 1)

    empty = condition([""])

    def null(state: State) -> State:
        blank = {key: value.to(state.x.device).expand_as(state.cond[key]) for key, value in empty.items()}
        return replace(state, cond=state.cond | blank)

    return TokenModel(
        name, forward, Convention(config.vocab_size, config.vocab_size - 1), side * side,
        PictureCodec(pixels, condition), null=null, net=net,
    )  # fmt: skip


def halton(
    net: nn.Module,
    side: int,
    codebook: int = 16384,
    *,
    classes: int = 1000,
    decode: Callable[[Tensor], Tensor] | None = None,
    name: str = "halton-maskgit",
) -> TokenModel:
    """The layout of Halton-MaskGIT (Besnier et al. 2025): ids (B, h, w), a class and whether it is dropped.

    `net(x, y, drop_label)` gives logits (B, h w, codebook + 1), and the last id is the mask. `State.cond` holds
    `label` (B,) int64 and `dropped` (B,) bool; without a condition means dropped.

    Args:
        net: the authors' `Transformer`; it is put into evaluation mode, as their samplers do.
        side: h and w, 24 for pictures of 384 pixels.
        codebook: number of codes.
        classes: number of classes.
        decode: codes (B, h, w) to pictures in [-1, 1]: the authors' `ae.decode_code`.
        name: how errors call it.
    """
    net.eval()

    def condition(labels: Sequence[Any]) -> dict[str, Tensor]:
        if strange := [i for i in labels if type(i) is not int or not 0 <= i < classes]:
            raise RedraftError(f"{name!r} takes class numbers from 0 to {classes - 1} for prompts, not {strange[0]!r}")
        label = torch.tensor([*labels])
        return {"label": label, "dropped": torch.zeros(len(label), dtype=torch.bool)}

    def forward(x: Tensor, state: State) -> tuple[Tensor, None]:
        label, dropped = _conditions(state, name, "label", "dropped")
        return net(x.reshape(-1, side, side), label, dropped), None

    def null(state: State) -> State:
        return replace(state, cond=state.cond | {"dropped": torch.ones_like(state.cond["dropped"])})

    def pixels(samples: Tensor) -> Tensor:
        assert decode is not None
        return decode(samples.reshape(-1, side, side)).clamp(-1, 1) / 2 + 0.5

    return TokenModel(
        name, forward, Convention(codebook + 1, codebook), side * side,
        PictureCodec(pixels if decode else None, condition), null=null, net=net,
    )  # fmt: skip


def _conditions(state: State, name: str, *keys: str) -> list[Tensor]:
    missing = [key for key in keys if key not in state.cond]
    if missing:
        raise RedraftError(
            f"{name!r} is conditioned on {missing[0]!r}: make the problems by `redraft.prompts(model, [...])`"
        )
    return [state.cond[key] for key in keys]


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device
