"""What a verifier says of states on their way: the soft value of the clean samples that the network expects of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

import torch
from torch import Tensor

from redraft.core.errors import RedraftError
from redraft.core.fields import Count, Like, Temperature, checked
from redraft.core.method import Verifier
from redraft.core.model import Model
from redraft.core.state import Draft, State
from redraft.core.streams import Streams
from redraft.core.weights import log_mean
from redraft.processes.categorical import Draw
from redraft.samplers import Preset, Sampler
from redraft.samplers.presets import sampler_of


class Valuation(Protocol):
    """What reward-guided methods ask of a target: how states are valued, and what a value weighs."""

    @property
    def alpha(self) -> float:
        """Temperature: how much value a nat of likelihood is worth; `inf` leaves the base model."""

    @property
    def draws(self) -> int:
        """The most verifier rows that the value of a state on its way takes; of an arrived one it takes one."""

    def value(
        self, sampler: Sampler, model: Model, walk: Any, streams: Streams, verifier: Verifier
    ) -> tuple[Any, Tensor]:
        """The walk, looked at where it had to be, and the values (B,), float64, of its rows."""

    def log_weight(self, value: Tensor) -> Tensor:
        """The log weights (B,) of values (B,)."""


@dataclass(frozen=True)
class Reward:
    """The target p(x) exp(r(x) / alpha) that reward-guided methods share, and how states are valued.

    Attributes:
        alpha: temperature, above 0: how much reward a nat of likelihood is worth; `inf` leaves the base model.
        draws: clean samples that are drawn for a state, phi; V = alpha log mean exp(r / alpha) over them.
        guess: how tokens of these are drawn: as the 'sampler' draws, with its temperature and top-p, so that all are
            equal at temperature 0; or from the distribution of the 'network', at temperature 1.
    """

    alpha: Temperature = 0.1
    draws: Count = 1
    guess: Literal["sampler", "network"] = "sampler"

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)

    def value(
        self, sampler: Sampler, model: Model, walk: Any, streams: Streams, verifier: Verifier
    ) -> tuple[Any, Tensor]:
        """The walk, looked at where it had to be, and V (B,), float64, of its rows.

        A row that has arrived has its own reward and takes one verifier call; others take `draws` each, and the
        network's evaluation, which the walk keeps for its next step.
        """
        done = walk.done
        if bool(done.all()):
            return walk, scored(model, walk.state, verifier)
        if bool(done.any()):
            part, some = self.value(sampler, model, walk[~done], streams[~done], verifier)
            value = torch.zeros(len(walk), dtype=torch.float64, device=some.device)
            value[~done], value[done] = some, scored(model, walk.state[done], verifier)
            return walk.put(~done, part), value
        walk = sampler.look(model, walk)
        draw = drawing(sampler) if self.guess == "sampler" else Draw()
        rewards = [
            scored(model, guessed(model, walk, streams.fold("guess").fold(number), draw), verifier)
            for number in range(self.draws)
        ]
        return walk, self.soft(torch.stack(rewards, 1))

    def soft(self, rewards: Tensor) -> Tensor:
        """Alpha log mean exp(r / alpha) (B,) over rewards (B, draws)."""
        return rewards.mean(1) if self.alpha == torch.inf else self.alpha * log_mean(rewards / self.alpha)

    def log_weight(self, value: Tensor) -> Tensor:
        """V / alpha."""
        return value / self.alpha


if TYPE_CHECKING:
    AnyReward = Valuation
else:  # the one that a command line can spell
    AnyReward = Annotated[Reward, Like((Valuation,), "redraft.Reward()")]


def drawing(sampler: Sampler) -> Draw:
    """How a sampler draws tokens."""
    own = sampler_of(sampler) if isinstance(sampler, Preset) else sampler
    return getattr(own, "draw", Draw())


def guessed(model: Model, walk: Any, streams: Streams, draw: Draw) -> State:
    """A clean sample of each row of a walk that was looked at."""
    clean: State = model.process.guess(walk.state, walk.prediction, streams, draw)
    return clean


def scored(model: Model, state: State, verifier: Verifier) -> Tensor:
    """Rewards r (B,), float64, of rows that are clean."""
    return verifier(model.decode(state.x), state.problem).double().to(state.x.device)


def spread(model: Model, state: State, number: int, streams: Streams) -> tuple[State, Streams]:
    """`number` rows of pure noise in place of each row of `state`, side by side, and their streams."""
    many, slots = state.repeat(number), streams.split(number)
    return model.process.prior(many, many.free, slots.fold("prior")), slots


def compared(model: Model, draft: Draft, drawn: State, verifier: Verifier) -> tuple[Tensor, Tensor]:
    """Rewards (P,) of the draft's samples and (P, K) of the K rows `drawn` for each, which lie side by side.

    Those of the draft are remembered in its `carry["reward"]`, or else asked for in the same call as the others', so
    that ranks can be compared too; -inf if there is no draft yet.
    """
    problems = len(draft)
    if draft.number < 0 or "reward" in draft.carry:
        rewards = scored(model, drawn, verifier).view(problems, -1)
        return draft.carry.get("reward", torch.full_like(rewards[:, 0], -torch.inf)), rewards
    both = scored(model, State.cat([draft.state, drawn]), verifier)
    return both[:problems], both[problems:].view(problems, -1)


def remembered(verifier: Verifier, **rewards: Tensor) -> dict[str, Tensor]:
    """Rewards to carry from draft to draft: none of a verifier whose scores mean nothing in another call."""
    return {} if getattr(verifier, "relative", False) else rewards


def needs_verifier(verifier: Verifier | None, method: str, relative: bool = False) -> Verifier:
    """The verifier, or the error that says that there is none.

    Unless the method takes `relative` ones, scores must mean something by themselves.
    """
    if verifier is None:
        raise RedraftError(f"{method} needs a verifier: give run(..., verifier=...)")
    if getattr(verifier, "relative", False) and not relative:
        raise RedraftError(
            f"{method} compares scores of different calls, and this verifier's are ranks within one call"
        )
    return verifier
