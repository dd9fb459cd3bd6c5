"""Measure searches for noise on single digits at equal compute: `python bench/search.py GROUP ...`.

    python bench/search.py list
    python bench/search.py classifier oracle agreement plain settings

A cell is a method under a verifier, at 1 to 64 times the cost of one sample by Heun's method; methods that show drafts
as they go take one run for all of these. Means and 95 % intervals are over seeds, each with as many samples as `--n`
says, since scores of sets have no interval of their own. Rows go to bench/results; a cell that is stored is not run
again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from cells import Row, load, run
from torch import Tensor

import redraft
from redraft import BestOfN, DraftThenVerify, Generate, Halving, Parallel, Paths, ZeroOrder
from redraft.core.state import State
from redraft.core.streams import Streams
from redraft.core.trace import Trace
from redraft.core.verifier import trait
from redraft.report.statistics import mean_interval
from redraft.samplers import descend, sample
from redraft.tasks.class_digits import pictures
from redraft.tasks.judges import ROWS, features, load_judge
from redraft.verifiers.sets import FIDOracle, Statistics

STEPS = 10
SAMPLER = Parallel(STEPS, order=2)
BASE = 2 * STEPS - 1  # evaluations of a sample
MULTIPLES = (1, 2, 4, 8, 16, 32, 64)
VERIFIERS = {"classifier": "digit-classifier", "oracle": "digit-oracle", "agreement": "digit-agreement"}
SEEDS = (0, 1, 2, 3, 4)
OTHER_SEEDS = (100, 101, 102)  # settings are chosen on other problems than those reported
AT = (16,)  # and at this multiple
SCALE = 1.5  # of classifier-free guidance
CANDIDATES = 16  # whose previews are compared
AT_ONCE = 20  # problems that the oracle of the FID chooses samples for at a time
ROUGH = Parallel(3, order=2)
COSTS = ("nfe", "verifier_calls")


@dataclass(frozen=True)
class Search:
    """A method at several multiples of the base cost.

    Attributes:
        make: the method under a verifier at a multiple.
        least: the first multiple that it makes sense at.
        most: the last multiple that is asked about.
        anytime: samples of a problem that each draft after the first costs, of methods that show drafts as they go; 0
            of others, which take a run for each multiple.
    """

    make: Callable[[str, int], Any]
    least: int = 1
    most: int = MULTIPLES[-1]
    anytime: int = 0


def random_search() -> Search:
    """The best of independent samples, one more a draft."""
    return Search(lambda _, multiple: BestOfN(multiple, sampler=SAMPLER), anytime=1)


def zero_order(neighbours: int, cosine: float) -> Search:
    """From noise to the best of its neighbours, as many rounds as fit."""

    def make(_: str, multiple: int) -> ZeroOrder:
        return ZeroOrder((multiple - 1) // neighbours, neighbours, cosine, sampler=SAMPLER)

    return Search(make, anytime=neighbours)


def paths(number: int, level: float, forward: float, backward: float) -> Search:
    """As many noises a path as fit; of little compute one path, as the paper finds few to be better there."""

    def make(verifier: str, multiple: int) -> Any:
        kept = number if multiple >= 8 else 1
        return fitted(lambda width: Paths(kept, width, level, forward, backward, sampler=SAMPLER), verifier, multiple)

    return Search(make, least=4)


def halving(levels: tuple[float, ...], kept: float = 0.5) -> Search:
    """As many candidates as fit."""
    return Search(lambda *at: fitted(lambda n: Halving(n, levels, kept, SAMPLER), *at), least=2, most=32)


def drafts(share: int) -> Search:
    """Drafts at 5 evaluations, as many as fit; one in `share` goes on."""
    return Search(
        lambda *at: fitted(lambda n: DraftThenVerify(n, -(-n // share), ROUGH, SAMPLER), *at), least=2, most=32
    )


def more_steps(_: str, multiple: int) -> Generate:
    """One sample by more steps."""
    return Generate(Parallel((multiple * BASE + 1) // 2, order=2))


SEARCHES = {  # the best of their kind in the settings by the guide's own score, and a zero-order search that stays near
    "random": random_search(),
    "zero-order": zero_order(2, 0.5),
    "zero-order near": zero_order(4, 0.95),
    "paths": paths(1, 0.6, 0.2, 0.4),
    "halving": halving((0.8, 0.6, 0.4)),
    "drafts": drafts(16),
}
SETTINGS = {f"zero-order N={n} cosine={c}": zero_order(n, c) for n in (2, 4, 8) for c in (0.5, 0.8, 0.95)}
SETTINGS |= {
    f"paths N={n} {level} up {up} down {down}": paths(n, level, up, down)
    for n in (1, 2, 4)
    for level, up, down in ((0.2, 0.7, 0.8), (0.4, 0.3, 0.5), (0.6, 0.2, 0.4))
}
SETTINGS |= {
    f"halving at {' '.join(map(str, levels))} kept {kept}": halving(levels, kept)
    for levels in ((0.7, 0.5, 0.3), (0.8, 0.6, 0.4), (0.5, 0.2), (0.3,))
    for kept in (0.5, 0.25)
}
SETTINGS |= {f"drafts one in {share}": drafts(share) for share in (4, 8, 16)} | {"random, settings": SEARCHES["random"]}


@dataclass(frozen=True)
class Cell:
    """One method under one verifier."""

    verifier: str
    method: str
    n: int


def groups(n: int) -> dict[str, list[Cell]]:
    """Cells by the name of their group."""
    found = {verifier: [Cell(verifier, name, n) for name in SEARCHES] for verifier in VERIFIERS}
    found["plain"] = [Cell("none", "more steps", n), Cell("none", "guidance", n), Cell("fid", "random", n)]
    found["previews"] = [Cell(verifier, "previews", n) for verifier in VERIFIERS]
    found["settings"] = [Cell(verifier, name, n) for verifier in ("classifier", "agreement") for name in SETTINGS]
    return found


def measure(cell: Cell) -> list[Row]:
    """The rows of a cell: one for each metric at each multiple, `at`."""
    seeds = OTHER_SEEDS if cell.method in SETTINGS else SEEDS
    found = [measured(cell, seed) for seed in seeds]
    return [
        vars(cell) | {"at": at, "metric": metric} | over_seeds([one[at][metric] for one in found])
        for at, metrics in found[0].items()
        for metric in metrics
    ]


def over_seeds(values: list[float]) -> Row:
    """Mean and 95 % interval, bootstrapped; NaN of fewer seeds than that takes."""
    low, high = mean_interval(values)
    return {"mean": sum(values) / len(values), "low": low, "high": high}


def measured(cell: Cell, seed: int) -> dict[int, dict[str, float]]:
    """Metrics by multiple, with one seed."""
    if cell.method == "guidance":
        return {2: metrics(cell, seed, *once(cell, seed, Generate(SAMPLER), scale=SCALE))}
    if cell.method == "previews":
        return previewed(cell, seed)
    if cell.verifier == "fid":
        return {at: metrics(cell, seed, *chosen_for_fid(cell, seed, at)) for at in MULTIPLES if at <= 16}
    search = (SEARCHES | SETTINGS).get(cell.method, Search(more_steps, most=16))
    multiples = [at for at in (AT if cell.method in SETTINGS else MULTIPLES) if search.least <= at <= search.most]
    if not search.anytime:
        return {at: metrics(cell, seed, *once(cell, seed, search.make(cell.verifier, at))) for at in multiples}
    wanted = {at: (at - 1) // search.anytime for at in multiples}
    shown: dict[int, tuple[Tensor, dict[str, float]]] = {}

    def keep(samples: Tensor, trace: Trace) -> None:
        draft = int(trace["draft"][-1])
        if draft in wanted.values():
            shown[draft] = samples.clone(), {name: mean(trace.by_draft(name)[draft]) for name in COSTS}

    once(cell, seed, search.make(cell.verifier, max(multiples)), keep)
    return {at: metrics(cell, seed, *shown[draft]) for at, draft in wanted.items()}


def once(
    cell: Cell, seed: int, method: Any, on_draft: Any = None, scale: float | None = None
) -> tuple[Tensor, dict[str, float]]:
    """Samples of a run, under guidance if there is a scale, and what a problem cost."""
    task, model = load("digits")
    model = model if scale is None else redraft.guided(model, scale)
    verifier = guides().get(cell.verifier)
    given = task.problems(cell.n, seed)
    result = redraft.run(method, model, given, verifier=verifier, seed=seed, on_draft=on_draft, progress=False)
    return result.samples, {name: mean(getattr(result.ledger, name)) for name in COSTS}


def previewed(cell: Cell, seed: int) -> dict[int, dict[str, float]]:
    """How the scores of previews and of drafts rank the candidates of a problem, beside those of their samples.

    Returns:
        Spearman's correlation over 16 candidates, the mean over problems, by the preview's level in per cent; that of
        drafts at 0.
    """
    task, model = load("digits")
    given = task.problems(cell.n, seed)
    streams = Streams.root(seed, given.ids).split(CANDIDATES)
    many, verifier = given.state().repeat(CANDIDATES), guides()[cell.verifier]
    noisy = model.process.prior(many, many.free, streams.fold("prior"))

    def ranks(state: State) -> Tensor:
        scores = verifier(model.decode(state.x), given[state.problem]).view(-1, CANDIDATES)
        return scores.double().argsort(1).argsort(1).double() - (CANDIDATES - 1) / 2

    def alike(one: Tensor, other: Tensor) -> dict[str, float]:
        return {"rank correlation": mean((one * other).sum(1) / other.square().sum(1))}

    final = ranks(sample(SAMPLER, model, noisy, streams))
    found = {0: alike(ranks(sample(ROUGH, model, noisy, streams)), final)}
    for level in (0.9, 0.8, 0.7, 0.6, 0.5, 0.3):
        state = descend(SAMPLER, model, SAMPLER.init(model, noisy, streams), level, streams).state
        guess = model.process.guess(state, model.predict(state), streams)
        found[round(100 * level)] = alike(ranks(guess), final)
    return found


def chosen_for_fid(cell: Cell, seed: int, multiple: int) -> tuple[Tensor, dict[str, float]]:
    """Samples that each bring the set so far nearer to the reference: the paper's oracle of the FID, a ceiling.

    It is greedy, a few problems at a time, and begins from samples of other problems, which are left out at the end.
    """
    task, model = load("digits")
    judge = partial(features, load_judge("held-out"))
    first = redraft.run(Generate(SAMPLER), model, task.problems(100, seed, split="train"), seed=seed, progress=False)
    held, begun = Statistics.of(task.features(pictures("test"))), Statistics.of(task.features(first.samples))
    oracle, given = FIDOracle(judge, held, begun, ROWS), task.problems(cell.n, seed)
    method, found = BestOfN(multiple, multiple, SAMPLER), []
    for start in range(0, cell.n, AT_ONCE):
        part = given[start : start + AT_ONCE]
        found.append(redraft.run(method, model, part, verifier=oracle, seed=seed, progress=False).samples)
        oracle.add(found[-1])
    return torch.cat(found), {"nfe": multiple * BASE, "verifier_calls": multiple}


def metrics(cell: Cell, seed: int, samples: Tensor, cost: dict[str, float]) -> dict[str, float]:
    """What is said of samples: by each verifier, by the task of each, and of the set of them."""
    task, _ = load("digits")
    given = task.problems(cell.n, seed)
    scores = {f"score by {name}": mean(verifier(samples, given)) for name, verifier in guides().items()}
    judged = {name: mean(values) for name, values in task.evaluate(samples, given).items()}
    return cost | scores | judged | task.of_the_set(samples)


def mean(values: Tensor) -> float:
    """The mean of values (P,)."""
    return float(values.double().mean())


@cache
def guides() -> dict[str, Any]:
    """The verifiers by the names that cells use."""
    return {name: redraft.load_verifier(known, *load("digits")) for name, known in VERIFIERS.items()}


def own_rows(verifier: str) -> int:
    """Evaluations of the model that the verifier itself makes of a sample."""
    return int(trait(guides()[verifier], "calls_per_row")) - 1


def fitted(make: Callable[[int], Any], verifier: str, multiple: int) -> Any:
    """`make(n)` with the largest n whose cost is at most that of as many samples as the multiple, each verified."""
    few, many, most = 1, 8 * multiple, multiple * (BASE + own_rows(verifier))
    while few < many:
        middle = (few + many + 1) // 2
        few, many = (middle, many) if spent(make(middle), verifier) <= most else (few, middle - 1)
    return make(few)


def spent(method: Any, verifier: str) -> int:
    """Evaluations that a problem takes, the verifier's own among them."""
    task, model = load("digits")
    ledger = redraft.run(method, model, task.problems(1), verifier=guides()[verifier], progress=False).ledger
    own = own_rows(verifier)
    return int(ledger.nfe) + int(ledger.verifier_calls) * own // (own + 1)


def cost(cell: Cell) -> int:
    """About the most evaluations that a sample of a cell takes, over all seeds and multiples."""
    return BASE * (len(OTHER_SEEDS) * AT[0] if cell.method in SETTINGS else len(SEEDS) * MULTIPLES[-1])


def main() -> None:
    """Run the cells of the named groups that are not stored."""
    shown = ("score by classifier", "inception_score", "frechet_distance", "precision", "recall", "right")
    run("search", __doc__, groups, measure, cost, shown, 500)


if __name__ == "__main__":
    main()
