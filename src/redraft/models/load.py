"""From a name, a folder or a hub id to a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from redraft.core.errors import RedraftError, shown
from redraft.core.fields import Count, taken
from redraft.core.model import Model
from redraft.core.registry import MODELS
from redraft.models import hub, pipeline
from redraft.models.adapters import sit
from redraft.models.weights import SHIPPED, read_config

ASKED = "give a name, folder, hub id or pipeline"


def load_model(name: Any, device: str | None = None, compile: bool = False, **options: Any) -> Model:
    """A model by the name of one that ships (see `redraft list`), from a folder, or from the Hugging Face hub.

    Args:
        name: the name; the path of a folder that `redraft train` wrote or that is laid out as the hub's are; a hub id,
            such as 'GSAI-ML/LLaDA-8B-Instruct'; a checkpoint of SiT, .pt or .safetensors; or a pipeline of diffusers,
            which stays on its device if none is given.
        device: such as 'cuda' or 'cpu'; a GPU if there is one when not given.
        compile: fuse the network's operations by `torch.compile`: a slow start, then faster; needs a C++ compiler.
        options: of models in the hub's layout only, see `redraft.models.hub.load`: remote_code, dtype, revision,
            tokenizer, and the adapter's own, such as length; of pipelines see `redraft.models.pipeline.adapt`: example,
            and arguments of the pipeline's call, such as guidance_scale; of SiT see `redraft.models.adapters.sit.load`.

    Raises:
        RedraftError: unknown name, a folder without a sound model, arguments of a call that no pipeline can follow, or
            whatever `redraft.models.hub.load` raises.
    """
    device, compile = taken("device", device, str | None), taken("compile", compile, bool)
    _check_call(options)
    if not isinstance(name, str | Path):
        if isinstance(name, type) or not callable(name):
            raise RedraftError(f"{shown(name)} is no model: {ASKED}")
        return pipeline.adapt(name, device, compile, **options)
    if not str(name).strip():
        raise RedraftError(f"the model has no name: {ASKED}")
    if weights := sit.checkpoint(name):
        return sit.load(weights, device, compile, **options)
    name = str(name)
    folder = Path(name) if Path(name).is_dir() else SHIPPED / name
    if hub.is_hub_folder(folder) if folder.is_dir() else hub.HUB_ID.fullmatch(name):
        return hub.load(name, device, compile, **options)
    if options:
        raise RedraftError(f"{next(iter(options))} is an option of models of the Hugging Face hub, not of {name!r}")
    if not folder.is_dir():
        _known(name)
        raise RedraftError(f"the weights of {name!r} are not installed in {SHIPPED}")
    kind = read_config(folder).get("model")
    if not kind:
        raise RedraftError(f"{folder} is not a model that can be sampled from")
    model: Model = MODELS[kind].load(folder, device, compile)
    return model


def _known(name: str) -> None:
    """Raise unless there is a model called `name`.

    Raises:
        RedraftError: there is none; the nearest name is suggested.
    """
    try:
        MODELS[name]
    except RedraftError as error:
        raise RedraftError(f"{error}; a hub id has the form owner/name") from error


def _check_call(options: dict[str, Any]) -> None:
    """Refuse arguments of a pipeline's call that it would put others in place of, without a word.

    Raises:
        RedraftError: height without width, or either that is no size; guidance that is not finite.
    """
    sides = {name: value for name in ("height", "width") if (value := options.get(name)) is not None}
    for name, value in sides.items():
        options[name] = taken(name, value, Count)
    if len(sides) == 1:
        one, other = (*sides, "width" if "height" in sides else "height")
        raise RedraftError(f"{one} is given without {other}, and pipelines may then draw at their own size: give both")
    if "guidance_scale" in options:
        options["guidance_scale"] = taken("guidance_scale", options["guidance_scale"], float | None)
