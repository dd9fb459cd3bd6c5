"""The sentences of README.md and docs that give numbers, each made of the rows that its numbers come of.

`python bench/tables.py --check` fails where a page does not hold a sentence as the kept rows make it; it prints the
sentence, and whoever wrote the page reads what is around it again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq
import search_tables
from cells import stored
from experiment_tables import comparison
from measured import RESULTS

from redraft.bench.curves import Curve, Floats

Sentences = Iterator[str]
END = np.inf  # the budget of a method that runs to its end
PAPER = "IPR, the paper's"
TWO = "g-star+, two blocks"


@dataclass(frozen=True)
class Of:
    """The kept rows of an experiment; shares are its first metric in per cent."""

    name: str

    def mean(self, method: str, metric: str, budget: float) -> float:
        """A metric of a method at its last draft within a budget."""
        found = comparison(self.name)
        return float(np.nanmean(found.values(self._curve(method), "nfe", np.array([budget]), metric)))

    def percent(self, method: str, budget: float) -> float:
        """A method's share."""
        return 100 * self.mean(method, self._metric, budget)

    def share(self, *methods: str, at: float) -> str:
        """The shares of methods within a budget: "12, 34 and 56"."""
        return listed([rounded(self.percent(method, at)) for method in methods])

    def rise(self, method: str, *budgets: float) -> str:
        """The shares of a method within budgets."""
        return listed([rounded(self.percent(method, budget)) for budget in budgets])

    def span(self, *methods: str, at: float) -> str:
        """The least and the most share of methods."""
        return span([self.percent(method, at) for method in methods])

    def gain(self, method: str, base: str, at: float) -> str:
        """What a share is above another method's at its best within the budget, in percentage points, paired."""
        middle, low, high = (rounded(100 * value) for value in self._gain(method, base, at))
        return f"{middle} ({low} to {high})"

    def more(self, method: str, base: str, at: float) -> str:
        """`gain` of a metric that is no share, to two digits."""
        return "{:.2f} ({:.2f} to {:.2f})".format(*self._gain(method, base, at))

    def values(self, metric: str, *methods: str, at: float, digits: int = 2) -> str:
        """A metric of methods within a budget."""
        return listed([f"{self.mean(method, metric, at):.{digits}f}" for method in methods])

    def sets(self, metric: str, *methods: str, at: float) -> str:
        """A metric of the sets of samples of methods within a budget."""
        rows = pq.read_table(RESULTS / self.name / "sets.parquet").to_pylist()
        found = {(row["method"], row["metric"], row["budget"]): row["value"] for row in rows}
        return listed([f"{found[method, metric, at]:.2f}" for method in methods])

    def times(self, method: str, at: float, base: str = "best-of-n") -> float:
        """How many times a budget another method needs for what a method has within it; infinite if never enough."""
        curve, goal = self._curve(base), self.mean(method, self._metric, at)
        budgets: Floats = np.arange(1.0, float(curve.columns["nfe"].max()) + 1)
        values = comparison(self.name).values(curve, "nfe", budgets, self._metric)
        enough = np.nan_to_num(values.mean(0), nan=-np.inf) >= goal
        return float(budgets[enough.argmax()]) / at if enough.any() else np.inf

    def _gain(self, method: str, base: str, at: float) -> tuple[float, ...]:
        found, budget = comparison(self.name), np.array([at])
        until = np.array([b for b in found.experiment.budgets if b < at] + [at], dtype=float)
        theirs = found.best(self._curve(base), "nfe", until, self._metric)[:, -1:]
        gain = found.estimate(found.values(self._curve(method), "nfe", budget, self._metric) - theirs)
        return tuple(float(value[0]) for value in (gain.mean, gain.low, gain.high))

    @property
    def _metric(self) -> str:
        return next(iter(comparison(self.name).experiment.metrics))

    def _curve(self, method: str) -> Curve:
        return next(curve for curve in comparison(self.name).curves if curve.name == method)


def rounded(value: float) -> str:
    """A number as prose has it: whole, or with its half."""
    half = round(value * 2, 9) % 2 == 1
    return f"{value:.1f}" if half else f"{round(value, 9):.0f}".replace("-0", "0")


def span(values: list[float]) -> str:
    """The least and the most of the values."""
    return f"{rounded(min(values))} to {rounded(max(values))}"


def listed(words: list[str]) -> str:
    """Words with commas, and "and" before the last."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def readme() -> Sentences:
    """README.md: what to reach for."""
    of = Of("ipr-sudoku")
    yield f"{of.share('IPR, chosen', at=600)} % of 200 handwritten boards are valid at 600 evaluations with"
    yield f"{of.gain('IPR, chosen', 'one draft', at=600)} points above the best single draft within them"
    yield f"{of.gain(PAPER, 'one draft', at=2200)} with the paper's settings at 2,200"
    of = Of("samplers-sudoku")
    found = of.span("llada", "threshold", "p2", "token-critic", at=128)
    yield f"{found} % of hard puzzles solved at 128, ancestral sampling {of.share('ancestral', at=128)} %"
    of = Of("samplers-python")
    yield f"{of.share('maskgit', at=32)} % of whole lines parse at 32, ancestral sampling {of.rise('ancestral', 32)} %"
    many = of.share("remdm-conf", "star", at=256)
    yield f"{many} % of whole lines parse at 256, ancestral sampling {of.share('ancestral', at=256)} %"
    of = Of("gstar-python-main")
    yield f"{of.share(f'{TWO}, on 0.5', at=128)} % of lines of a given length parse at 128"
    yield f"{of.share('remdm-conf', at=128)} % with the best ReMDM, {of.share('star+', at=128)} % with masks at random"
    of = Of("iterref-sudoku")
    needs = [of.times("iterref", budget) for budget in (64, 128, 256, 512)]
    yield f"best-of-N needs {min(needs):.1f} to {max(needs):.1f} times the evaluations, from 64 to 512"
    yield f"with blame {of.times('ipr with blame', 64):.1f} times at 64, less later"
    of = Of("iterref-python")
    needs = [of.times(method, budget) for method in ("ipr", "iterref, at the end") for budget in (64, 128, 256)]
    yield f"best-of-N needs {min(needs):.1f} to {max(needs):.1f} times the evaluations, from 64 to 256"
    gains = [of.more(method, "best-of-n", 256) for method in ("beam", "ipr")]
    yield f"{gains[0]} nats a character ahead of best-of-N at 256, where `IPR` is {gains[1]}"


def sudoku() -> Sentences:
    """docs/sudoku.md."""
    of = Of("ipr-sudoku")
    yield f"it has {of.share('one draft, cell by cell', at=END)} %, where IPR ends at {of.share(PAPER, at=END)} %"


def ipr_sudoku() -> Sentences:
    """docs/experiments.md, ipr-sudoku."""
    of, draft, chosen = Of("ipr-sudoku"), "one draft", "IPR, chosen"
    drafts = [of.percent(draft, budget) for budget in (200, 300, 400, 600, 800, 1000, 1500, 2200)]
    yield f"has {span(drafts)} % at any budget from 200 on"
    yield f"{of.rise('one draft, cell by cell', 405, 810, END)} % with 5, 10 and 30 steps a cell"
    yield f"{of.rise(PAPER, 600, 1000, 2200)} % at 600, 1,000 and 2,200 with the paper's settings"
    yield f"{of.share(PAPER, at=END)} % after the last of its iterations"
    yield f"{of.rise(chosen, 400, 600)} % at 400 and 600 with those of `IPR.quick()`"
    yield f"{of.rise('IPR, a tenth at a time', 600, 1000)} % at 600 and 1,000"
    yield f"gain {of.gain(PAPER, draft, 600)} points at 600, {of.gain(PAPER, draft, 1000)} at 1,000"
    yield f"and {of.gain(PAPER, draft, 2200)} at 2,200, those of `IPR.quick()` {of.gain(chosen, draft, 400)} at 400"
    yield f"and {of.gain(chosen, draft, 600)} at 600"
    yield f"{of.gain(chosen, PAPER, 600)} points above the paper's settings at 600"
    yield f"{of.gain(chosen, PAPER, 2200)} at 2,200"


def samplers_sudoku() -> Sentences:
    """docs/experiments.md, samplers-sudoku."""
    of = Of("samplers-sudoku")
    yield f"Star+ has most at 128 evaluations, {of.rise('star+', 128)} %, and the corrector at 256"
    yield f"{of.rise('corrector', 256)} %; the others"
    blind = ("remdm-cap", "remdm-rescale", "remdm-loop", "forward-backward", "star", "star-loop")
    at_128, at_256 = (of.span(*blind, *more, at=at) for at, more in ((128, ("corrector",)), (256, ("star+",))))
    yield f"the others {at_128} % and {at_256} %, ancestral sampling {of.rise('ancestral', 256)} %"
    yield f"has {of.rise('remdm-conf', 128, 256)} %, PRISM's critic {of.rise('prism', 128, 256)} %"
    yield f"self-planning has {of.rise('p2', 64, 128)} % at 64 and 128"
    yield f"{of.rise('token-critic', 64, 128)} %. G-Star+"
    yield f"has {of.rise('g-star+', 128)} % at 128 and {of.rise('g-star+', 256)} % at 256"
    ahead = [of.gain("g-star+", "remdm-conf", at) for at in (128, 256)]
    yield f"{listed(ahead)} points above the best ReMDM"
    surest = [f"{of.rise(method, 128)} %" for method in ("llada", "threshold", "entropy")]
    yield f"(LLaDA) {surest[0]}, all above a threshold {surest[1]}, least entropy {surest[2]}, all at 128"
    yield f"the threshold has {of.rise('threshold', 64)} % at 64"


def samplers_python() -> Sentences:
    """docs/experiments.md, samplers-python."""
    of, plain, best = Of("samplers-python"), "ancestral", ("remdm-conf", "star")
    yield f"goes from {of.share(plain, at=16)} % at 16 evaluations to {of.share(plain, at=64)} % at 64, where it ends"
    gains = listed([of.gain(method, plain, 256) for method in best])
    yield f"to {of.share(*best, at=256)} % at 256, which is {gains} points above it"
    lengths = of.values("length", *best, at=256, digits=0)
    yield f"shorter lines ({lengths} characters against {of.values('length', plain, at=256, digits=0)})"
    real = [of.sets("mauve-like", *methods, at=256) for methods in (best, (plain,))]
    yield f"(MAUVE-like {real[0]} against {real[1]}"
    yield f"distinct-4 {of.sets('distinct_4', best[0], at=256)} against {of.sets('distinct_4', plain, at=256)})"
    others = ("star+", "corrector", "star-loop", "remdm-loop", "remdm-cap", "remdm-rescale", "ipr", "forward-backward")
    above = [of.percent(method, 256) - of.percent(plain, 256) for method in others]
    like = [float(of.sets("mauve-like", method, at=256)) for method in others]
    yield f"gain {span(above)} points at 256, no interval reaching 0"
    yield f"MAUVE-like score of {min(like):.2f} to {max(like):.2f}"
    yield f"{of.share('maskgit', at=16)} % at 16, where Halton's order has {of.share('halton', at=16)} %"
    yield f"It has {of.share('maskgit', at=32)} % from 32 on"
    ahead = [of.gain(method, "maskgit", 256) for method in best]
    yield f"ReMDM-conf by {ahead[0]} points at 256, Star by {ahead[1]}"
    yield f"guidance has {of.rise('g-star+', 128, 256)} % where the same walk without it has {of.rise('star+', 128)} %"
    yield f"with {of.share('g-star-loop', 'prism', at=256)} % at 256, go the same way"


def gstar_python() -> Sentences:
    """docs/experiments.md, gstar-python: 100 lines."""
    of, loops = Of("gstar-python"), ("remdm-loop", "star-loop")
    cost = [of.values("nll", method, at=128) for method in (TWO, "g-star-loop", "g-star+", *loops)]
    yield f"a character costs {cost[0]} nats under the reference with G-Star+ and two blocks"
    yield f"{cost[1]} with G-Star-loop and {cost[2]} with G-Star+ and the linear critic"
    yield f"against {cost[3]} of the best ReMDM"
    yield f"and {cost[4]} of Star-loop"
    yield f"at 256 {of.values('nll', TWO, at=256)} against {of.values('nll', *loops, at=256)}"
    yield f"{of.share(TWO, at=128)} % with two blocks, {of.share('remdm-cap', at=128)} % with ReMDM-cap"
    yield f"and {of.share('star+', at=128)} % with Star+"
    yield f"ancestral sampling ({of.share('ancestral', at=128)} %)"


def gstar_python_main() -> Sentences:
    """docs/experiments.md, gstar-python: the thousand lines of `main`."""
    of, early = Of("gstar-python-main"), f"{TWO}, on 0.5"
    yield f"{of.share(TWO, at=128)} %, and {of.share(early, at=128)} % where its window begins at 0.5"
    yield f"against {of.share('remdm-conf', at=128)} % of the best ReMDM (conf), {of.share('star+', at=128)} % of Star+"
    yield f"and {of.share('ancestral', at=128)} % of ancestral sampling"
    yield f"{of.gain(TWO, 'remdm-conf', 128)} and {of.gain(early, 'remdm-conf', 128)} points above the best ReMDM"
    yield f"With the linear critic it does not: {of.share('g-star+', at=128)} %, as at random"
    four, real = ([of.sets(metric, method, at=128) for method in (TWO, early, "remdm-conf", "star+")]
                  for metric in ("distinct_4", "mauve-like"))  # fmt: skip
    yield f"distinct-4 is {listed(four[:2])} against {four[2]} of ReMDM-conf and {four[3]} of Star+"
    yield f"the MAUVE-like score {listed(real[:2])} against {listed(real[2:])}"


def gstar_variants() -> Sentences:
    """docs/experiments.md, gstar-ablation and the sizes whole and infilling of gstar-python."""
    of, windows = Of("gstar-ablation"), (TWO, f"{TWO}, on 0.5", f"{TWO}, on 1.0")
    yield f"With two blocks of its own {of.share(TWO, at=128)} % of the lines parse"
    yield f"{of.gain(TWO, 'g-star+, on 0.3', 128)} points more than with one linear layer"
    yield f"{of.share(*windows, at=128)} % from 0.3, 0.5 and 1.0 on"
    yield f"and {of.values('nll', *windows, at=128)} nats a character"
    yield f"has {of.share('token-critic', at=128)} % and {of.share('token-critic, two blocks', at=128)} %"
    of = Of("gstar-python-whole")
    yield f"at 128 evaluations G-Star+ has {of.share('g-star+', at=128)} %, Star+ {of.share('star+', at=128)} %"
    yield f"the critic under ReMDM's budget {of.share('critic under remdm-cap', at=128)} %"
    of = Of("gstar-python-infilling")
    every = [curve.name for curve in comparison(of.name).curves]
    yield f"all samplers parse {of.span(*every, at=64)} % at 64 evaluations"


def iterref_sudoku() -> Sentences:
    """docs/experiments.md, iterref-sudoku."""
    of, budgets = Of("iterref-sudoku"), (64, 128, 256, 512, 1024)
    ours, theirs = (
        listed([rounded(100 * of.mean(method, "valid", budget)) for budget in budgets[1:]])
        for method in ("iterref", "best-of-n")
    )
    yield f"IterRef makes {ours} % of the boards valid at 128, 256, 512 and 1,024 evaluations, best-of-N {theirs} %"
    needs = listed([f"{of.times('iterref', budget):.1f}" for budget in budgets[:4]])
    yield f"best-of-N needs {needs} times the evaluations for what IterRef has at 64, 128, 256 and 512"


def iterref_python() -> Sentences:
    """docs/experiments.md, iterref-python under its three rewards."""
    of, plain, late = Of("iterref-python"), "best-of-n", (256, 512, 1024)
    needs = [of.times(method, budget) for method in ("ipr", "iterref, at the end") for budget in (64, 128, 256)]
    yield f"best-of-N needs {min(needs):.1f} to {max(needs):.1f} times the evaluations for what they have"
    yield f"by {of.more('iterref', plain, 128)} nats at 128, {of.more('iterref', plain, 256)} at 256"
    yield f"and {of.more('iterref', plain, 1024)} at 1,024"
    ours, theirs = (listed([of.values("score", method, at=at) for at in late]) for method in ("beam", plain))
    yield f"Beam search is first from 256 evaluations on ({ours} against {theirs} at 256, 512 and 1,024)"
    yield f"by {of.more('fk', plain, 128)} at 128, SVDD by {of.more('svdd', plain, 1024)} at 1,024"
    parses = [100 * of.mean(m, "parses", 1024) for m in ("beam", "fk", "iterref", "iterref, at the end", "ipr")]
    yield f"({span(parses)} % at 1,024, best-of-N {rounded(100 * of.mean(plain, 'parses', 1024))} %)"
    yield f"to {of.sets('distinct_4', 'beam', at=1024)} under beam search"
    yield f"the least by the MAUVE-like score ({of.sets('mauve-like', 'iterref, at the end', at=1024)})"
    of = Of("iterref-python-parses")
    yield f"{of.rise(plain, 128, 256)} % at 128 and 256 evaluations and all at 512"
    yield f"({of.rise('ipr', 128, 256)} %)"
    iterref = [of.percent("iterref", budget) for budget in (128, *late)]
    yield f"IterRef stays at {span(iterref)} % from 128 on"
    yield f"({of.share('svdd', 'beam', at=128)} % at 128, {of.share('svdd', 'beam', at=1024)} % at 1,024)"
    of = Of("iterref-python-raise")
    yield f"beam search by {of.more('beam', plain, 64)} nats at 64, FK steering by {of.more('fk', plain, 256)} at 256"
    ends = [f"{of.mean(method, 'score', 1024):.1f}" for method in ("beam", "fk", plain)]
    yield f"to {ends[0]} and {ends[1]} against {ends[2]} at 1,024"
    kind = [f"{100 * of.mean('beam', metric, 1024):.0f} %" for metric in ("of_kind", "parses")]
    yield f"in the geometric mean, and {kind[0]} do raise; {kind[1]} of them parse"
    yield f"gives {100 * np.exp(of.mean('beam', 'score', 1024)):.0f} % to `raise`"


def digits() -> Sentences:
    """docs/experiments.md, search-digits and steering-digits."""
    of, random = Of("search-digits"), "best-of-n"
    ends = [f"{of.mean(random, 'score', 15):.3f}", f"{of.mean(random, 'score', 960):.4f}"]
    yield f"random search from {ends[0]} to {ends[1]} at 960 evaluations"
    yield f"zero-order search, behind it up to 240, to {of.mean('zero-order', 'score', 960):.4f}"
    judged = [of.values("log_probability", random, at=budget, digits=3) for budget in (15, 60, 240, 960)]
    yield f"up to 60 evaluations, from {judged[0]} to {judged[1]}, and nothing after ({judged[2]}, {judged[3]})"
    of = Of("steering-digits")
    steered = max(of.mean(method, "score", 64) for method in ("svdd", "beam", "fk"))
    yield f"({steered:.3f} against {of.mean(random, 'score', 1024):.3f} nats)"
    yield f"beam search is first at 1,024 ({of.mean('beam', 'score', 1024):.4f})"
    kinds = ("best-of-n", "best-of-n, no random steps", "best-of-n, vp path")
    single = [of.values("score", kind, at=16, digits=3) for kind in kinds]
    yield f"with random steps than without ({single[0]} against {single[1]})"
    yield f"and better still on that path ({single[2]})"


def reward() -> Sentences:
    """docs/reward.md."""
    rows = {(row["task"], row["method"], row["multiple"], row["metric"]): row["mean"] for row in stored("iterref")}
    middle, end = (rounded(100 * rows["sudoku-tokens", f"iterref at {level}", 4, "valid"]) for level in (0.5, 0.0))
    yield f"where it brings {middle} % valid against {end} % at the end"


def search() -> Sentences:
    """docs/search.md."""
    found = search_tables.rows()

    def of(guide: str, method: str, at: int, metric: str, digits: int = 1, scale: float = 1) -> str:
        return f"{found[guide, method, at, metric]['mean'] * scale:.{digits}f}"

    def recall(guide: str, method: str, at: int) -> str:
        return of(guide, method, at, "recall", 0, 100)

    fd, inception, guide, steps = "frechet_distance", "inception_score", "classifier", "more steps"
    yield f"no lower FD than one by 19 ({of('none', steps, 16, fd)} against {of('none', steps, 1, fd)})"
    ends = [search_tables.cell(found[guide, "random", at, fd]) for at in (8, 64)]
    yield f"a little higher again at 64 x ({', '.join(ends)})"
    yield f"recall falls from {recall(guide, 'random', 1)} % to {recall(guide, 'random', 64)} %"
    yield f"takes IS to {of('oracle', 'random', 64, inception)}, above the 8.2 of real pictures"
    yield f"and recall to {recall('oracle', 'random', 64)} %"
    yield f"(to {of('agreement', 'zero-order', 64, inception)}, against {of(guide, 'random', 64, inception)})"
    falls = [found["agreement", method, at, fd]["mean"] for method, at in search_tables.largest("agreement").items()]
    yield f"FD falls to {min(falls):.1f}–{max(falls):.1f} and stays there"
    yield f"FD {of(guide, 'paths', 64, fd)} under the classifier, where random search has {of(guide, 'random', 64, fd)}"
    yield f"recall {recall('oracle', 'paths', 64)} % under the oracle, against {recall('oracle', 'random', 64)} %"
    yield f"({recall('oracle', 'zero-order near', 64)} % against {recall('oracle', 'random', 64)} %)"
    yield f"draft-then-verify needs {_needs('drafts', 16, 32, 64)} of its cost under every verifier"
    yield f"against 8 x {_needs('drafts', 8)}, against 4 x {_needs('drafts', 4)}"
    yield f"Successive halving needs {_needs('halving', 8, 16, 32, 64)} from 8 x on"
    yield f"lower FD itself reach {of('fid', 'random', 16, fd, 2)} at 16 x"
    yield f"rises to {of('fid', 'random', 4, inception, 2)} and falls again to {of('fid', 'random', 16, inception, 2)}"
    yield f"costs 2 x and has a lower FD ({of('none', 'guidance', 2, fd)})"


def _needs(method: str, *multiples: int) -> str:
    """The least and the most share of random search's cost for its score, over verifiers."""
    shares = [search_tables.share(guide, method, at) for guide in search_tables.VERIFIERS for at in multiples]
    known = [share for share in shares if not np.isnan(share)]
    return f"{min(known):.2f}–{max(known):.2f}"


PAGES: dict[str, tuple[Callable[[], Sentences], ...]] = {
    "README.md": (readme,),
    "docs/sudoku.md": (sudoku,),
    "docs/search.md": (search,),
    "docs/reward.md": (reward,),
    "docs/experiments.md": (
        ipr_sudoku,
        samplers_sudoku,
        samplers_python,
        gstar_python,
        gstar_python_main,
        gstar_variants,
        iterref_sudoku,
        iterref_python,
        digits,
    ),
}


def lacking(page: str, text: str) -> Iterator[str]:
    """The sentences that the text of a page should hold and does not; line ends and bold type make no difference."""
    held = _plain(text)
    for sentences in PAGES.get(page, ()):
        yield from (sentence for sentence in sentences() if _plain(sentence) not in held)


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text.replace("**", ""))
