"""The published samplers of masked diffusion models, by name: each a few choices of `Unmask`.

    redraft.Unmask                     the general form
    presets.remdm_cap(256, eta=0.01)   a preset with its own settings
    preset("g-star+", steps=128)       by name

Every preset takes `steps` and `draw`. Mixing is `dataclasses.replace`, or a rule of your own: G-Star's critic under
ReMDM's budget is `Unmask(128, Rule(Remask("cap", 0.02), Judge("star")))`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Annotated, Any

from torch import Tensor

from redraft.core.build import assigned, call
from redraft.core.errors import RedraftError, shown, unknown
from redraft.core.fields import Among, AtLeast0, Count, Part, Share, arguments, checked, taken
from redraft.core.model import Model
from redraft.core.registry import SAMPLERS
from redraft.core.state import State
from redraft.core.streams import Streams
from redraft.processes.categorical import Draw
from redraft.processes.mask import Arccos, Cosine, Plateau
from redraft.samplers.budgets import EntropyBound, Even, Factor, OnSchedule, Proportional, Refresh, Remask, Threshold
from redraft.samplers.revising import Corrector, Edit
from redraft.samplers.rules import Rule, Scorer
from redraft.samplers.scorers import Confidence, EndsLast, Entropy, Halton, Judge, Margin, Planner, Quality
from redraft.samplers.unmask import Unmask
from redraft.samplers.unmask_walk import UnmaskWalk

NUCLEUS = Draw(top_p=0.9, nucleus="drop")  # of MDLM's, ReMDM's and G-Star's scripts


def ancestral(steps: int = 128, draw: Draw = Draw()) -> Unmask:
    """MDLM's sampler: masks are revealed at random, for good. Sahoo et al. 2024."""
    return Unmask(steps, draw=draw)


def maskgit(steps: int = 16, draw: Draw = Draw(), noise: float = 4.5) -> Unmask:
    """MaskGIT: the surest draws first, on a cosine schedule, with Gumbel noise that falls to 0. Chang et al. 2022.

    `noise` is its choice_temperature. A step leaves one mask at least, but for the last.
    """
    rule = Rule(OnSchedule(least=1, left=1), Confidence(), noise, annealed=True)
    return Unmask(steps, rule, schedule=Cosine(), draw=draw)


def margin(steps: int = 128, draw: Draw = Draw()) -> Unmask:
    """The tokens with the largest margin of the best over the second first. Kim et al. 2025."""
    return Unmask(steps, Rule(OnSchedule(least=1), Margin()), draw=draw)


def least_entropy(steps: int = 128, draw: Draw = Draw()) -> Unmask:
    """The tokens with the least entropy first."""
    return Unmask(steps, Rule(OnSchedule(least=1), Entropy()), draw=draw)


def llada(
    steps: int = 128, draw: Draw = Draw(temperature=0), block: int | None = 32, ends_last: bool = False
) -> Unmask:
    """LLaDA: the surest draws first, in equal numbers, block after block from the left. Nie et al. 2025.

    `ends_last` is its confidence_eos_eot_inf: a token that ends the text is revealed where nothing else is left. Its
    authors' scores on GSM8K, MATH, GPQA and MBPP are with it and with one block (block=None); see `scorers.EndsLast`.
    Their logits_eos_inf is the adapter's `forbid_eos`: `redraft.load_model(name, forbid_eos=True)`.
    """
    return Unmask(steps, Rule(Even(), EndsLast() if ends_last else Confidence()), draw=draw, block=block)


def llada2(steps: int = 32, draw: Draw = Draw(temperature=0), confidence: Share = 0.95, block: int = 32) -> Unmask:
    """LLaDA2: in its attention's blocks, every token surer than a threshold at once. Bie et al. 2025, 2512.15745.

    `steps` are those of a block: in equal shares they reveal it at least. Tokens are ranked, and compared with the
    threshold, by their probability after temperature and top-p.
    """
    return Unmask(None, _at_least(steps, block, confidence), draw=draw, block=block, aligned=True)


def llada2_1(
    steps: int = 32,
    draw: Draw = Draw(temperature=0),
    confidence: Share = 0.7,
    editing: Share = 0.5,
    block: int = 32,
) -> Unmask:
    """LLaDA2.1: LLaDA2, and revealed tokens of the block give way to others above a threshold. arXiv 2602.08676.

    The thresholds are those of its quality mode; its speed mode has confidence=0.5 and editing=0.0.
    """
    return replace(llada2(steps, draw, confidence, block), edit=Edit(editing))


def _at_least(steps: int, block: int, confidence: float) -> Rule:
    """Every token surer than a threshold, and at least an equal share of the block in each of so many steps."""
    if steps < 1 or block < 1:
        raise RedraftError(f"steps is {steps} and block {block}: both must be 1 or more")
    least, extra = divmod(block, min(steps, block))
    return Rule(Threshold(confidence, least, extra, shaped=True), Confidence(shaped=True))


def dream(
    steps: int = 128,
    draw: Draw = Draw(0.2, 0.95),
    scorer: Scorer = Entropy(shaped=True),
    noise: float = 0.0,
    end: float = 1e-3,
) -> Unmask:
    """Dream: a share of the masks, ranked by what temperature and top-p have left of the distribution. Ye et al. 2025.

    Dream's `alg` is `scorer`: 'entropy' as it is, 'topk_margin' Margin(shaped=True), 'maskgit_plus'
    Confidence(shaped=True, log=False), 'origin' the preset `ancestral`. `noise` is its alg_temp: positions are drawn by
    softmax(score / noise) without replacement. `end` is its eps, see `budgets.Proportional`. Its top_k is not here.
    """
    return Unmask(steps, Rule(Proportional(end), scorer, noise), draw=draw)


def threshold(
    steps: int | None = None,
    draw: Draw = Draw(temperature=0),
    confidence: Share = 0.9,
    block: int | None = 32,
    factor: float | None = None,
) -> Unmask:
    """Fast-dLLM: in blocks, every token surer than a threshold at once. Wu et al. 2025, arXiv 2505.22618.

    It runs until no mask is left; `steps` caps it. With `factor` the number of tokens is that of `Factor` instead.
    """
    budget = Threshold(confidence) if factor is None else Factor(factor)
    return Unmask(steps, Rule(budget, Confidence()), draw=draw, block=block)


def entropy_bounded(
    steps: int | None = None, draw: Draw = Draw(), bound: float = 0.1, block: int | None = None
) -> Unmask:
    """EB: as many tokens at once as an entropy bound allows; `steps` caps the walk. Ben-Hamu et al. 2025."""
    return Unmask(steps, Rule(EntropyBound(bound), Entropy()), draw=draw, block=block)


def halton(steps: int = 32, draw: Draw = Draw(), height: int | None = None) -> Unmask:
    """Halton-MaskGIT: a fixed order that fills the picture evenly, on an arccos schedule. Besnier et al. 2025.

    What the authors' sampler can do beside its defaults is not here: a temperature that changes from step to step (in
    their code a factor of the logits), a start of the order drawn for each sample, top-k.
    """
    return Unmask(steps, Rule(OnSchedule("ceil", least=1), Halton(height)), schedule=Arccos(), draw=draw)


def remdm_cap(steps: int = 128, draw: Draw = NUCLEUS, eta: float = 0.02) -> Unmask:
    """ReMDM: tokens are masked again with probability min(eta, sigma_max). Wang et al. 2025."""
    return Unmask(steps, Rule(Remask("cap", eta)), draw=draw)


def remdm_rescale(steps: int = 128, draw: Draw = NUCLEUS, eta: float = 0.02) -> Unmask:
    """ReMDM-rescale: tokens are masked again with probability eta sigma_max."""
    return Unmask(steps, Rule(Remask("rescale", eta)), draw=draw)


def remdm_conf(steps: int = 128, draw: Draw = NUCLEUS) -> Unmask:
    """ReMDM-conf: about one token a step is masked again, those that were least sure the most often.

    Masks make up for it, so that a(t) tokens survive to every level, as ReMDM's theorem has it.
    """
    return Unmask(steps, Rule(Remask("confidence")), draw=draw)


def remdm_conf_released(steps: int = 128, draw: Draw = NUCLEUS) -> Unmask:
    """ReMDM-conf as its authors' code has it: sigma is 0 at masks, which do not make up for tokens masked again.

    More masks are left than the schedule says, most of them for the last steps: of L = steps = 64, 81 % at t = 1/2.
    """
    return Unmask(steps, Rule(Remask("confidence", compensated=False)), draw=draw)


def remdm_loop(
    steps: int = 128,
    draw: Draw = NUCLEUS,
    eta: float = 0.02,
    on: float = 0.55,
    off: float = 0.05,
    kept_on: float = 0.9,
) -> Unmask:
    """ReMDM-loop: 'cap' at a constant share of masks while off < t <= on, ancestral before and after."""
    return Unmask(steps, Rule(Remask("cap", eta)), on=on, off=off, schedule=Plateau(on, off, kept_on), draw=draw)


def forward_backward(steps: int = 128, draw: Draw = Draw()) -> Unmask:
    """A step of the forward process undone: sigma = (a_s - a_t) / a_t, within sigma_max. Campbell et al. 2022.

    Any such sigma keeps the marginals, on coarse grids too. On a linear schedule it passes sigma_max in the last step
    alone, where sigma_max is 0 and all masks are revealed. ReMDM's code masks 1 / (steps - 1) of the tokens there, with
    a probability below 0 that masks stay, and fills them by the argmax of one further evaluation.
    """
    return Unmask(steps, Rule(Remask("forward-backward")), draw=draw)


def corrected(steps: int = 64, draw: Draw = Draw(), size: float = 0.1) -> Unmask:
    """Ancestral, with an uninformed corrector step after each: two evaluations a step. Campbell et al. 2022."""
    return Unmask(steps, draw=draw, corrector=Corrector(size))


def p2(steps: int = 128, draw: Draw = Draw(), eta: float = 1.0) -> Unmask:
    """P2 with self-planning: all tokens ranked by the network's own raw logits. Peng et al. 2025.

    A revealed token's score is its own log probability, as the paper's text says.
    """
    return Unmask(steps, Rule(OnSchedule(), Planner(eta), joint=True), draw=draw)


def p2_released(steps: int = 128, draw: Draw = Draw(), eta: float = 1.0) -> Unmask:
    """P2 as its authors' code has it: a score is of a fresh draw, and has that draw's Gumbel noise.

    A revealed token is doubted by what might stand in its place. Their code has no top-p.
    """
    return Unmask(steps, Rule(OnSchedule(), Planner(eta, fresh=True), joint=True), draw=draw)


def token_critic(steps: int = 18, draw: Draw = Draw(), critic: str = "star", noise: float = 1.0) -> Unmask:
    """Token-Critic: all tokens ranked by a critic, with noise that falls, on a cosine schedule. Lezama et al. 2022."""
    return Unmask(
        steps, Rule(OnSchedule(), Judge(critic), noise, annealed=True, joint=True), schedule=Cosine(), draw=draw
    )


def prism(
    steps: int = 128, draw: Draw = Draw(), critic: str = "prism", eta: float = 0.02, on: float = 0.5, off: float = 0.0
) -> Unmask:
    """PRISM: tokens of the least quality, read off the same pass, are masked again in a window. Kim et al. 2025."""
    return Unmask(steps, Rule(Refresh(eta), Quality(critic)), on=on, off=off, draw=draw)


def star(steps: int = 128, draw: Draw = NUCLEUS, on: float = 1.0) -> Unmask:
    """Star: the whole sequence is proposed and each token kept with a_s; sigma = 1 - a_s. Meshchaninov et al. 2025."""
    return Unmask(steps, Rule(Remask("star")), on=on, draw=draw)


def star_plus(steps: int = 128, draw: Draw = NUCLEUS, on: float = 0.3) -> Unmask:
    """Star+: ancestral while t > on, then Star."""
    return star(steps, draw, on)


def star_loop(
    steps: int = 128,
    draw: Draw = NUCLEUS,
    on: float = 0.55,
    off: float = 0.05,
    kept_on: float = 0.9,
) -> Unmask:
    """Star-loop: Star at a constant share of masks while off < t <= on, ancestral before and after."""
    return Unmask(steps, Rule(Remask("star")), on=on, off=off, schedule=Plateau(on, off, kept_on), draw=draw)


def g_star_plus(
    steps: int = 128,
    draw: Draw = NUCLEUS,
    critic: str = "star",
    on: float = 0.3,
    noise: float = 1.0,
) -> Unmask:
    """G-Star+: ancestral while t > on, then a critic picks ceil((1 - a_s) L) tokens to mask. Meshchaninov et al. 2025.

    `noise` is its remasking temperature. A guided step costs two network evaluations, the proposal's and the critic's.
    """
    return Unmask(steps, Rule(OnSchedule("ceil"), Judge(critic), noise, joint=True), on=on, draw=draw)


def g_star_loop(
    steps: int = 128,
    draw: Draw = NUCLEUS,
    critic: str = "star",
    on: float = 0.55,
    off: float = 0.05,
    kept_on: float = 0.9,
    noise: float = 1.0,
) -> Unmask:
    """G-Star-loop: as Star-loop, and a critic picks which tokens are masked again."""
    return replace(
        star_loop(steps, draw, on, off, kept_on),
        rule=Rule(OnSchedule("ceil"), Judge(critic), noise, joint=True),
    )


def preset(name: str, *, stop: bool = True, **settings: Any) -> Unmask:
    """A published sampler by name, with settings of its own; with `stop` rows end at an end token, see `Unmask`.

    Raises:
        RedraftError: unknown name or setting; the nearest is suggested.
    """
    name, stop = taken("name", name, Annotated[str, Among(SAMPLERS, "sampler")]), taken("stop", stop, bool)
    _check_names(name, settings)
    sampler = _checked(name, SAMPLERS[name](**arguments(SAMPLERS[name], settings)))
    return sampler if stop else replace(sampler, stop=False)


def _checked(name: str, sampler: Any) -> Unmask:
    """What another package gave under a name, if it is a sampler of masked models."""
    if not isinstance(sampler, Unmask):
        raise RedraftError(f"the sampler {name!r} gave {shown(sampler)}, where an Unmask is asked for")
    return sampler


def _check_names(name: str, settings: Iterable[str]) -> None:
    """Raise the error that names the first of the `settings` that the preset has not, and lists those that it has."""
    known = list(inspect.signature(SAMPLERS[name]).parameters)
    for key in settings:
        if key not in known:
            error = str(unknown(f"setting of the preset {name!r}:", key, known))
            raise RedraftError(error if "known:" in error else f"{error} There are {', '.join(known)}")


@dataclass(frozen=True)
class Preset:
    """A published sampler of masked diffusion models, by name.

    Attributes:
        name: see `redraft list`.
        steps: in all, of `llada2` in a block; the preset's own if not given.
        temperature: of the softmax; the preset's own if not given.
        top_p: share of the probability that is kept; the preset's own if not given.
        settings: the preset's others, such as block=32 ends_last=true, or scorer=margin scorer.shaped=true.
        stop: a row ends at the model's end token, see `Unmask`.
    """

    name: Annotated[str, Among(SAMPLERS, "sampler")] = "ancestral"
    steps: Count | None = None
    temperature: AtLeast0 | None = None
    top_p: Part | None = None
    settings: tuple[str, ...] = ()
    stop: bool = True
    by_level = True

    def __post_init__(self) -> None:
        """Reject what no sampler can be made of."""
        checked(self)
        sampler_of(self)

    def random_start(self, model: Model) -> bool:
        """Masks are always the same."""
        return False

    def random_steps(self, model: Model) -> bool:
        """Whether tokens are drawn, or positions are."""
        return sampler_of(self).random_steps(model)

    def nfe(self, regions: Tensor, level: float = 1.0) -> Tensor:
        """The most network rows (B,) that a walk over `regions` (B,) masks from `level` takes, critics' included."""
        return sampler_of(self).nfe(regions, level)

    def between(self, model: Model, regions: Tensor, high: float = 1.0, low: float = 0.0) -> Tensor:
        """The most network rows (B,) of the part of a walk over `regions` (B,) masks from `high` to `low`."""
        return sampler_of(self).between(model, regions, high, low)

    def init(self, model: Model, state: State, streams: Streams) -> UnmaskWalk:
        """The walk at its start."""
        return sampler_of(self).init(model, state, streams)

    def look(self, model: Model, walk: UnmaskWalk) -> UnmaskWalk:
        """The walk with the network's prediction for its state, which its next step then uses."""
        return sampler_of(self).look(model, walk)

    def level(self, walk: UnmaskWalk) -> Tensor:
        """Level of noise (B,) that each row has come down to."""
        return sampler_of(self).level(walk)

    def arrived(self, model: Model, state: State) -> UnmaskWalk:
        """The walk at its end, of a clean state whose free positions may be walked again from level 1."""
        return sampler_of(self).arrived(model, state)

    def rewind(self, model: Model, walk: UnmaskWalk, level: float, streams: Streams, at: float = 0.0) -> UnmaskWalk:
        """The walk noised back up to `level`, or to the next level of its grid above."""
        return sampler_of(self).rewind(model, walk, level, streams, at)

    def step(self, model: Model, walk: UnmaskWalk, streams: Streams) -> UnmaskWalk:
        """The walk one step on."""
        return sampler_of(self).step(model, walk, streams)


@lru_cache(maxsize=64)
def sampler_of(named: Preset) -> Unmask:
    """The sampler that a name with settings stands for."""
    settings = assigned(named.settings)
    own = settings.setdefault("draw", {})
    if not isinstance(own, dict):
        raise RedraftError(f"draw is {own!r}: name what is to change of it, such as draw.nucleus=drop")
    for holder, name in ((settings, "steps"), (own, "temperature"), (own, "top_p")):
        if (value := getattr(named, name)) is not None:
            if name in holder:
                raise RedraftError(f"{name} is given twice, as {value} and among the settings as {holder[name]}")
            holder[name] = value
    return replace(_built(named.name, settings), stop=named.stop)


def _built(name: str, settings: dict[str, Any]) -> Unmask:
    """A preset of plain values; those of `draw` change the preset's own."""
    changes = settings.pop("draw")
    _check_names(name, settings)
    sampler = _checked(name, call(SAMPLERS[name], settings))
    own = {field.name: getattr(sampler.draw, field.name) for field in fields(Draw)}
    return replace(sampler, draw=call(Draw, own | changes))
