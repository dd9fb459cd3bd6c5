"""Command lines of `redraft search`, and what they leave behind."""

import json

from redraft.core.trace import Trace


def arguments(folder, out, *more, method="random", budget=48):
    how = ["--method", method, "--budget", str(budget), "--steps", "3", "--verifier", "bright", "--held-out", "red"]
    return ["search", "--model", str(folder), "--device", "cpu", "--out", str(out), *how, *more]


def files(out):
    """What a search has written, seconds aside."""
    found = {}
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        name = str(path.relative_to(out))
        found[name] = Trace.load(path) if path.suffix == ".parquet" else path.read_bytes()
    return found


def summary(out, place=0):
    return json.loads((out / "prompts" / f"{place:04d}" / "summary.json").read_text())
