"""Lines of Python: write single lines of source that parse, or fill in the middle of one."""

from __future__ import annotations

import ast
import sysconfig
import warnings
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from redraft.core.content import content
from redraft.core.errors import RedraftError, require, unknown
from redraft.core.fields import Among, checked, checks
from redraft.core.task import HowMany, Problems, ProblemSeed, Split, check_samples, origin
from redraft.models.characters import LENGTH, MASK, PAD, VOCABULARY, decode, encode
from redraft.models.weights import digest_at

SHORTEST = 8
SPLITS = {"train": 0, "test": 1}
KINDS = {"unconditional": 0, "infilling": 1, "length": 2**22}  # in the ids of problems
SKIPPED = {
    "encodings",
    "test",
    "tests",
    "idle_test",
    "site-packages",
    "lib2to3",
    "__pycache__",
    "pydoc_data",
}  # tests, and tables of characters


@cache
def lines(split: str) -> tuple[str, ...]:
    """Distinct lines of the running interpreter's standard library that parse on their own, sorted.

    Lines are stripped, of 8 to 64 printable ASCII characters. A module is either for training or, one in ten by the
    hash of its path, for testing; a line that a training module has is no test line.

    Args:
        split: 'train' or 'test'.

    Raises:
        RedraftError: unknown split, or the interpreter came without the source of its library.
    """
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    kept = tuple(sorted(_collect(split, _modules())))
    if not kept:
        raise RedraftError(f"no source of the standard library in {sysconfig.get_paths()['stdlib']}")
    return kept


def _collect(split: str, modules: Iterable[tuple[str, str]]) -> set[str]:
    """The lines of one split of modules, given by path and source."""
    found: dict[str, set[str]] = {name: set() for name in SPLITS}
    for name, source in modules:
        found[_split_of(name)].update(map(str.strip, source.splitlines()))
    chosen = found["train"] if split == "train" else found["test"] - found["train"]
    return {line for line in chosen if _sound(line)}


def _modules() -> Iterator[tuple[str, str]]:
    """Path within the standard library, and source, of each of its modules but tests."""
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        inside = path.relative_to(root)
        if not SKIPPED & set(inside.parts) and not inside.parts[0].startswith("config-"):
            yield inside.as_posix(), path.read_text(encoding="utf-8", errors="ignore")


def _split_of(module: str) -> str:
    return "test" if zlib.crc32(module.encode()) % 10 == 0 else "train"


def _sound(line: str) -> bool:
    ascii_only = SHORTEST <= len(line) <= LENGTH and line.isascii() and line.isprintable()
    return ascii_only and not line.startswith("#") and parses(line)


def parses(text: str) -> bool:
    """Whether `text` alone is Python of at least one statement."""
    try:
        return bool(_tree(text).body)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False


def _tree(text: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(text)


LINE_KINDS = ("assignment", "call", "return", "raise", "text", "other")


def kind_of(text: str) -> str | None:
    """Which of `LINE_KINDS` the first statement of `text` is, None if it does not parse; 'text' is a bare constant."""
    if not parses(text):
        return None
    first = _tree(text).body[0]
    value = first.value if isinstance(first, ast.Expr) else first
    kinds = {
        ast.Assign: "assignment",
        ast.AugAssign: "assignment",
        ast.AnnAssign: "assignment",
        ast.Call: "call",
        ast.Return: "return",
        ast.Raise: "raise",
        ast.Constant: "text",
    }
    return kinds.get(type(value), "other")


@dataclass(frozen=True)
class Python:
    """Single lines (64,) of Python source as characters, in the manner of the standard library.

    Attributes:
        reference: folder of the autoregressive reference that judges likelihood; the one that ships if not given.
        device: of the reference; a GPU if there is one when not given.
        line_kind: one of `LINE_KINDS`; adds the metric `of_kind`, whether a line is of that kind by its syntax tree.

    Raises:
        RedraftError: unknown kind of line; the nearest is suggested.
    """

    reference: str | None = None
    device: str | None = None
    line_kind: Annotated[str, Among(LINE_KINDS, "kind of line")] | None = None
    name = "python"

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)

    @property
    def mark(self) -> str:
        """Tells the reference apart by its files, and the kind of line."""
        return content(digest_at(self.reference), self.line_kind)

    @checks
    def problems(
        self,
        n: HowMany,
        seed: ProblemSeed = 0,
        split: Split = "test",
        kind: Annotated[str, Among(KINDS)] = "unconditional",
    ) -> Problems:
        """`n` problems; number i follows from (seed, split, kind, i) alone.

        Args:
            n: how many.
            seed: of the lines and of the spans.
            split: 'train' or 'test', whose modules have no line in common.
            kind: 'unconditional', with nothing given; 'infilling', a line of which one span of 20 to 60 % of its
                characters is to be found again, all else given; or 'length', where a line's last character is given
                and the padding after it, so that it cannot come out shorter.
        """
        ids = ((origin(SPLITS[split], seed) * 2 + KINDS[kind]) << 24) + torch.arange(n)
        if kind == "unconditional":
            x, frozen = torch.zeros(n, LENGTH, dtype=torch.int64), torch.zeros(n, LENGTH, dtype=torch.bool)
        else:
            texts, spans = zip(*(_span(seed, split, number) for number in range(n)), strict=True)
            x, frozen = encode(list(texts)), torch.ones(n, LENGTH, dtype=torch.bool)
            for row, (start, end) in enumerate(spans):
                frozen[row, start:end] = False
            if kind == "length":
                frozen = torch.arange(LENGTH) >= (x != PAD).sum(1, keepdim=True) - 1
        return Problems(ids, x, frozen, facts={"original": x, "infilling": torch.full((n,), kind == "infilling")})

    def clean(self, n: int, seed: int = 0, split: str = "train") -> Tensor:
        """Ids (n, 64) of `n` different lines of a split, chosen by the seed; of all lines if there are fewer."""
        texts = lines(split)
        chosen = np.random.default_rng([seed, SPLITS[split]]).permutation(len(texts))[:n]
        return encode([texts[i] for i in chosen])

    def evaluate(self, samples: Tensor, problems: Problems) -> dict[str, Tensor]:
        """Metrics (P,) of samples (P, 64).

        Returns:
            parses: the text is Python, and nothing comes after its first PAD; nll: nats a character under the
            autoregressive reference, the PAD that ends the text counted, NaN where there is no text; repetition: share
            of 4-grams of characters that the text had before; length: characters; exact: the line is the one that was
            broken (NaN unless infilling).

        Raises:
            RedraftError: samples that are no lines for these problems.
        """
        check_samples(samples, problems, VOCABULARY, ("original", "infilling"))
        samples = samples.cpu()
        texts = decode(samples)
        exact = (samples == problems.facts["original"]).all(1).double()
        wanted = [kind_of(text) == self.line_kind for text in texts] if self.line_kind else None
        return {
            "parses": self.parses(samples),
            "nll": self.nll(samples),
            "repetition": torch.tensor([_repetition(text) for text in texts], dtype=torch.float64),
            "length": torch.tensor([len(text) for text in texts]),
            "exact": torch.where(problems.facts["infilling"], exact, torch.nan),
        } | ({} if wanted is None else {"of_kind": torch.tensor(wanted)})

    def evaluate_set(self, samples: Tensor, problems: Problems) -> dict[str, float]:
        """The `diversity` of samples (P, 64); unless infilling also their `mauve` against 1,000 held-out lines.

        Raises:
            RedraftError: as for `evaluate`.
        """
        check_samples(samples, problems, VOCABULARY, ("infilling",))
        if problems.facts["infilling"].any():
            return diversity(samples)
        return diversity(samples) | {"mauve-like": frontier_area(self.features(samples), _held_out(self))}

    def parses(self, samples: Tensor) -> Tensor:
        """Whether (P,) each sample's text is Python, with nothing after its first PAD."""
        samples = samples.cpu()
        return torch.tensor([parses(text) for text in decode(samples)], dtype=torch.bool) & _closed(samples)

    def nll(self, samples: Tensor) -> Tensor:
        """Nats a character (P,) of each sample's text and the PAD that ends it, under the reference."""
        from redraft.models.reference import load_reference

        return load_reference(self.reference, self.device).nll(samples)

    def features(self, samples: Tensor) -> Tensor:
        """The reference's features (P, D), averaged over each text and the PAD that ends it."""
        from redraft.models.reference import load_reference

        return load_reference(self.reference, self.device).features(samples)

    def mauve(self, samples: Tensor, reference: Tensor, clusters: int | None = None) -> float:
        """The MAUVE-like score in [0, 1] of samples (P, 64) against lines (N, 64); see `frontier_area`.

        The features are this library's autoregressive reference's, not GPT-2's, so the number is no published MAUVE.
        """
        return frontier_area(self.features(samples), self.features(reference), clusters)


@cache
def _held_out(task: Python) -> Tensor:
    """Features of 1,000 held-out lines."""
    return task.features(task.clean(1000, split="test"))


def diversity(samples: Tensor) -> dict[str, float]:
    """How various a set of samples (P, 64) is.

    Returns:
        distinct_1 to distinct_4: different n-grams of characters as a share of all; entropy: of a text's characters,
        nats, averaged over the texts; unique: different texts as a share of all.
    """
    texts = decode(samples.cpu())
    ratios = {}
    for n in range(1, 5):
        grams = [gram for text in texts for gram in _grams(text, n)]
        ratios[f"distinct_{n}"] = len(set(grams)) / max(1, len(grams))
    entropy = float(np.mean([_entropy(text) for text in texts]))
    return ratios | {"entropy": entropy, "unique": len(set(texts)) / len(texts)}


def frontier_area(samples: Tensor, reference: Tensor, clusters: int | None = None, scale: float = 5.0) -> float:
    """The area under the divergence frontier of two sets of features (P, D) and (N, D), in [0, 1]; 1 for equal sets.

    Pillutla et al., "MAUVE: measuring the gap between neural text and human text using divergence frontiers", 2021:
    both sets are quantised by one k-means, with histograms p and q; for mixtures r = a p + (1 - a) q the frontier is
    the curve of exp(-c KL(q | r)) and exp(-c KL(p | r)). As there, features are normalised and reduced to the principal
    components that hold nine tenths of the variance.

    Args:
        samples: features of the samples.
        reference: features of real data.
        clusters: of k-means; a tenth of the smaller set if not given, 2 at least.
        scale: c.
    """
    both = torch.cat([samples, reference]).double().cpu().numpy()
    clusters = clusters or max(2, min(len(samples), len(reference)) // 10)
    labels = _quantised(both, clusters)
    p, q = (np.bincount(part, minlength=clusters) / len(part) for part in np.split(labels, [len(samples)]))
    share = np.linspace(1e-6, 1 - 1e-6, 101)[:, None]
    mixture = share * p + (1 - share) * q
    x = np.concatenate([[1.0], np.exp(-scale * _divergence(q, mixture)), [0.0]])
    y = np.concatenate([[0.0], np.exp(-scale * _divergence(p, mixture)), [1.0]])
    order = np.lexsort((-y, x))
    x, y = x[order], y[order]
    return float((np.diff(x) * (y[1:] + y[:-1]) / 2).sum())


def _quantised(features: np.ndarray[Any, Any], clusters: int) -> np.ndarray[Any, Any]:
    """Cluster (N,) of each row of features (N, D)."""
    cluster = require("sklearn.cluster", "sudoku")
    rows = features / np.linalg.norm(features, axis=1, keepdims=True).clip(1e-12)
    rows = rows - rows.mean(0)
    _, spread, axes = np.linalg.svd(rows, full_matrices=False)
    held = (spread**2).cumsum() / max(1e-12, (spread**2).sum())
    rows = rows @ axes[: int(np.searchsorted(held, 0.9)) + 1].T
    labels: np.ndarray[Any, Any] = cluster.KMeans(clusters, n_init=3, random_state=0).fit(rows).labels_
    return labels


def _divergence(p: np.ndarray[Any, Any], mixtures: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """KL(p | r) in nats for each mixture r (M, K)."""
    here = p > 0
    total: np.ndarray[Any, Any] = (p[here] * np.log(p[here] / mixtures[:, here])).sum(1)
    return total


def _span(seed: int, split: str, number: int) -> tuple[str, tuple[int, int]]:
    """A line, and where the span to find again starts and ends."""
    rng = np.random.default_rng([seed, SPLITS[split], KINDS["infilling"], number])
    chosen = lines(split)
    text = chosen[rng.integers(len(chosen))]
    size = max(1, round(len(text) * rng.uniform(0.2, 0.6)))
    start = int(rng.integers(len(text) - size + 1))
    return text, (start, start + size)


def _closed(samples: Tensor) -> Tensor:
    """Rows (P,) where only PADs follow the first PAD, and there is no mask."""
    text = samples != PAD
    return ~(text[:, 1:] & ~text[:, :-1]).any(1) & (samples != MASK).all(1)


def _grams(text: str, n: int) -> list[str]:
    return [text[i : i + n] for i in range(len(text) - n + 1)]


def _repetition(text: str) -> float:
    grams = _grams(text, 4)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def _entropy(text: str) -> float:
    share = np.array(list(Counter(text).values())) / max(1, len(text))
    return float(-(share * np.log(share)).sum())
