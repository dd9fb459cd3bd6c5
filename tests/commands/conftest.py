"""What tests of `redraft search` share: a tiny pipeline, loaded once, and verifiers by name."""

import looks
import pipelines
import pytest

import redraft
from redraft.core.checkpoint import Checkpoint
from redraft.core.registry import VERIFIERS


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return pipelines.with_encoder(tmp_path_factory.mktemp("sd"))


@pytest.fixture
def names(monkeypatch):
    """The toy verifiers by name, and a checkpoint after every draft."""
    for name, target in looks.NAMES.items():
        monkeypatch.setitem(VERIFIERS._builtin, name, target)
    monkeypatch.setattr(Checkpoint.__init__, "__defaults__", (0.0,))


@pytest.fixture(scope="session")
def model(folder):
    return redraft.load_model(str(folder), device="cpu")


@pytest.fixture
def loaded(model, monkeypatch):
    """Load the model once for all."""
    asked = []
    monkeypatch.setattr(redraft, "load_model", lambda name, device, **given: asked.append((name, given)) or model)
    return asked
