"""Networks whose code comes with their weights. It was written for transformers 4; here it runs on 5 as well.

LLaDA, Dream, LLaDA2 and MDLM as released rely on what version 5 has taken away: rotary frequencies called "default", a
function that says whether torch.fx is there, `use_cache` in every configuration, `post_init` left out, `tie_weights`
without arguments, and buffers that are in no checkpoint made on the CPU. All of it is added, nothing is replaced.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from redraft.core.errors import RedraftError, require, said


def pretrained(source: str, auto: str, revision: str | None = None, **settings: Any) -> nn.Module:
    """The network in a folder or on the hub, ready to evaluate and without gradients; runs its code.

    Args:
        source: folder or hub id.
        auto: the class of transformers for which its configuration names one of its own, such as 'AutoModel'.
        revision: branch, tag or commit on the hub, of weights and code.
        settings: further arguments of `from_pretrained`.

    Raises:
        RedraftError: it cannot be loaded.
    """
    try:
        return _loaded(source, auto, revision, settings).eval().requires_grad_(False)
    except RedraftError:
        raise
    except Exception as error:
        raise RedraftError(f"{source!r} cannot be loaded by the code that comes with it: {said(error)}") from error


def _loaded(source: str, auto: str, revision: str | None, settings: dict[str, Any]) -> nn.Module:
    library, modules = require("transformers", "text"), require("transformers.dynamic_module_utils", "text")
    require("transformers.modeling_rope_utils", "text").ROPE_INIT_FUNCTIONS.setdefault("default", _frequencies)
    imports = require("transformers.utils.import_utils", "text")
    if not hasattr(imports, "is_torch_fx_available"):
        imports.is_torch_fx_available = lambda: False
    config = library.AutoConfig.from_pretrained(source, trust_remote_code=True, revision=revision)
    if not hasattr(config, "use_cache"):
        config.use_cache = False
    if auto not in (classes := getattr(config, "auto_map", None) or {}):
        raise RedraftError(f"{source!r} comes with no class for {auto}: the auto_map of its config.json has none")
    kind = _adapted(modules.get_class_from_dynamic_module(classes[auto], source, revision=revision))
    net: nn.Module = kind.from_pretrained(source, config=config, revision=revision, use_safetensors=True, **settings)
    for module in net.modules():
        if hasattr(module, "rope_init_fn") and hasattr(module, "inv_freq"):
            _turn(module)
    return net


def _adapted(kind: Any) -> Any:
    """The class, as transformers 5 wants it."""

    def tie_weights(self: Any, *args: Any, **given: Any) -> None:
        if "missing_keys" in inspect.signature(kind.tie_weights).parameters:
            kind.tie_weights(self, *args, **given)
        else:
            kind.tie_weights(self)

    members = {"__module__": kind.__module__, "all_tied_weights_keys": {}, "tie_weights": tie_weights}
    return type(kind.__name__, (kind,), members)


def _turn(rotary: Any) -> None:
    """Make the frequencies again: version 5 allocates buffers that are in no checkpoint, and leaves them at that."""
    rotary.inv_freq, rotary.attention_scaling = rotary.rope_init_fn(rotary.config, rotary.inv_freq.device)
    rotary.original_inv_freq = rotary.inv_freq


def _frequencies(config: Any, device: Any = None, seq_len: int | None = None, **ignored: Any) -> tuple[Tensor, float]:
    """Rotary frequencies (D / 2,) as in RoFormer (Su et al. 2021), and the scale of attention, 1."""
    base = getattr(config, "rope_theta", None) or config.rope_parameters["rope_theta"]
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    size = int(head * (getattr(config, "partial_rotary_factor", None) or 1))
    return 1 / base ** (torch.arange(0, size, 2, dtype=torch.float, device=device) / size), 1.0
