"""Tables of docs/search.md, from what bench/search.py stored; bench/tables.py fills them in."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any

from cells import markdown, stored

Rows = dict[tuple[str, str, int, str], dict[str, Any]]
VERIFIERS = ("classifier", "agreement", "oracle")
MULTIPLES = (1, 2, 4, 8, 16, 32, 64)
METHODS = ("random", "zero-order", "zero-order near", "paths", "halving", "drafts")
PERCENT = {"right", "precision", "recall"}
NAMES = {
    "more steps": "one sample, more steps",
    "guidance": "one sample, guidance 1.5",
    "zero-order": "zero-order, N = 2, cosine 0.5",
    "zero-order near": "zero-order, N = 4, cosine 0.95",
    "paths": "paths, N = 1, 0.6 up 0.2 down 0.4",
    "drafts": "draft, then verify, one in 16",
    "halving": "halving at 0.8, 0.6, 0.4",
}
PLACES = {"frechet_distance": 2, "inception_score": 2, "nfe": 0, "verifier_calls": 0}
PLACES |= {"score by classifier": 4, "score by oracle": 4, "log_probability": 4}


@cache
def rows() -> Rows:
    """What is stored, by verifier, method, multiple and metric."""
    return {(row["verifier"], row["method"], row["at"], row["metric"]): row for row in stored("search")}


def cell(row: dict[str, Any] | None) -> str:
    """A mean with half of its 95 % interval; shares in per cent."""
    if row is None:
        return ""
    scale, places = (100, 1) if row["metric"] in PERCENT else (1, PLACES.get(row["metric"], 3))
    half = (row["high"] - row["low"]) / 2 * scale
    return f"{row['mean'] * scale:.{places}f}" + (f" ± {half:.{places}f}" if half > 1e-9 else "")


def by_multiple(verifier: str, metric: str) -> str:
    """One metric under one verifier: methods down, multiples of the base cost across."""
    found = rows()
    multiples = sorted({at for v, m, at, _ in found if v == verifier and m in METHODS})
    wanted = [("none", "more steps"), ("none", "guidance"), *((verifier, method) for method in METHODS)]
    body = [
        (NAMES.get(method, method), *(cell(found.get((v, method, at, metric))) for at in multiples))
        for v, method in wanted
        if any((v, method, at, metric) in found for at in multiples)
    ]
    return markdown((metric.replace("_", " "), *(f"{at} x" for at in multiples)), body)


def under(verifier: str) -> str:
    """Scores of the set under one verifier, by compute."""
    metrics = (f"score by {verifier}", "inception_score", "frechet_distance", "recall")
    return "\n\n".join(by_multiple(verifier, metric) for metric in dict.fromkeys(metrics))


def beside() -> str:
    """All metrics of one sample, and at 8 and 32 times its cost."""
    found = rows()
    wanted = {
        "right": "read right, %",
        "log_probability": "held-out log-probability",
        "score by classifier": "classifier's",
        "score by agreement": "agreement",
        "inception_score": "IS",
        "frechet_distance": "FD",
        "precision": "precision, %",
        "recall": "recall, %",
        "nearest": "nearest training picture",
        "verifier_calls": "verifier calls",
    }
    body = []
    plain = [(1, "none", "more steps"), (2, "none", "guidance")]
    cells = [*plain, *((at, v, m) for at in (8, 32) for v in VERIFIERS for m in METHODS)]
    for at, verifier, method in cells:
        if (verifier, method, at, "nfe") in found:
            name = "one sample" if at == 1 else NAMES.get(method, method)
            body.append((f"{at} x", verifier, name, *(cell(found.get((verifier, method, at, w))) for w in wanted)))
    return markdown(("cost", "verifier", "method", *wanted.values()), body)


def reached(points: list[tuple[float, float]], score: float) -> float:
    """The cost at which a curve (cost, score) reaches `score`, linear in the logarithm of the cost; NaN if nowhere."""
    before: tuple[float, float] | None = None
    for cost, value in points:
        if value >= score:
            if before is None:
                return cost
            share = (score - before[1]) / (value - before[1])
            return math.exp(math.log(before[0]) * (1 - share) + math.log(cost) * share)
        before = (cost, value)
    return math.nan


def curve(found: Rows, verifier: str, method: str, metric: str) -> list[tuple[float, float]]:
    """Evaluations, the verifier's own among them, and means, by rising cost."""
    at = sorted(a for v, m, a, name in found if (v, m, name) == (verifier, method, metric))
    own = {"agreement": 0.5}.get(verifier, 0.0)  # of its calls, those that are the model's
    return [
        (
            found[verifier, method, a, "nfe"]["mean"] + own * found[verifier, method, a, "verifier_calls"]["mean"],
            found[verifier, method, a, metric]["mean"],
        )
        for a in at
    ]


def share(verifier: str, method: str, multiple: int) -> float:
    """The share of random search's cost at a multiple for which a method has its mean score by the guide, or NaN."""
    found, name = rows(), f"score by {verifier}"
    cost, score = curve(found, verifier, "random", name)[MULTIPLES.index(multiple)]
    return reached(curve(found, verifier, method, name), score) / cost


def largest(verifier: str) -> dict[str, int]:
    """The largest multiple that each method was run with."""
    runs = [(method, at) for v, method, at, metric in rows() if (v, metric) == (verifier, "nfe") and method in METHODS]
    return dict(sorted(runs))


def share_of_random() -> str:
    """At what share of random search's cost the others reach its mean score by the verifier that guides."""
    multiples, body = MULTIPLES[2:], []
    for verifier in VERIFIERS:
        for method in METHODS[1:]:
            shares = [share(verifier, method, at) for at in multiples]
            body.append((verifier, NAMES[method], *("–" if math.isnan(s) else f"{s:.2f}" for s in shares)))
    return markdown(("verifier", "method", *(f"random at {at} x" for at in multiples)), body)


def previews() -> str:
    """How well previews and drafts rank candidates."""
    found = rows()
    levels = sorted({at for _, m, at, _ in found if m == "previews" and at}, reverse=True)
    body = [
        (verifier, *(cell(found.get((verifier, "previews", at, "rank correlation"))) for at in (*levels, 0)))
        for verifier in VERIFIERS
        if (verifier, "previews", 0, "rank correlation") in found
    ]
    return markdown(("verifier", *(f"preview at {level / 100:g}" for level in levels), "draft of 5 NFE"), body)


def settings() -> str:
    """What was tried at 16 times the base cost, on other problems."""
    found = rows()
    body = []
    for method in dict.fromkeys(m for v, m, _, _ in found if v == "classifier" and m not in (*METHODS, "previews")):
        cells = [
            cell(found.get((verifier, method, 16, metric)))
            for verifier in ("classifier", "agreement")
            for metric in (f"score by {verifier}", "inception_score", "frechet_distance", "recall")
        ]
        body.append((method, *cells))
    head = (
        "method",
        *(f"{metric}, {v}" for v in ("classifier", "agreement") for metric in ("score", "IS", "FD", "recall")),
    )
    return markdown(head, sorted(body))


TABLES: dict[str, Callable[[], str]] = {
    "search_classifier": partial(under, "classifier"),
    "search_oracle": partial(under, "oracle"),
    "search_agreement": partial(under, "agreement"),
    "search_fid": lambda: by_multiple("fid", "frechet_distance") + "\n\n" + by_multiple("fid", "inception_score"),
    "search_beside": beside,
    "search_share": share_of_random,
    "search_previews": previews,
    "search_settings": settings,
}
