"""Published weights that are no checkpoints of `transformers`: read without unpickling, put into networks.

An aesthetic head is a chain of linear layers with dropout between some of them and nothing else; where a published one
has another layer in between, its numbering shows it, and it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from redraft.core.errors import RedraftError, require
from redraft.core.files import regular

Weights = Mapping[str, Tensor]
LINEAR = ((0, 2, 4, 6, 7), (0, 2, 4, 6, 8))
"""Where linear layers stand: of the LAION predictor and of ImageReward; of the predictor 2.5 on SigLIP."""


def weight_file(source: str | Path, names: Sequence[str], revision: str | None = None) -> Path:
    """A file of weights: `source` itself, or the first of `names` that is in the folder or hub repository `source`.

    Raises:
        RedraftError: there is none, or the hub cannot be reached.
    """
    path = Path(source)
    if path.is_file():
        return path
    if path.is_dir():
        found = [path / name for name in names if (path / name).is_file()]
    else:
        found = [file for name in names if (file := _from_hub(str(source), name, revision))][:1]
    if not found:
        raise RedraftError(f"{str(source)!r} holds none of {', '.join(names)}: give the file itself, or its folder")
    return found[0]


def _from_hub(source: str, name: str, revision: str | None) -> Path | None:
    """The file on this machine, or None if the repository has none of that name."""
    hub, errors = require("huggingface_hub", "diffusers"), require("huggingface_hub.errors", "diffusers")
    try:
        return Path(hub.hf_hub_download(source, name, revision=revision))
    except errors.LocalEntryNotFoundError as error:
        raise RedraftError(f"{name!r} of {source!r} is not here, and the Hugging Face hub cannot be reached") from error
    except errors.EntryNotFoundError:
        return None
    except Exception as error:  # whatever the network throws, and what is no id at all
        raise RedraftError(f"{source!r} is neither a file or folder here nor to be had from the hub") from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name, of safetensors, or of a file of torch that holds nothing else than tensors.

    Raises:
        RedraftError: the file is damaged, or holds code or other objects.
    """
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(regular(path)))
        found = torch.load(regular(path), map_location="cpu", weights_only=True)
        found = found.get("state_dict", found) if isinstance(found, dict) else found  # as trainers keep them
    except Exception as error:
        raise RedraftError(f"{path} cannot be read as weights alone, which is all that is read of a file") from error
    if isinstance(found, dict) and all(isinstance(value, Tensor) for value in found.values()):
        return dict(found)
    raise RedraftError(f"{path} holds something else than tensors by name")


def filled(net: Any, weights: Weights, name: str) -> Any:
    """A network that was made on the device 'meta', with these weights and with what it keeps besides weights.

    Raises:
        RedraftError: they are not the weights that the network has; it calls them `name`.
    """
    wanted = dict(net.named_parameters())
    for key in sorted(wanted.keys() ^ weights.keys()):
        raise foreign(name, f"{key!r} is {'missing' if key in wanted else 'too much'}")
    for key, value in weights.items():
        if value.shape != wanted[key].shape:
            raise foreign(name, f"{key!r} has shape {tuple(value.shape)}, not {tuple(wanted[key].shape)}")
    net.load_state_dict({key: value.float() for key, value in weights.items()}, strict=False, assign=True)
    for module in net.modules():
        for key, value in module._buffers.items():
            if value is not None and value.is_meta:
                module._buffers[key] = torch.arange(value.shape[-1]).expand(value.shape)  # numbers of positions
    return net.eval().requires_grad_(False)


def foreign(name: str, what: str) -> RedraftError:
    """That weights are others than they should be."""
    return RedraftError(f"these are not the weights of {name}: {what}")


def chain(weights: Weights, prefix: str, width: int | None = None) -> nn.Sequential:
    """The linear layers called `<prefix>.<number>`, one after another, without gradients.

    Args:
        weights: by name; those of other names are left alone.
        prefix: of the layers' names.
        width: of the features that they are for, if that is to be checked.

    Raises:
        RedraftError: there are none, other layers are in between, or they do not lead from `width` to one number.
    """
    named = re.compile(re.escape(prefix) + r"\.(\d+)\.weight")
    numbers = sorted(int(match[1]) for name in weights if (match := named.fullmatch(name)))
    if tuple(numbers) not in LINEAR:
        known = " or ".join(", ".join(map(str, layout)) for layout in LINEAR)
        raise RedraftError(f"a head has the linear layers {prefix}.N with N = {known}: these weights have {numbers}")
    layers = [_linear(weights, f"{prefix}.{number}") for number in numbers]
    widths = [layers[0].in_features, *(layer.out_features for layer in layers)]
    if [layer.in_features for layer in layers] != widths[:-1] or widths[-1] != 1:
        raise RedraftError(f"the layers of {prefix!r} do not lead to one number: their widths are {widths}")
    if width not in (None, widths[0]):
        raise RedraftError(f"the head takes {widths[0]} features and the network gives {width}: they do not belong")
    return nn.Sequential(*layers).eval().requires_grad_(False)


def _linear(weights: Weights, name: str) -> nn.Linear:
    try:
        weight, bias = weights[f"{name}.weight"].float(), weights[f"{name}.bias"].float()
        layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")  # draws no random numbers
        layer.load_state_dict({"weight": weight, "bias": bias}, assign=True)
    except (KeyError, IndexError, RuntimeError) as error:
        raise RedraftError(f"{name!r} is no linear layer with a bias") from error
    return layer
