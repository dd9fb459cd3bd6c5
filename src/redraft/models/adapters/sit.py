"""SiT, the class-conditional model of ImageNet on which noise search was first measured, from its released checkpoint.

The network of https://github.com/willisma/SiT is trained on x = s x1 + (1 - s) e, data x1 and noise e, and gives the
velocity dx/ds = x1 - e. Its time s runs from noise to data; the level here is t = 1 - s, so that the posterior mean is
E[x1 | x] = x + t v.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from redraft.core.content import content
from redraft.core.errors import RedraftError, require, unknown
from redraft.core.fields import Count, Number, checked
from redraft.core.memory import Fitting
from redraft.core.model import outlined
from redraft.core.state import Prediction, State, expand
from redraft.models.hub import pretrained
from redraft.models.nets.sit import SiT, sizes
from redraft.models.weights import pick_device, pick_dtype
from redraft.processes.flow import RectifiedFlow

SCALE = 0.18215  # of the autoencoder's latents, so that their variance is about 1
SUFFIXES = (".pt", ".pth", ".safetensors")


@dataclass(frozen=True)
class SiTModel:
    """A SiT; samples are pictures (B, 3, H, W) in [0, 1] if it has an autoencoder, else latents (B, C, S, S).

    Guidance is u + w (c - u), with c and u the velocities of the class and of none.

    Attributes:
        name: how users call it.
        net: `SiT`, or what gives velocities (B, C, S, S) of latents, times (B,) and classes (B,) as it does.
        side: S.
        channels: C.
        classes: rows of its table of classes; the last is none.
        vae: diffusers' `AutoencoderKL`, or None.
        guidance_scale: w; 1 is none, and else each evaluation counts twice.
        guided_channels: how many of the latents' channels are guided; the released script guides three of the four.
        decode_rows: rows that are decoded at once.
    """

    name: str
    net: nn.Module
    side: Count
    channels: Count
    classes: Count
    vae: Any = None
    guidance_scale: float = 1.0
    guided_channels: Number = 3
    decode_rows: Count = 4
    process = RectifiedFlow()
    offers = frozenset({"conditions"})
    graph = None
    dtype = torch.float32
    _fitting: Fitting = field(default_factory=Fitting, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)

    def __repr__(self) -> str:
        """Class, name and offers."""
        return outlined(self)

    @property
    def shows(self) -> str | None:
        """Pictures, if there is an autoencoder that makes them."""
        return None if self.vae is None else "pictures"

    @property
    def shape(self) -> tuple[int, ...]:
        """(1, C, S, S)."""
        return (1, self.channels, self.side, self.side)

    @property
    def codec(self) -> SiTModel:
        """Itself: it makes conditions of class numbers."""
        return self

    @property
    def nfe_per_row(self) -> int:
        """Network rows that one row takes: 2 under guidance."""
        return 1 if self.guidance_scale == 1 else 2

    @property
    def mark(self) -> str:
        """Tells weights, autoencoder and guidance apart, as they are now."""
        return content(self.net, self.vae, self.guidance_scale, self.guided_channels, self.classes)

    def predict(self, state: State) -> Prediction:
        """One network evaluation for each row, or two under guidance."""
        return Prediction(torch.cat(self._fitting(self._clean, state, self.name)))

    def condition(self, prompts: Sequence[Any]) -> dict[str, Tensor]:
        """Class numbers, one a prompt.

        Raises:
            RedraftError: they are no numbers of classes.
        """
        if any(type(prompt) is not int or not 0 <= prompt < self.classes for prompt in prompts):
            raise RedraftError(f"{self.name!r} takes class numbers from 0 to {self.classes - 2} for prompts")
        return {"class_labels": torch.tensor(prompts)}

    @torch.no_grad()
    def decode(self, x: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [0, 1], or latents (B, C, S, S), of clean latents (B, 1, C, S, S)."""
        return x[:, 0] if self.vae is None else torch.cat(self._decoding(self._pictures, x[:, 0], "an autoencoder"))

    @torch.no_grad()
    def encode(self, samples: Tensor) -> Tensor:
        """Latents (B, 1, C, S, S) of samples as `decode` gives them."""
        if self.vae is None:
            return samples[:, None]
        weight = next(self.vae.parameters())
        spread = self.vae.encode((2 * samples - 1).to(weight)).latent_dist
        latents: Tensor = (SCALE * spread.mode())[:, None].float()
        return latents.to(samples.device)

    @cached_property
    def _decoding(self) -> Fitting:
        return Fitting(self.decode_rows)

    def _pictures(self, latents: Tensor) -> Tensor:
        made: Tensor = self.vae.decode(latents.to(next(self.vae.parameters())) / SCALE).sample
        return (made.float() / 2 + 0.5).clamp(0, 1).to(latents.device)

    def _clean(self, state: State) -> Tensor:
        """The posterior mean (B, 1, C, S, S)."""
        return state.x + expand(state.t, state.x) * self._velocity(state)[:, None].to(state.x)

    @torch.no_grad()
    def _velocity(self, state: State) -> Tensor:
        """From noise to data (B, C, S, S), guidance included."""
        weight = next(self.net.parameters())
        x, time = state.x[:, 0].to(weight), 1 - state.t[:, 0].to(weight.device, torch.float32)
        labels = state.cond["class_labels"].to(weight.device)
        if self.guidance_scale == 1:
            velocity: Tensor = self.net(x, time, labels)
            return velocity
        nothing = torch.full_like(labels, self.classes - 1)
        both = self.net(x.repeat(2, 1, 1, 1), time.repeat(2), torch.cat([labels, nothing]))
        velocity, plain = both.chunk(2)
        some = slice(self.guided_channels)
        guided = plain[:, some] + self.guidance_scale * (velocity[:, some] - plain[:, some])
        return torch.cat([guided, velocity[:, self.guided_channels :]], 1)


def checkpoint(name: str | Path) -> Path | None:
    """The file of weights that `name` is, or that is the only one in the folder `name` beside no configuration."""
    path = Path(name)
    if path.suffix in SUFFIXES and not path.is_dir():
        return path
    if not path.is_dir() or any((path / other).is_file() for other in ("config.json", "model_index.json")):
        return None
    found = [file for file in path.iterdir() if file.suffix in SUFFIXES]
    return found[0] if len(found) == 1 and found[0].name != "model.safetensors" else None  # as of models of ours


def load(
    path: Path, device: str | None = None, compile: bool = False, *, name: str | None = None, vae: Any = None,
    guidance_scale: float = 1.0, guided_channels: int = 3, heads: int | None = None,
    dtype: str | torch.dtype | None = None, **others: Any,
) -> SiTModel:  # fmt: skip
    """The model of a checkpoint in the layout of https://github.com/willisma/SiT, such as SiT-XL-2-256.pt.

    Args:
        path: .safetensors, or .pt with tensors only; of a training checkpoint, the averaged weights ('ema').
        device: such as 'cuda'; a GPU if there is one when not given.
        compile: fuse the network's operations by `torch.compile`.
        name: how errors call it.
        vae: diffusers' `AutoencoderKL`, or where to load it from, such as 'stabilityai/sd-vae-ft-mse'; without it
            samples are latents.
        guidance_scale: see `SiTModel`.
        guided_channels: see `SiTModel`.
        heads: of attention, if the width is none of the released ones.
        dtype: of the weights, such as 'bfloat16'; float32 when not given.
        others: refused.

    Raises:
        RedraftError: the file cannot be read, or is no SiT; unknown option.
    """
    if path.stem.lower().startswith("dit"):
        raise RedraftError(
            f"{path.name} is called as DiT's weights are, which look like SiT's and mean noise, not velocity: load "
            "'facebook/DiT-XL-2-256', or rename a SiT"
        )
    for option in others:
        known = ["name", "vae", "guidance_scale", "guided_channels", "heads", "dtype", "device", "compile"]
        raise unknown("option", option, known)
    weights = _read(path)
    arguments = sizes(weights, heads)
    with torch.device("meta"):
        net = SiT(**arguments)
    try:
        net.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        raise RedraftError(f"{path} is not a SiT: {str(error).splitlines()[-1].strip()}") from error
    net = net.to(pick_device(device), pick_dtype(dtype)).eval().requires_grad_(False)
    if compile:
        net.compile(dynamic=True)
    if isinstance(vae, str | Path):
        vae = pretrained(str(vae), "AutoencoderKL", "diffusers")
    if vae is not None:
        require("diffusers", "diffusers")
        vae = vae.to(net.pos_embed.device).eval()
    return SiTModel(
        name or path.stem, net, arguments["side"], arguments["channels"], arguments["classes"], vae, guidance_scale,
        guided_channels,
    )  # fmt: skip


def _read(path: Path) -> dict[str, Tensor]:
    """The weights of a file by name."""
    if not path.is_file():
        raise RedraftError(f"there is no file {path}")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # the settings in its training checkpoints
            given: Any = (
                load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
            )
    except Exception as error:
        raise RedraftError(
            f"{path} cannot be read as tensors only: save the weights alone, by torch.save(model.state_dict(), ...)"
        ) from error
    given = given.get("ema", given) if isinstance(given, dict) else {}
    return {key.removeprefix("module."): value for key, value in given.items() if isinstance(value, Tensor)}
