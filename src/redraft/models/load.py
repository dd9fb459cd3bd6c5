"""From a name, a folder or a hub id to a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from redraft.core.errors import RedraftError, check_settings, missing_settings, shown
from redraft.core.fields import Count, taken
from redraft.core.model import Model
from redraft.core.registry import MODELS
from redraft.models import hub, pipeline
from redraft.models.adapters import sit
from redraft.models.weights import SHIPPED, read_config

ASKED = "give a name, folder, hub id or pipeline"


def load_model(name: Any, device: str | None = None, compile: bool = False, **options: Any) -> Any:
    """A model by its name (see `redraft list`), from a folder, or from the Hugging Face hub.

    Args:
        name: of a model that ships, or that another package adds by the entry-point group `redraft.models`; the path of
            a folder that `redraft train` wrote or that is laid out as the hub's are; a hub id, such as
            'GSAI-ML/LLaDA-8B-Instruct'; a checkpoint of SiT, .pt or .safetensors; or a pipeline of diffusers, which
            stays on its device if none is given.
        device: such as 'cuda' or 'cpu'; a GPU if there is one when not given.
        compile: fuse the network's operations by `torch.compile`: a slow start, then faster; needs a C++ compiler.
        options: of models in the hub's layout, see `redraft.models.hub.load`: remote_code, dtype, revision, tokenizer,
            and the adapter's own, such as length; of pipelines see `redraft.models.pipeline.adapt`: example, and
            arguments of the pipeline's call, such as guidance_scale; of SiT see `redraft.models.adapters.sit.load`; of
            a model of another package that package's own.

    Returns:
        A `redraft.core.model.Model`, with what its family has beside, such as `text` of models of tokens.

    Raises:
        RedraftError: unknown name, a folder without a sound model, arguments of a call that no pipeline can follow, or
            whatever `redraft.models.hub.load` raises.
    """
    device, compile = taken("device", device, str | None), taken("compile", compile, bool)
    if isinstance(name, str) and _is_added(name):
        return _added(name, device, compile, options)
    check_call(options)
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
    return _held(folder, device, compile)


def _held(folder: Path, device: str | None, compile: bool) -> Model:
    """The model in a folder as `redraft train` writes them."""
    kind = read_config(folder).get("model")
    if not kind:
        raise RedraftError(f"{folder} is not a model that can be sampled from")
    make = MODELS[kind]
    if not hasattr(make, "load"):
        raise RedraftError(f"{folder} holds a model {kind!r}, which is loaded by its name alone: it has no `load`")
    return _checked(kind, make.load(folder, device, compile))


def _is_added(name: str) -> bool:
    """Whether another package gives a model of that name, and no folder here has it."""
    return not Path(name).is_dir() and not MODELS.ships(name) and name in MODELS


def _added(name: str, device: str | None, compile: bool, options: dict[str, Any]) -> Model:
    """A model that another package gives, called with `device` and `compile` where they are asked for.

    Raises:
        RedraftError: it has no option of that name, needs one that is not given, or is no model.
    """
    make, placed = MODELS[name], {"device": device, "compile": compile}
    given = options | {key: value for key, value in placed.items() if value}
    check_settings(f"model {name!r}", make, given)
    if missing := missing_settings(make, given):
        raise RedraftError(f"model {name!r} needs {', '.join(missing)}: give load_model({name!r}, {missing[0]}=...)")
    return _checked(name, make(**given))


def _checked(name: str, model: Any) -> Model:
    """The model that a package gave under `name`, if it is one.

    Raises:
        RedraftError: it is not.
    """
    if isinstance(model, type) or not hasattr(model, "predict"):
        raise RedraftError(f"{name!r} gave {shown(model)}, where a model is asked for")
    made: Model = model
    return made


def _known(name: str) -> None:
    """Raise unless there is a model called `name`.

    Raises:
        RedraftError: there is none; the nearest name is suggested.
    """
    try:
        MODELS[name]
    except RedraftError as error:
        raise RedraftError(f"{error}; a hub id has the form owner/name") from error


def check_call(options: dict[str, Any]) -> None:
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
