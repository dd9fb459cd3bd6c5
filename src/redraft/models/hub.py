"""Models of the Hugging Face hub, or of folders in its layout: read config.json, choose the adapter, load the weights.

Weights are safetensors only. Code that comes with a model runs only when the user says so.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from redraft.core.errors import RedraftError, pickled, require, said, unknown
from redraft.models import pipeline, remote
from redraft.models.adapters import images, text
from redraft.models.pipeline import PipelineModel
from redraft.models.tokens import TokenModel
from redraft.models.weights import pick_device, pick_dtype, read_config

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Family:
    """How the models of one architecture are loaded.

    Attributes:
        adapter: makes a `TokenModel` of the network.
        auto: the class of transformers that loads it.
        remote: its code comes with the weights.
        tokenizer: where its tokenizer is, if not with the weights.
        dtype: of its weights, if not as stored.
    """

    adapter: Callable[..., TokenModel]
    auto: str = "AutoModel"
    remote: bool = True
    tokenizer: str | None = None
    dtype: str = "auto"


# MDLM casts to bfloat16 by itself, inside
FAMILIES = {
    "MDLM": Family(text.mdlm, "AutoModelForMaskedLM", tokenizer="openai-community/gpt2", dtype="float32"),
    "LLaDAModelLM": Family(text.llada),
    "DreamModel": Family(text.dream),
    "LLaDA2MoeModelLM": Family(text.llada2, "AutoModelForCausalLM"),
}
MASKED_LM = Family(text.masked_lm, "AutoModelForMaskedLM", remote=False)
AMUSED = "AmusedPipeline"


def is_hub_folder(folder: Path) -> bool:
    """Whether the folder is laid out as the hub's are, not as `redraft train` writes them."""
    if (folder / "model_index.json").is_file():
        return True
    return (folder / "config.json").is_file() and "architectures" in read_config(folder)


def load(
    source: str,
    device: str | None = None,
    compile: bool = False,
    *,
    remote_code: bool = False,
    dtype: str | torch.dtype | None = None,
    revision: str | None = None,
    tokenizer: str | None = None,
    **options: Any,
) -> TokenModel | PipelineModel:
    """The model in a folder or on the hub.

    Args:
        source: folder, or hub id such as 'GSAI-ML/LLaDA-8B-Instruct'.
        device: such as 'cuda'; a GPU if there is one when not given.
        compile: fuse the network's operations by `torch.compile`.
        remote_code: run the Python code that comes with the weights.
        dtype: of the weights, such as 'bfloat16'; when not given as stored, of what diffusers loads float32.
        revision: branch, tag or commit on the hub.
        tokenizer: where a text model's tokenizer is, if not with the weights.
        options: the adapter's own, such as `length` or `mask`; of a pipeline of diffusers see
            `redraft.models.pipeline.adapt`.

    Raises:
        RedraftError: the source cannot be reached or read, its architecture is not supported, it needs code of its own
            and `remote_code` is false, an option is unknown, or a package is missing.
    """
    require("transformers", "text")
    target = pick_device(device)
    architecture = _architecture(source, revision)
    named = {"name": _name(source)} | options
    if architecture.endswith("Pipeline"):
        if tokenizer is not None:
            raise RedraftError(f"{source!r} is a pipeline, which comes with its tokenizer: leave out `tokenizer`")
        if dtype == "auto":
            raise RedraftError(f"{source!r} is a pipeline, of which diffusers loads no dtype 'auto': name one")
        if architecture != AMUSED:
            return pipeline.load(source, target, compile, dtype=known_dtype(dtype), revision=revision, **named)
    if architecture == AMUSED:
        _known(images.amused, options)
        model = images.amused(*_amused_parts(source, revision, pick_dtype(dtype), target), **named)
    else:
        family = _family(source, architecture)
        _known(family.adapter, options)
        if family.remote and not remote_code:
            raise RedraftError(
                f"{source!r} comes with Python code of its own, which runs only by load_model(..., remote_code=True)"
            )
        words = _tokenizer(source, tokenizer or family.tokenizer, _at(revision) | {"trust_remote_code": family.remote})
        read = remote.pretrained if family.remote else pretrained
        net = read(source, family.auto, dtype=known_dtype(dtype or family.dtype), **_at(revision))
        model = family.adapter(net.to(target), words, **named)
    if compile and model.net is not None:
        model.net.compile(dynamic=True)
    return model


def _at(revision: str | None) -> dict[str, Any]:
    return {} if revision is None else {"revision": revision}


def _name(source: str) -> str:
    return Path(source).resolve().name if Path(source).is_dir() else source


def known_dtype(dtype: str | torch.dtype | None) -> Any:
    """The dtype of a name; None and 'auto' as they are.

    Raises:
        RedraftError: there is none of that name.
    """
    return dtype if dtype is None or dtype == "auto" else pick_dtype(dtype)


def _family(source: str, architecture: str) -> Family:
    if architecture in FAMILIES:
        return FAMILIES[architecture]
    if architecture.endswith("ForMaskedLM") and hasattr(require("transformers", "text"), architecture):
        return MASKED_LM
    raise RedraftError(
        f"{source!r} is a {architecture or 'model of no stated architecture'}, which is not supported; these are: "
        f"{', '.join([*FAMILIES, AMUSED])} and every ...ForMaskedLM of transformers, and pipelines of diffusers"
    )


def _known(adapter: Callable[..., TokenModel], options: dict[str, Any]) -> None:
    names = [p.name for p in inspect.signature(adapter).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for name in options:
        if name not in names:
            raise unknown("option", name, [*names, "remote_code", "dtype", "revision", "tokenizer"])


def _architecture(source: str, revision: str | None) -> str:
    """The class that the source's config.json, or its model_index.json, names."""
    pipeline = _file(source, "model_index.json", revision)
    if pipeline is not None:
        return str(read_config(pipeline.parent, pipeline.name).get("_class_name", ""))
    path = _file(source, "config.json", revision)
    if path is None:
        raise RedraftError(f"{source!r} has neither config.json nor model_index.json")
    return str(next(iter(read_config(path.parent).get("architectures") or []), ""))


def _file(source: str, name: str, revision: str | None) -> Path | None:
    """A small file of the source on this machine, or None if the source has none of that name."""
    if Path(source).is_dir():
        path = Path(source) / name
        return path if path.is_file() else None
    hub = require("huggingface_hub", "text")
    errors = require("huggingface_hub.errors", "text")
    try:
        return Path(hub.hf_hub_download(source, name, revision=revision))
    except errors.GatedRepoError as error:
        raise RedraftError(f"{source!r} is gated: accept its terms on the hub and log in by `hf auth login`") from error
    except errors.RepositoryNotFoundError as error:
        raise RedraftError(f"{source!r} is neither a folder here nor a public model on the Hugging Face hub") from error
    except errors.RevisionNotFoundError as error:
        raise RedraftError(f"{source!r} has no revision {revision!r} on the Hugging Face hub") from error
    except errors.LocalEntryNotFoundError as error:
        cached = hub.try_to_load_from_cache(source, "config.json", revision=revision)
        if isinstance(cached, str):
            return None
        raise _unreachable(source) from error
    except errors.EntryNotFoundError:
        return None
    except Exception as error:  # whatever the network throws
        raise _unreachable(source) from error


def _unreachable(source: str) -> RedraftError:
    return RedraftError(
        f"{source!r} is not a folder here, is not in the cache, and the Hugging Face hub cannot be reached"
    )


def _tokenizer(source: str, given: str | None, common: dict[str, Any]) -> Any:
    """The tokenizer, or None if the source is a folder without one."""
    if given is not None:
        return pretrained(given, "AutoTokenizer")
    names = ("tokenizer.json", "tokenizer_config.json", "vocab.txt")
    if Path(source).is_dir() and not any((Path(source) / name).is_file() for name in names):
        return None
    return pretrained(source, "AutoTokenizer", **common)


def _amused_parts(source: str, revision: str | None, dtype: Any, device: torch.device) -> list[Any]:
    where = _at(revision)
    kinds = (("UVit2DModel", "transformer"), ("VQModel", "vqvae"))
    parts = [pretrained(source, kind, "diffusers", subfolder=at, torch_dtype=dtype, **where) for kind, at in kinds]
    if dtype == torch.float16 and parts[1].config.force_upcast:
        parts[1].float()  # its decoder overflows
    parts += [pretrained(source, "CLIPTextModelWithProjection", subfolder="text_encoder", dtype=dtype, **where)]
    words = pretrained(source, "CLIPTokenizer", subfolder="tokenizer", **where)
    return [*(part.to(device) for part in parts), words]


def pretrained(source: str, kind: str, library: str = "transformers", **settings: Any) -> Any:
    """What `kind`.from_pretrained gives, networks ready to evaluate and without gradients.

    Raises:
        RedraftError: it cannot be loaded.
    """
    module = require(library, "diffusers" if library == "diffusers" else "text")
    is_net = "Tokenizer" not in kind
    safe = {"use_safetensors": True} if is_net else {}
    try:
        made = getattr(module, kind).from_pretrained(source, **safe, **settings)
    except Exception as error:
        hint = pickled(error) if is_net else ""
        raise RedraftError(f"{source!r} cannot be loaded by {library}.{kind}: {said(error)}{hint}") from error
    return made.eval().requires_grad_(False) if is_net else made
