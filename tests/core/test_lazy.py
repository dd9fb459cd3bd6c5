"""`import redraft` is quick, and everything below it is an attribute."""

import subprocess
import sys

import pytest

import redraft


def test_importing_redraft_imports_no_heavy_library():
    seen = "import redraft, sys; print(sorted({'torch', 'numpy', 'transformers', 'tyro'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", seen], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_packages_and_their_modules_are_attributes_and_nothing_else_is():
    assert redraft.verifiers.sets.__name__ == "redraft.verifiers.sets"
    assert redraft.testing.check_sampler.__name__ == "check_sampler"
    assert {"verifiers", "samplers", "testing"} < set(dir(redraft))
    for place in (redraft, redraft.models, redraft.samplers):
        with pytest.raises(AttributeError, match=f"module '{place.__name__}' has no attribute 'nothing'"):
            place.nothing  # noqa: B018
