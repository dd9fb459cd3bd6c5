"""Train a critic for a frozen masked denoiser, on the denoiser's own mistakes.

Meshchaninov et al., "Guided star-shaped masked diffusion" (G-Star), 2026 (arXiv 2510.08369), as Token-Critic before it:
mask data to a random level t, draw all masked tokens at once, x^ ~ p(x_0 | x_t), and learn which tokens of x^ differ
from the data. Kim et al., "Fine-tuning masked diffusion for provable self-correction" (PRISM), 2025 (arXiv 2510.01384):
draw only k of the masked tokens, leave the others masked, and learn which of the k differ.

Differences: the denoiser stays frozen, while PRISM also tunes it, with a weight of 0.5 on its own loss; the level after
the remask of the on-policy option is drawn uniformly below t.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from redraft.core.errors import RedraftError
from redraft.core.fields import Among, AtLeast0, Count, Number, Part, Positive, Seed, checked
from redraft.core.ranking import choose
from redraft.core.rows import Rows
from redraft.core.state import State
from redraft.core.streams import Streams
from redraft.models.critic import BlocksCritic, HeadCritic, Reads, Trained, save_critic
from redraft.models.load import load_model
from redraft.models.nets.transformer import Transformer
from redraft.models.tokens import TokenModel
from redraft.processes.categorical import Draw
from redraft.tasks.load import load_task, task_of
from redraft.training.judgement import Judgement
from redraft.training.loop import Schedule, check, fit, sizes

PRESETS = {"cpu": (1_500, 32), "smoke": (20, 8)}
LOWEST = 1e-3  # level of noise
NAME = "critic"  # of the critic that is being trained, in its model


@dataclass(frozen=True, repr=False)
class Examples(Rows):
    """What a critic reads, and what it should find.

    Attributes:
        state: tokens (B, R) to read: a whole proposal, or a partly masked state.
        wrong: positions (B, R) where they differ from the data.
        counted: positions (B, R) that are learned from.
        redrawn: positions (B, R) that the denoiser drew last.
        surprise: -log p (B, R) of these draws, 0 elsewhere.
        level: of noise (B,) that they were drawn at.
    """

    state: State
    wrong: Tensor
    counted: Tensor
    redrawn: Tensor
    surprise: Tensor
    level: Tensor


def corrupted(model: TokenModel, clean: Tensor, streams: Streams, given: Tensor | None = None) -> State:
    """A draw from q(x_t | x_0), t ~ U(0.001, 1) for each row of `clean` (B, R); positions `given` (B, R) stay."""
    given = torch.zeros_like(clean, dtype=torch.bool) if given is None else given
    t = LOWEST + (1 - LOWEST) * streams.fold("t").uniform((1,)).float()
    start = State(clean, torch.zeros_like(clean, dtype=torch.float32), given, torch.arange(len(clean)))
    return model.process.renoise(start, start.free, t.expand_as(start.t), streams.fold("noise"))


def redrawn(model: TokenModel, state: State, where: Tensor, draw: Draw, streams: Streams) -> tuple[Tensor, Tensor]:
    """Tokens (B, R) of `state` with draws in the positions `where` (B, R), and -log p (B, R) of the draws."""
    drawn = draw(model.predict(state), where, streams)
    x, surprise = state.x.clone(), torch.zeros_like(state.t)
    x[where], surprise[where] = drawn.tokens, -drawn.logp.to(surprise)
    return x, surprise


def proposals(model: TokenModel, clean: Tensor, noisy: State, level: Tensor, draw: Draw, streams: Streams) -> Examples:
    """Every mask of `noisy`, at `level` (B,), is drawn; all free positions count (G-Star, Token-Critic)."""
    masked = noisy.x == model.convention.mask
    x, surprise = redrawn(model, noisy, masked, draw, streams)
    whole = noisy.to(x, torch.zeros_like(noisy.t))
    return Examples(whole, x != clean, noisy.free, masked, surprise, level)


def reveals(
    model: TokenModel, clean: Tensor, noisy: State, level: Tensor, draw: Draw, streams: Streams, number: int
) -> Examples:
    """`number` masks of `noisy`, chosen at random, are drawn, and they alone count (PRISM)."""
    masked = noisy.x == model.convention.mask
    chance = streams.fold("chosen").uniform(masked.shape[1:])
    chosen = choose(chance, masked, torch.full_like(level, number))
    x, surprise = redrawn(model, noisy, chosen, draw, streams.fold("draw"))
    return Examples(noisy.to(x, noisy.t), x != clean, chosen, chosen, surprise, level)


def remasked(model: TokenModel, examples: Examples, logits: Tensor, level: Tensor, streams: Streams) -> State:
    """Masks on ceil((1 - a) L) of the L free positions of a proposal, by Gumbel-top-k on a critic's logits (B, R).

    Args:
        model: for its schedule a and its mask.
        examples: the proposals.
        logits: of a critic.
        level: (B,) at which a is taken.
        streams: for the Gumbel noise.
    """
    state = examples.state
    kept = model.process.schedule.kept(level.double())
    number = ((1 - kept) * state.free.sum(1) - 1e-9).ceil()  # against rounding, as in sampling
    where = choose(logits + streams.gumbel(logits.shape[1:]), state.free, number)
    t = level[:, None].to(state.t).expand_as(state.t).masked_fill(state.frozen, 0)
    return state.to(state.x.masked_fill(where, model.convention.mask), t)


def cross_entropy(logits: Tensor, wrong: Tensor, counted: Tensor) -> Tensor:
    """Mean binary cross-entropy of logits (B, R) against `wrong` (B, R) over the positions `counted` (B, R)."""
    each = F.binary_cross_entropy_with_logits(logits, wrong.to(logits), reduction="none")
    return (each * counted).sum() / counted.sum().clamp_min(1)


def ranking(logits: Tensor, wrong: Tensor, counted: Tensor) -> Tensor:
    """RankNet's loss (Burges et al. 2005) within each sequence, of logits (B, R), averaged over those with a pair.

    A sequence's is the mean of softplus(r_j - r_i) over wrong i and right j among the positions `counted` (B, R).
    """
    pairs = (wrong & counted)[:, :, None] & (~wrong & counted)[:, None, :]
    each = F.softplus(logits[:, None, :] - logits[:, :, None])
    number = pairs.sum((1, 2))
    means = (each * pairs).sum((1, 2)) / number.clamp_min(1)
    return means.sum() / (number > 0).sum().clamp_min(1)


LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {"bce": cross_entropy, "ranking": ranking}


@dataclass(frozen=True)
class Lesson:
    """What a critic is shown and how it is marked.

    Attributes:
        draw: how the denoiser draws.
        loss: 'bce', whose sigmoid is a probability; or 'ranking', which cares for the order within a sequence only.
        on_policy: proposals are re-masked once by the critic itself, as in sampling, and drawn again.
        reveal: tokens that are drawn for a critic that reads the state (PRISM's k).
    """

    draw: Draw = field(default_factory=Draw)
    loss: Literal["bce", "ranking"] = "bce"
    on_policy: bool = False
    reveal: Count = 8

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)

    @torch.no_grad()
    def examples(self, model: TokenModel, clean: Tensor, streams: Streams, given: Tensor | None = None) -> Examples:
        """Examples for the critic called 'critic' of `model`.

        Args:
            model: with that critic.
            clean: data (B, R).
            streams: a key for each row.
            given: positions (B, R) that are never masked and do not count.
        """
        noisy = corrupted(model, clean, streams, given)
        level = noisy.t.amax(1)
        if model.critics[NAME].reads == "state":
            return reveals(model, clean, noisy, level, self.draw, streams.fold("reveal"), self.reveal)
        made = proposals(model, clean, noisy, level, self.draw, streams.fold("proposal"))
        if not self.on_policy:
            return made
        level = level * streams.fold("s").uniform((1,))[:, 0].to(level)
        again = remasked(model, made, opinion(model, made), level, streams.fold("remask"))
        return proposals(model, clean, again, level, self.draw, streams.fold("again"))

    def terms(self, model: TokenModel, examples: Examples) -> dict[str, Tensor]:
        """The loss of the critic called 'critic' of `model`."""
        return {self.loss: LOSSES[self.loss](opinion(model, examples), examples.wrong, examples.counted)}


def opinion(model: TokenModel, examples: Examples) -> Tensor:
    """Logits (B, R) of the critic called 'critic' of `model`, by the same calls as in sampling."""
    if model.critics[NAME].reads == "state":
        return model.quality(NAME, examples.state, model.predict(examples.state))
    return model.judge(NAME, examples.state.x, examples.state)


def teach(
    model: TokenModel,
    critic: Trained,
    clean: Tensor,
    lesson: Lesson,
    schedule: Schedule,
    batch: int,
    seed: int = 0,
    checkpoint: Path | None = None,
) -> TokenModel:
    """Train `critic` in place; `model` with it as its critic called 'critic'.

    Args:
        model: the denoiser, which stays as it is.
        critic: of the model's vocabulary.
        clean: training data (N, R).
        lesson: what it learns from.
        schedule: steps and rates.
        batch: sequences a step.
        seed: of all randomness; a step's draws follow from (seed, step, place in the batch).
        checkpoint: a file to go on from and to write to, or None.

    Raises:
        RedraftError: the critic is of another vocabulary, or the loss is not finite.
    """
    model = model.with_critic(NAME, critic)
    place = torch.arange(batch, device=clean.device)

    def loss(step: int) -> dict[str, Tensor]:
        streams = Streams.root(seed, step * batch + place).fold("train")
        rows = (streams.fold("row").uniform((1,))[:, 0] * len(clean)).long()
        return lesson.terms(model, lesson.examples(model, clean[rows], streams))

    about = {"lesson": vars(lesson), "batch": batch, "seed": seed, "critic": critic.config, "denoiser": model.digest}
    about |= {"rows": len(clean), "kind": type(critic).__name__}
    fit(critic.train(), loss, schedule, checkpoint, f"critic of {model.name}", about)
    return model


@torch.no_grad()
def judged(model: TokenModel, lesson: Lesson, clean: Tensor, seed: int = 0, batch: int = 64) -> Judgement:
    """What the critic called 'critic' of `model` is worth on examples of the lesson's kind from `clean` (N, R)."""
    place = torch.arange(len(clean), device=clean.device)
    streams, parts = Streams.root(seed, place).fold("judge"), []
    for rows in torch.split(place, batch):
        made = lesson.examples(model, clean[rows], streams[rows])
        columns = (opinion(model, made), made.wrong, made.state.x, made.redrawn, made.surprise, made.level[:, None])
        parts.append([column.expand_as(made.wrong)[made.counted].cpu() for column in columns])
    return Judgement.of(*(torch.cat(values) for values in zip(*parts, strict=True)))


@dataclass(frozen=True)
class TrainCritic:
    """Train a critic that finds the wrong tokens of a masked model's drafts.

    Attributes:
        model: the denoiser: a name or a folder.
        task: whose training data it sees; the one of the model's name when not given.
        out: folder for the weights and their card; a run that was stopped goes on from its checkpoint there. In
            `critics/<name>` of the model's folder, the model has it from then on.
        preset: 'cpu' for some minutes on one core, 'smoke' to try it in seconds.
        reads: 'proposal', a whole draft at the cost of another pass (G-Star); or 'state', for nothing (PRISM).
        blocks: copy and train so many of the denoiser's first blocks; a linear layer on its features if not given.
        loss: 'bce' or 'ranking'.
        on_policy: show drafts that the critic itself has had re-masked once.
        reveal: tokens that are drawn for a critic that reads the state.
        temperature: of the denoiser's draws.
        top_p: share of the probability that these keep.
        steps: optimiser steps, instead of the preset's.
        batch: sequences a step, instead of the preset's.
        rate: peak learning rate; 0.01 for a layer and 0.001 for blocks if not given.
        rows: sequences of training data.
        evaluate: held-out sequences to judge the critic on.
        seed: of all randomness.
        device: such as 'cuda'; a GPU if there is one when not given.
    """

    model: str
    task: str | None = None
    out: Path = Path("runs/critic")
    preset: Annotated[str, Among(PRESETS)] = "cpu"
    reads: Reads = "proposal"
    blocks: Count | None = None
    loss: Literal["bce", "ranking"] = "bce"
    on_policy: bool = False
    reveal: Count = 8
    temperature: AtLeast0 = 1.0
    top_p: Part | None = None
    steps: Count | None = None
    batch: Count | None = None
    rate: Positive | None = None
    rows: Count = 8192
    evaluate: Number = 512
    seed: Seed = 0
    device: str | None = None

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)

    def run(self) -> Trained:
        """Train, judge on the test split, print, write the folder with weights and card."""
        steps, batch = sizes(PRESETS, self)
        if self.reads == "state" and (self.blocks is not None or self.on_policy):
            raise RedraftError(
                "a critic that reads the state is a layer on the denoiser's pass: leave --blocks and --on-policy out"
            )
        check(self, evaluate=1)
        task = self.task or task_of(self.model)
        if task is None:
            raise RedraftError(
                f"no task is known for the model {self.model!r}: give --task, a name from `redraft list`"
            )
        return replace(self, task=task, steps=steps, batch=batch)._train()

    def _train(self) -> Trained:
        assert self.steps
        assert self.batch
        lesson = Lesson(Draw(self.temperature, self.top_p), self.loss, self.on_policy, self.reveal)
        model = _denoiser(self.model, self.device)
        train, test = (self._data(model, *part) for part in ((self.rows, "train"), (self.evaluate, "test")))
        critic = self._start(model, train)
        schedule = Schedule(self.steps, self._rate, warmup=min(200, 1 + self.steps // 5))
        checkpoint = self.out / "checkpoint.safetensors"
        model = teach(model, critic, train, lesson, schedule, self.batch, self.seed, checkpoint)
        judgement = judged(model, lesson, test, self.seed)
        print(judgement.markdown())
        extra = {"denoiser": model.digest, "reads": critic.reads, "metrics": judgement.metrics}
        save_critic(critic, self.out, self._card(model, critic, judgement), extra)
        return critic.requires_grad_(False)

    @property
    def _rate(self) -> float:
        usual = 1e-3 if self.blocks else 1e-2
        return usual if self.rate is None else self.rate

    def _data(self, model: TokenModel, rows: int, split: str) -> Tensor:
        """Clean tokens (N, R) of the task."""
        assert self.task
        task: Any = load_task(self.task)
        if not hasattr(task, "clean"):
            raise RedraftError(f"the task {self.task!r} has no clean tokens to train on: it has no method `clean`")
        clean: Tensor = task.clean(rows, seed=self.seed, split=split)
        fits = model.length in (None, clean.shape[1]) and int(clean.max()) < model.convention.vocabulary
        if not fits:
            raise RedraftError(
                f"the task {self.task!r} has {clean.shape[1]} tokens of ids up to {int(clean.max())}, and the model "
                f"{self.model!r} reads {model.length or 'any number'} of ids below {model.convention.vocabulary}"
            )
        device = None if model.net is None else next(model.net.parameters()).device
        return clean.to(device)

    def _start(self, model: TokenModel, clean: Tensor) -> Trained:
        """The critic as it begins."""
        if self.blocks is None:
            features = model.forward(clean[:1], corrupted(model, clean[:1], Streams.root(0, torch.arange(1))))[1]
            assert features is not None
            return HeadCritic(features.shape[2], model.convention.vocabulary, self.reads).to(clean.device)
        if not isinstance(model.net, Transformer):
            raise RedraftError(f"{self.model!r} has no blocks to copy: leave --blocks out")
        return BlocksCritic.copy(model.net, self.blocks)

    def _card(self, model: TokenModel, critic: Trained, judgement: Judgement) -> str:
        """What the weights are, as Markdown."""
        count = sum(p.numel() for p in critic.parameters())
        kind = (
            f"its first {self.blocks} blocks, copied and trained" if self.blocks else "a linear layer on its features"
        )
        reads = {
            "proposal": "Reads a whole proposal, which takes a pass of its own (G-Star, Token-Critic).",
            "state": "Reads the denoiser's own pass over the partly masked state, at no cost (PRISM, but with the\n"
            "denoiser frozen, which the paper tunes too).",
        }[critic.reads]
        shown = f"{self.reveal} of its masks" if critic.reads == "state" else "all its masks"
        policy = " Drafts were re-masked once by the critic itself and drawn again." if self.on_policy else ""
        nucleus = "" if self.top_p is None else f", top-p {self.top_p}"
        return f"""# Critic of {model.name}

Logits that a token is wrong: {kind}, {count:,} parameters.
{reads}

- Denoiser: `{model.name}`, weights {model.digest}, frozen.
- Data: {self.rows:,} training sequences of the `{self.task}` task, masked to a level t ~ U(0.001, 1) each time; the
  denoiser then draws {shown} (temperature {self.temperature}{nucleus}).{policy}
  A token is wrong if it is not the data's.
- Loss: {self.loss}. Training: {self.steps:,} AdamW steps of {self.batch} sequences, peak rate {self._rate},
  averaged weights, seed {self.seed}.
- Made by `redraft train critic`.

On {self.evaluate} sequences of the test split, made in the same way:

{judgement.markdown()}
"""


def _denoiser(name: str, device: str | None) -> TokenModel:
    """A model of tokens whose features can be read."""
    model: Any = load_model(name, device)
    if not isinstance(model, TokenModel) or not model.features:
        raise RedraftError(f"{name!r} is not a model of tokens that shows its features, which a critic reads")
    return model
