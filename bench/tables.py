"""Fill the tables of README.md and docs, and draw docs/curves, from bench/results: `python bench/tables.py`.

`--check` only compares.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import experiment_tables
import numpy as np
import search_tables
import torch
from cells import UNMEASURED
from cells import markdown as markdown_table
from cells import stored as stored_cells
from claims import lacking, rounded
from measured import RESULTS, measured

from redraft.bench.compare import Estimate
from redraft.core.trace import Trace
from redraft.report.statistics import wilson

ROOT = Path(__file__).parent.parent


def load(name: str) -> Trace:
    """The stored rows of an experiment."""
    return Trace.load(RESULTS / f"{name}.parquet")


def stored(words: dict[str, str], prefix: str = "") -> Iterator[tuple[str, Trace]]:
    """What the table calls an experiment, and its rows, for those that have been run."""
    for name, text in words.items():
        if (RESULTS / f"{prefix}{name}.parquet").exists():
            yield text, load(f"{prefix}{name}")


def share(trace: Trace, draft: int, column: str = "valid") -> str:
    """A share in per cent with its 95 % interval."""
    values = trace.by_draft(column)[draft].double()
    low, high = wilson(int(values.sum()), len(values))
    return f"{values.mean() * 100:.1f} % ({low * 100:.1f}–{high * 100:.1f})"


def within(trace: Trace, budget: int) -> str:
    """The share of problems whose last draft within `budget` evaluations is valid, with its 95 % interval."""
    fits = trace["nfe"] <= budget
    problems, rows = trace["problem"][fits].unique(return_inverse=True)
    last = torch.zeros(len(problems)).scatter_reduce(0, rows, trace["draft"][fits].float(), "amax")
    valid = trace["valid"][fits][trace["draft"][fits] == last[rows]]
    low, high = wilson(int(valid.sum()), len(valid))
    return f"{valid.double().mean() * 100:.0f} % ({low * 100:.0f}–{high * 100:.0f})"


def nfe(trace: Trace, draft: int) -> str:
    """Mean evaluations per problem by a draft."""
    return f"{trace.by_draft('nfe')[draft].double().mean():.0f}"


def last(trace: Trace) -> int:
    """The number of the last draft."""
    return int(trace["draft"].max())


def markdown(rows: list[tuple[str, ...]]) -> str:
    """A Markdown table; the first row is the head."""
    return markdown_table(rows[0], rows[1:])


def kinds() -> str:
    """Validity before and after IPR, by kind of puzzle."""
    rows = [("puzzles", "n", "valid at first", "after IPR", "iterations", "NFE at first", "NFE in all")]
    for name in ("hard", "medium", "easy", "extreme", *(f"corrupted-{k}" for k in (1, 3, 5, 10))):
        if not (RESULTS / f"{name}.parquet").exists():
            continue
        trace = load(name)
        end, n = last(trace), len(trace.by_draft("valid")[0])
        rows.append((name, str(n), share(trace, 0), share(trace, end), str(end), nfe(trace, 0), nfe(trace, end)))
        if name == "extreme":
            rows.append(("… solved", "", share(trace, 0, "solved"), share(trace, end, "solved"), "", "", ""))
    return markdown(rows)


def curve() -> str:
    """Validity against cost: single drafts, the paper's settings and the quick ones, on the same puzzles."""
    found, budgets = experiment_tables.comparison("ipr-sudoku"), (300, 400, 600, 800, 1000, 1500, 2200)
    at = np.array(budgets, dtype=float)
    curves = {each.name: each for each in found.curves}
    drafts = found.best(curves["one draft"], "nfe", at, "valid")
    rows = [("valid, %", *(f"{budget} NFE" for budget in budgets))]
    rows.append(("the best single draft", *_shares(found.estimate(100 * drafts))))
    for label, words in {"IPR, the paper's": "the paper's settings", "IPR, chosen": "`IPR.quick()`"}.items():
        values = found.values(curves[label], "nfe", at, "valid")
        rows.append((words, *_shares(found.estimate(100 * values))))
        rows.append(("… points above the draft", *_shares(found.estimate(100 * (values - drafts)))))
    return markdown(rows)


def _shares(found: Estimate) -> Iterator[str]:
    for mean, low, high in zip(found.mean, found.low, found.high, strict=True):
        yield f"{rounded(mean)} ({rounded(low)} to {rounded(high)})"


def initial() -> str:
    """Validity of single drafts, and of IPR at the same cost."""
    rows = [("first draft only", "n", "valid", "NFE")]
    names = {
        "3": "3 steps a cell (the paper's)",
        "10": "10 steps a cell",
        "30": "30 steps a cell",
        "10-overlap": "10 steps, overlap 0.8",
        "30-overlap": "30 steps, overlap 0.8",
        "30-by-3": "30 steps, 3 cells at a time",
        "restarts": "the last of 4 independent drafts",
        "restarts-keep": "of 4 independent drafts, the one that the model disagrees with least",
    }
    for words, trace in stored(names, "initial-"):
        end = last(trace)
        rows.append((words, str(len(trace.by_draft("valid")[0])), share(trace, end), nfe(trace, end)))
    return markdown(rows)


def chain() -> str:
    """Validity along chains of 200 iterations from a poor and from a perfect start."""
    rows = [("start", "n", *(f"after {draft}" for draft in (0, 10, 25, 50, 100, 200)), "mean of 101–200")]
    for name, words in {"chain-noise": "cells in random order", "chain-board": "the solution"}.items():
        if (RESULTS / f"{name}.parquet").exists():
            trace = load(name)
            valid = trace.by_draft("valid")
            late = torch.cat([valid[draft] for draft in range(101, 201)]).double().mean()
            shares = (f"{valid[draft].double().mean() * 100:.0f} %" for draft in (0, 10, 25, 50, 100, 200))
            rows.append((words, str(len(valid[0])), *shares, f"{late * 100:.1f} %"))
    return markdown(rows)


def grid() -> str:
    """Validity of selection x ratio x overlap at equal cost: the last drafts within a number of evaluations."""
    budgets = (300, 400, 600, 800)
    rows = [("selection", "ratio", "overlap", "n", *(f"{budget} NFE" for budget in budgets))]
    for path in sorted(RESULTS.glob("grid-*.parquet")):
        _, select, ratio, overlap = path.stem.split("-")
        trace = load(path.stem)
        shares = [within(trace, budget) for budget in budgets]
        rows.append((select, ratio, overlap, str(len(trace.by_draft("valid")[0])), *shares))
    return markdown(rows)


def vary() -> str:
    """Validity at equal cost with one setting changed."""
    budgets = (300, 400, 600, 800)
    rows = [("changed from the paper's", "n", *(f"{budget} NFE" for budget in budgets))]
    words = {
        "paper": "nothing",
        "keep": "kept only if the model disagrees no more",
        "level-0.8": "re-noised to level 0.8",
        "noise-fixed": "the first draft's noise",
        "stochasticity-0": "stochasticity 0",
        "stochasticity-1": "stochasticity 1",
        "temperature-0.5": "temperature 0.5",
        "steps-5": "5 steps a cell",
    }
    for change, trace in stored(words, "vary-"):
        shares = (within(trace, budget) for budget in budgets)
        rows.append((change, str(len(trace.by_draft("valid")[0])), *shares))
    return markdown(rows)


def speed() -> str:
    """The measured speed."""
    found = measured("speed")
    if not found:
        return ""
    rows = [
        ("what", "measured"),
        ("a run's wall time over its network calls made bare, 64 puzzles", f"{found['overhead']:.2f}"),
        ("rows a second at batch 64 over batch 1", f"{found['throughput_64_over_1']:.1f}"),
    ]
    for kind, words in {"puzzles": "puzzles, 2 iterations", "iterations": "iterations of 8 puzzles"}.items():
        times = found["seconds"][kind]
        rows.append((f"seconds for {', '.join(times)} {words}", ", ".join(f"{value:.1f}" for value in times.values())))
    return markdown(rows)


SHARES = {"parses", "valid"}


def percent(row: dict[str, Any] | None) -> str:
    """A share with its interval."""
    return f"{row['mean'] * 100:.0f} ({row['low'] * 100:.0f}–{row['high'] * 100:.0f})" if row else ""


def number(row: dict[str, Any] | None, digits: int = 2) -> str:
    """A mean with half of its interval, if it has one."""
    if row is None:
        return ""
    half = (row["high"] - row["low"]) / 2
    return f"{row['mean']:.{digits}f}" + (f" ± {half:.{digits}f}" if half > 0 else "")


def value(metric: str, cell: dict[str, dict[str, Any]]) -> str:
    """A metric of a cell, shares in per cent."""
    return (percent if metric in SHARES else number)(cell.get(metric))


def details(task: str, multiple: int, wanted: dict[str, str]) -> str:
    """IterRef's settings at a multiple of the base cost."""
    cells: dict[str, dict[str, dict[str, Any]]] = {}
    for row in stored_cells("iterref"):
        if (row["task"], row["multiple"]) == (task, multiple):
            cells.setdefault(row["method"], {})[row["metric"]] = row
    rows = [("setting", *wanted.values(), "n")]
    for setting, cell in sorted(cells.items()):
        rows.append((setting, *(value(metric, cell) for metric in wanted), str(cell["nfe"]["n"])))
    return markdown(rows)


def reward_ablation() -> str:
    """IterRef with one setting changed: where and how far at 4 times the base cost, and k N = 32 tries."""
    wanted = {"reward": "reward", "acceptance": "acceptance", "nfe": "NFE", "verifier calls": "verifier calls"}
    parts = []
    for task, more in {"python": {"parses": "parses, %"}, "sudoku-tokens": {"valid": "valid, %"}}.items():
        where, tries = (details(task, multiple, wanted | more) for multiple in (4, 6))
        parts.append(f"`{task}`, where and how far, 4 times the base cost:\n\n{where}\n\nk N = 32:\n\n{tries}")
    return "\n\n".join(parts)


def masked_speed() -> str:
    """What masked samplers cost beside the network."""
    found = measured("masked_speed")
    if not found:
        return UNMEASURED
    dense = found["dense"]
    rows = [("step", "seconds", "times less", "GB above the logits", "times less")]
    for name, cost in found.items():
        if name != "forwards":
            ratios = (dense[unit] / max(cost[unit], 1e-3) for unit in ("seconds", "gigabytes"))
            faster, smaller = (f"{ratio:.1f}" for ratio in ratios)
            rows.append((name, f"{cost['seconds']:.2f}", faster, f"{cost['gigabytes']:.2f}", smaller))
    share = f"Of 1000 ancestral steps over 128 tokens {found['forwards']:.1%} need the network."
    return markdown(rows) + "\n\n" + share


def reward_speed() -> str:
    """IterRef beside a direct transcription of its algorithm."""
    found = measured("reward_speed")
    rows = [("on 32 problems", "redraft", "transcription", "times less")]
    for unit in ("seconds", "rows"):
        each = (found[who][f"{unit} per accepted move"] for who in ("ours", "transcription"))
        rows.append((f"{unit} per accepted move", *(f"{value:.3g}" for value in each), f"{found['ratio'][unit]:.1f}"))
    return markdown(rows)


def pipeline_speed() -> str:
    """Eight candidates by a pipeline itself and by best-of-N."""
    found = measured("pipeline_speed")
    rows = [("redraft's time over that of", "wall", "processor")]
    words = {"batched": "the pipeline's own batched call, embeddings given", "one by one": "a call for each candidate"}
    for name, text in words.items():
        rows.append((text, *(f"{found[clock][f'redraft over {name}']:.2f}" for clock in ("wall", "processor"))))
    return markdown(rows)


def engine_speed() -> str:
    """What the experiments' engine costs."""
    found = measured("engine_speed")
    rows = [
        ("cells", "engine, seconds a cell", "status, seconds", "resume, seconds", "one table of all, seconds", "load")
    ]
    for cells, cost in found["cells"].items():
        rows.append(
            (cells, *(f"{cost[name]:.2g}" for name in ("engine", "status", "resume", "compact")), f"{cost['load']:.0f}")
        )
    ratio = found["workers"]["two_over_one"]
    return f"{markdown(rows)}\n\nTwo single-threaded workers finish {ratio:.2f} times the cells of one."


def faults() -> str:
    """Faults that were injected, and what came of them."""
    rows = [("`python bench/faults.py`", "fault", "injected", "what came of them")]
    for kind, done in measured("faults").items():
        for name, outcomes in done.items():
            came = ", ".join(f"{count} {what}" for what, count in outcomes.items() if what != "injected")
            rows.append((f"`{kind}`", name, str(outcomes["injected"]), came))
    return markdown(rows) if len(rows) > 1 else UNMEASURED


TABLES = (
    {
        "kinds": kinds,
        "curve": curve,
        "initial": initial,
        "chain": chain,
        "grid": grid,
        "vary": vary,
        "speed": speed,
        "masked_speed": masked_speed,
        "reward_ablation": reward_ablation,
        "reward_speed": reward_speed,
        "pipeline_speed": pipeline_speed,
        "engine_speed": engine_speed,
        "faults": faults,
    }
    | search_tables.TABLES
    | experiment_tables.TABLES
)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CURVES = ROOT / "docs" / "curves"


def filled(text: str) -> str:
    """`text` with every table between its marks made anew."""
    for name, table in TABLES.items():
        marks = f"<!-- table: {name} -->", f"<!-- end: {name} -->"
        if marks[0] in text:
            text = re.sub(f"{marks[0]}.*?{marks[1]}", f"{marks[0]}\n{table()}\n{marks[1]}", text, flags=re.DOTALL)
    return text


def main() -> None:
    """Fill and draw, or with `--check` fail if a page or a figure is not what the stored rows say."""
    files = {page: filled(page.read_text()) for page in PAGES}
    files |= {CURVES / name: drawn() for name, drawn in experiment_tables.FIGURES.items()}
    for path, text in files.items():
        if path.exists() and path.read_text() == text:
            continue
        if "--check" in sys.argv[1:]:
            sys.exit(f"{path.relative_to(ROOT)} is not what the stored rows say: run python bench/tables.py")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    names = {page: str(page.relative_to(ROOT)) for page in PAGES}
    wrong = [f"{names[page]}: {sentence}" for page in PAGES for sentence in lacking(names[page], files[page])]
    if wrong:
        sys.exit("\n".join(["The stored rows say what these pages do not (bench/claims.py):", *wrong]))


if __name__ == "__main__":
    main()
