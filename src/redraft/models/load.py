"""From a name or a folder to a model."""

from __future__ import annotations

from pathlib import Path

from redraft.core.errors import RedraftError
from redraft.core.model import Model
from redraft.core.registry import MODELS
from redraft.models.weights import SHIPPED, read_config


def load_model(name: str, device: str | None = None, compile: bool = False) -> Model:
    """A model by the name of one that ships (see `redraft list`), or from a folder that `redraft train` wrote.

    Args:
        name: the name, or the folder's path.
        device: such as 'cuda' or 'cpu'; a GPU if there is one when not given.
        compile: fuse the network's operations by `torch.compile`: a slow start, then faster; needs a C++ compiler.

    Raises:
        RedraftError: unknown name, or a folder without a sound model.
    """
    folder = Path(name) if Path(name).is_dir() else SHIPPED / name
    if not folder.is_dir():
        MODELS[name]  # an unknown name ends here
        raise RedraftError(f"the weights of {name!r} are not installed in {SHIPPED}")
    kind = read_config(folder).get("model")
    if not kind:
        raise RedraftError(f"{folder} is not a model that can be sampled from")
    model: Model = MODELS[kind].load(folder, device, compile)
    return model
