"""What verifiers of pictures share: pixels in one form, preprocessing without leaving the device, and feature networks.

Samples are pictures (B, 3, H, W) or (B, 1, H, W), gray pictures (B, H, W), or videos (B, F, 3, H, W), floating-point
numbers in [0, 1]; what lies outside is clipped. That is what pipelines of diffusers decode to here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from redraft.core.content import content
from redraft.core.errors import RedraftError, pickled, require, said
from redraft.core.fields import checks
from redraft.core.task import Problems
from redraft.core.verifier import VerifierError
from redraft.models.weights import pick_device
from redraft.verifiers.words import Words

Dtype = str | torch.dtype | None


def pixels(samples: Tensor, problems: Problems, frames: int = 1) -> Tensor:
    """Pictures (B, F, 3, H, W), float32 in [0, 1], of samples in any of the forms above; F is 1 but for videos.

    Args:
        samples: pictures or videos.
        problems: what they are for, to be named in errors.
        frames: most frames of a video, taken in the middle of as many equal parts; 1 is the frame in the middle.

    Raises:
        VerifierError: a sample holds NaN or infinity.
        RedraftError: these are no pictures.
    """
    x = unchecked_pixels(samples, frames)
    wrong = ~samples.flatten(1).isfinite().all(1)
    if wrong.any():
        row = int(wrong.nonzero()[0, 0])
        raise VerifierError("was given NaN or infinity", row, int(problems.ids[row]), samples[row])
    return x


def unchecked_pixels(samples: Tensor, frames: int = 1) -> Tensor:
    """What `pixels` gives, whatever the numbers are.

    Raises:
        RedraftError: these are no pictures.
    """
    x = samples[:, None] if samples.ndim == 3 else samples
    x = x[:, None] if x.ndim == 4 else x
    if x.ndim != 5 or x.shape[2] not in (1, 3) or not x.is_floating_point() or not x.numel():
        raise RedraftError(
            f"pictures are floats (B, 3, H, W) or (B, 1, H, W) in [0, 1], videos (B, F, 3, H, W): these samples are "
            f"{str(samples.dtype).removeprefix('torch.')} of shape {tuple(samples.shape)}"
        )
    return x[:, taken(x.shape[1], frames)].float().clamp(0, 1).expand(-1, -1, 3, -1, -1)


def taken(length: int, frames: int) -> list[int]:
    """The frames that stand for a video of `length` of them: one from the middle of each of `frames` equal parts."""
    if frames < 1:
        raise RedraftError(f"frames is {frames}: it must be 1 or more")
    parts = min(frames, length)
    return [(2 * part + 1) * length // (2 * parts) for part in range(parts)]


def per_frame(samples: Tensor, problems: Problems, frames: int, score: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The mean over a sample's frames of `score` (N,) of pictures (N, 3, H, W) and the rows (N,) that they are of.

    Returns:
        (B,) float64 on the samples' device; no gradients are kept.
    """
    x = pixels(samples, problems, frames)
    rows = torch.arange(len(x)).repeat_interleave(x.shape[1])
    with torch.no_grad():
        scores = score(x.flatten(0, 1), rows)
    return scores.double().reshape(x.shape[:2]).mean(1).to(samples.device)


def prompts_of(problems: Problems) -> list[str]:
    """The texts that the problems ask a picture of.

    Raises:
        RedraftError: they have none.
    """
    texts = problems.facts.get("prompt")
    if texts is None:
        raise RedraftError("these problems have no facts['prompt'] to score by: make them by redraft.prompts")
    if not all(isinstance(text, str) for text in texts):
        raise RedraftError("the problems' prompts are no texts: for classes use the verifier 'image-classifier'")
    return list(texts)


def classes_of(problems: Problems) -> Tensor:
    """The classes (B,) that are asked for: `class_labels` or `label` of `cond` or `facts`, or prompts that are numbers.

    Raises:
        RedraftError: the problems have none.
    """
    known = {"label": problems.facts.get("prompt")} | problems.facts | problems.cond
    found = known.get("class_labels", known["label"])
    numbers = isinstance(found, Tensor) or (found is not None and all(isinstance(each, int) for each in found))
    if found is None or not numbers:
        raise RedraftError("these problems name no class: give a label, or problems with facts['label']")
    return torch.as_tensor(found).long().cpu()


# ---- preprocessing

STEPS = ("CLIP", "Siglip", "ViT", "DeiT", "Bit", "Blip")
MODES = {0: "nearest-exact", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers


@dataclass(frozen=True)
class Preprocess:
    """What a processor of transformers does to pictures, in torch: resize with antialiasing, crop, normalise.

    Pillow rounds to 8 bits after each pass of resizing, which is not done here: results differ by up to 2 / 255 / std.

    Attributes:
        short: length of the shorter side to resize to, or
        long: of the longer one, or
        size: (height, width) to resize to; neither if pictures are not resized.
        crop: (height, width) of the middle to keep, filled up with black where there is too little; or None.
        torchvision: of an odd rest, cut and fill that side more which torchvision's `CenterCrop` does, not that which
            transformers does.
        mode: of interpolation.
        mean: of each channel, to subtract.
        std: of each channel, to divide by.
    """

    short: int | None = None
    long: int | None = None
    size: tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    torchvision: bool = False
    mode: str = "bicubic"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    @classmethod
    def of(cls, processor: Any) -> Preprocess:
        """What the settings of `processor` say.

        Raises:
            RedraftError: it does something else to pictures than the steps above.
        """
        kind, resize = type(processor).__name__, bool(getattr(processor, "do_resize", False))
        mode = MODES.get(_number(getattr(processor, "resample", None)))
        other = getattr(processor, "do_pad", False) or getattr(processor, "do_rescale", True) is False
        if kind.split("ImageProcessor")[0] not in STEPS or other or (resize and mode is None):
            raise RedraftError(f"pictures cannot be prepared as {kind} does it: use a network with a plain processor")
        normal = bool(getattr(processor, "do_normalize", False))
        return cls(
            short=_side(processor.size, "shortest_edge") if resize else None,
            size=_sides(processor.size) if resize else None,
            crop=_sides(processor.crop_size) if getattr(processor, "do_center_crop", False) else None,
            mode=mode or "bicubic",
            mean=tuple(processor.image_mean) if normal else (0.0,),
            std=tuple(processor.image_std) if normal else (1.0,),
        )

    def __call__(self, x: Tensor) -> Tensor:
        """Prepare pictures (N, 3, H, W) in [0, 1]."""
        size = self._target(*x.shape[-2:])
        for passed in ((x.shape[-2], size[1]), size):  # across first and clipped in between, as Pillow does
            x = self._resized(x, passed)
        if self.crop:
            x = F.pad(x, (*self._margins(size[1], self.crop[1]), *self._margins(size[0], self.crop[0])))
        mean, std = (x.new_tensor(each)[:, None, None] for each in (self.mean, self.std))
        return (x - mean) / std

    def _resized(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        if size == tuple(x.shape[-2:]):
            return x
        smooth = {} if self.mode == "nearest-exact" else {"antialias": True, "align_corners": False}
        return F.interpolate(x, size, mode=self.mode, **smooth).clamp(0, 1)

    def _margins(self, length: int, wanted: int) -> tuple[int, int]:
        """What to add before and after; less than 0 is cut off."""
        rest = wanted - length
        before = -(-rest // 2)
        if self.torchvision:
            before = rest // 2 if rest > 0 else -round(-rest / 2)
        return before, rest - before

    def _target(self, height: int, width: int) -> tuple[int, int]:
        if self.long is not None:
            scale = self.long / max(height, width)
            return round(height * scale), round(width * scale)
        if self.short is None:
            return self.size or (height, width)
        long = int(self.short * max(height, width) / min(height, width))
        return (self.short, long) if height <= width else (long, self.short)


def _side(size: Any, name: str) -> int | None:
    value = size.get(name) if isinstance(size, dict) else getattr(size, name, None)
    return None if value is None else int(value)


def _sides(size: Any) -> tuple[int, int] | None:
    height, width = _side(size, "height"), _side(size, "width")
    return None if height is None or width is None else (height, width)


def _number(mode: Any) -> int:
    """Pillow's number of a mode, which it is already; -1 of what is none."""
    return int(mode) if isinstance(mode, int) else -1


# ---- networks


def network(kind: str, source: str, device: str | None, dtype: Dtype, revision: str | None) -> Any:
    """A network of transformers by the class `kind`, ready to evaluate, all of its weights from the checkpoint.

    Raises:
        RedraftError: it cannot be loaded, or the checkpoint lacks some of its weights.
    """
    settings = _settings(dtype=dtype, revision=revision) | {"use_safetensors": True, "output_loading_info": True}
    net, about = from_pretrained(kind, source, settings)
    missing = sorted(about["missing_keys"])
    if missing and all(name.startswith("pooler.") for name in missing):  # as of DINO: its first token is its vector
        net.pooler, missing = None, []
    if missing:
        raise RedraftError(f"{source!r} is no checkpoint for {kind}: it lacks {missing[0]!r}")
    return net.to(pick_device(device)).eval().requires_grad_(False)


def processor(kind: str, source: str, revision: str | None) -> Any:
    """A processor or tokenizer of transformers.

    Raises:
        RedraftError: it cannot be loaded.
    """
    return from_pretrained(kind, source, _settings(revision=revision))


def _settings(**given: Any) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}


def from_pretrained(kind: str, source: str, settings: Mapping[str, Any] = MappingProxyType({})) -> Any:
    """What transformers makes of a folder or hub id.

    Raises:
        RedraftError: it cannot be loaded.
    """
    library = require("transformers", "diffusers")
    try:
        return getattr(library, kind).from_pretrained(source, **settings)
    except Exception as error:
        raise RedraftError(
            f"{source!r} cannot be loaded by transformers.{kind}: {said(error)}{pickled(error)}"
        ) from error


class Features:
    """A network that makes vectors of pictures, such as CLIP, SigLIP, DINOv2 or ViT, and of texts if it can.

        Features("facebook/dinov2-base")(pictures)   (B, D)

    Attributes:
        net: of transformers.
        prepare: its preprocessing.
        width: D.
    """

    @checks
    def __init__(
        self,
        checkpoint: str | nn.Module,
        *,
        processor_of: str | None = None,
        texts: bool = False,
        device: str | None = None,
        dtype: Dtype = None,
        revision: str | None = None,
    ) -> None:
        """Load the network.

        Args:
            checkpoint: folder or hub id, with weights in safetensors; or the network itself, ready to evaluate.
            processor_of: folder or hub id that its processor is taken from, if not its own; a network itself has none.
            texts: load its tokenizer as well.
            device: such as 'cuda'; a GPU if there is one when not given.
            dtype: of its weights, such as 'bfloat16'; as stored when not given.
            revision: branch, tag or commit on the hub.

        Raises:
            RedraftError: it cannot be loaded, sees no pictures, or is to read texts and cannot.
        """
        source = processor_of or checkpoint
        if not isinstance(source, str):
            raise RedraftError("a network that is given itself needs processor_of, the folder or hub id of a processor")
        self.net: Any = checkpoint
        name = "the network"
        if isinstance(checkpoint, str):
            self.net, name = network("AutoModel", checkpoint, device, dtype, revision), repr(checkpoint)
        if not hasattr(self.net, "get_image_features") and self.net.main_input_name != "pixel_values":
            raise RedraftError(f"{name} is a {type(self.net).__name__}, which takes no pictures")
        if texts and not hasattr(self.net, "get_text_features"):
            raise RedraftError(f"{name} is a {type(self.net).__name__}, which reads no texts")
        at = None if processor_of else revision
        self.prepare = Preprocess.of(processor("AutoImageProcessor", source, at))
        self.words = _words(self.net, processor("AutoTokenizer", source, at), name) if texts else None
        self._known: dict[str, Tensor] = {}

    @property
    def mark(self) -> str:
        """Tells network and preparation apart, whatever texts were read."""
        return content(self.net, self.prepare, self.words)

    @property
    def width(self) -> int:
        """How many numbers a picture's vector has."""
        config = self.net.config
        return int(getattr(config, "projection_dim", None) or getattr(config, "vision_config", config).hidden_size)

    @torch.no_grad()
    def __call__(self, pictures: Tensor) -> Tensor:
        """Vectors (N, D), float32 on the network's device, of pictures (N, 3, H, W) or (N, 1, H, W) in [0, 1]."""
        x = self.prepare(pictures.to(self.net.device, torch.float32).expand(-1, 3, -1, -1))
        ask = getattr(self.net, "get_image_features", self.net)
        return _vector(ask(pixel_values=x.to(self.net.dtype))).float()

    @torch.no_grad()
    def read(self, texts: Sequence[str]) -> Tensor:
        """Vectors (N, D), float32 on the network's device, of texts; each is read once and then remembered.

        What is longer than the network reads is cut off at its end, which is said once.
        """
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        for start in range(0, len(new), 64):
            some = new[start : start + 64]
            self._known.update(zip(some, self._read(some), strict=True))
        return torch.stack([self._known[text] for text in texts])

    def _read(self, texts: list[str]) -> Tensor:
        assert self.words is not None
        siglip = "siglip" in self.net.config.text_config.model_type
        batch = self.words(texts, "max_length" if siglip else True)  # as SigLIP was trained
        return _vector(self.net.get_text_features(**batch.to(self.net.device))).float()


def _words(net: Any, tokenizer: Any, name: str) -> Words:
    """The tokenizer, cutting what is longer than the network reads."""
    most = min(int(net.config.text_config.max_position_embeddings), int(tokenizer.model_max_length))
    return Words(tokenizer, most, name)


def _vector(output: Any) -> Tensor:
    """One vector a row of a network's output."""
    if isinstance(output, Tensor):
        return output
    pooled: Tensor | None = getattr(output, "pooler_output", None)
    return output.last_hidden_state[:, 0] if pooled is None else pooled


def unit(vectors: Tensor) -> Tensor:
    """Vectors (N, D) of length 1."""
    return F.normalize(vectors, dim=-1)
