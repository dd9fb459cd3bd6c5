"""A masked diffusion model over tokens: any network that gives logits, with its conventions declared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from redraft.core.content import content
from redraft.core.errors import RedraftError, unknown
from redraft.core.fields import Count, Number, checked
from redraft.core.model import outlined
from redraft.core.state import Prediction, State
from redraft.processes.categorical import likeliest
from redraft.processes.mask import MaskDiffusion

Forward = Callable[[Tensor, State], tuple[Tensor, Tensor | None]]
"""Tokens (B, R) and their state to logits (B, R, V) and, if the network shows them, features (B, R, D).

The logits are the caller's to change.
"""


@dataclass(frozen=True)
class Convention:
    """How a network's input and output are to be read.

    Attributes:
        vocabulary: V, number of ids in the input, the mask's included.
        mask: the id that stands for a masked token.
        shifted: the logits at position i are about the token at i + 1 (models grown from autoregressive ones).
        carried: the network copies revealed tokens to its output, so that its logits there say nothing.
        forbidden: further ids that are never drawn.
        ends: ids that end a text: what follows the first of them is no part of it.
    """

    vocabulary: Count
    mask: Number
    shifted: bool = False
    carried: bool = False
    forbidden: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Reject ids outside the vocabulary."""
        checked(self)
        for what, ids in (("mask", (self.mask,)), ("forbidden", self.forbidden), ("end", self.ends)):
            outside = [i for i in ids if not 0 <= i < self.vocabulary]
            if outside:
                raise RedraftError(f"{what} id {outside[0]} is outside the vocabulary of {self.vocabulary} tokens")


class Critic(Protocol):
    """Finds tokens that are likely wrong.

    Attributes:
        reads: 'proposal', a whole sequence without masks, at the cost of a network pass of its own; or 'state', the
            partly masked sequence, from the features of the denoiser's own pass.
        vocabulary: of the tokens that it was trained on.
    """

    reads: str
    vocabulary: int

    def __call__(self, x: Tensor, features: Callable[[Tensor], Tensor] | Tensor) -> Tensor:
        """Logits (B, R) that each token of `x` (B, R) is wrong.

        Args:
            x: tokens.
            features: of the denoiser's pass (B, R, D), or a function that makes a pass over tokens.
        """


@dataclass(frozen=True)
class TokenModel:
    """A masked diffusion model over R tokens; samples are token ids (B, R), and `text` reads them.

    Attributes:
        name: how users call it.
        forward: the network.
        convention: how to read it.
        length: R, or None for any.
        codec: from ids (B, R) to strings or pictures.
        process: the forward noising.
        timeless: the network has no time input, so tokens that did not change need no new evaluation.
        features: the network shows its features.
        critics: by name.
        null: the state without its condition, for guidance.
        graph: which tokens depend on one another (R, R), or None.
        net: the module, to find the device.
        digest: of the weights' file, where there is one of ours; `mark` tells all models apart.
        nfe_per_row: network evaluations that one row takes, 2 under guidance.
        plain: the network without guidance, where `forward` is with it: one pass gives a critic its features.
        log_likelihood: of samples (B, R), nats (B,), where it is known.
        block: tokens in a block, from a row's first visible one, if the network attends to its own and those before.
        positions: the most tokens of a row, padding aside, that the network was made for; None for any number.
    """

    name: str
    forward: Forward
    convention: Convention
    length: Count | None = None
    codec: Callable[[Tensor], Any] | None = None
    timeless: bool = True
    features: bool = False
    critics: dict[str, Critic] = field(default_factory=dict)
    null: Callable[[State], State] | None = None
    graph: Tensor | None = None
    net: nn.Module | None = None
    digest: str | None = None
    nfe_per_row: Count = 1
    plain: Forward | None = None
    log_likelihood: Callable[[Tensor], Tensor] | None = None
    block: Count | None = None
    positions: Count | None = None

    def __post_init__(self) -> None:
        """Reject critics of other tokens, and a length beyond the positions."""
        checked(self)
        if self.length and self.positions and self.length > self.positions:
            raise RedraftError(f"length is {self.length:,}, and {self.name!r} has positions for {self.positions:,}")
        for name, critic in self.critics.items():
            if critic.vocabulary != self.convention.vocabulary:
                raise RedraftError(
                    f"critic {name!r} was trained on a vocabulary of {critic.vocabulary} tokens; {self.name!r} has "
                    f"{self.convention.vocabulary}"
                )

    def __repr__(self) -> str:
        """Class, name and offers."""
        return outlined(self)

    @property
    def mark(self) -> str:
        """Tells apart all that samples follow from, as it is now: the network and what calls it, critics, the codec."""
        return content({name: value for name, value in vars(self).items() if name not in ("name", "positions")})

    @property
    def process(self) -> MaskDiffusion:
        """Absorbing noise into the mask."""
        return MaskDiffusion(self.convention.mask)

    @property
    def shape(self) -> tuple[int | None, ...]:
        """(R,)."""
        return (self.length,)

    @property
    def offers(self) -> frozenset[str]:
        """What it can do."""
        names = {"regions", "tokens", "uncertainty"}
        names |= {"raw logits"} if not self.convention.carried else set()
        names |= {"graph"} if self.graph is not None else set()
        names |= {"ends"} if self.convention.ends else set()
        names |= {"timeless"} if self.timeless else set()
        names |= {"features"} if self.features else set()
        names |= {"guidance"} if self.null else set()
        return frozenset(names | {f"critic:{name}" for name in self.critics})

    def predict(self, state: State) -> Prediction:
        """One network evaluation for each row.

        Returns:
            logits (B, R, V) with the mask and forbidden ids at -inf, at revealed positions as the network gave them;
            `clean` has the likeliest token where `state.x` is masked, and `state.x` elsewhere.

        Raises:
            RedraftError: a row is longer than the network's positions.
        """
        self._check_size(state)
        logits, features = self.forward(state.x, state)
        logits = self._read(logits, state)
        masked = state.x == self.convention.mask
        clean = state.x.clone()
        clean[masked] = likeliest(logits, masked)
        return Prediction(clean, logits=logits, features=features)

    def judge(self, name: str, x: Tensor, state: State) -> Tensor:
        """Logits (B, R) of a critic that reads whole proposals that the tokens of `x` (B, R) are wrong: one pass."""
        return self._critic(name, "proposal")(x, lambda tokens: self._features(tokens, state))

    def quality(self, name: str, state: State, prediction: Prediction) -> Tensor:
        """Logits (B, R) of a critic that reads the denoiser's own pass over `state`; costs nothing."""
        if prediction.features is None:
            raise RedraftError(f"critic {name!r} reads the denoiser's features, which {self.name!r} does not show")
        return self._critic(name, "state")(state.x, prediction.features)

    def decode(self, x: Tensor) -> Tensor:
        """Samples are the token ids (B, R) themselves."""
        return x

    def encode(self, samples: Tensor) -> Tensor:
        """Token ids are the samples themselves.

        Raises:
            RedraftError: they are none of this model's.
        """
        outside = samples[(samples < 0) | (samples >= self.convention.vocabulary)]
        if samples.is_floating_point() or len(outside):
            given = f"{samples.dtype} values" if samples.is_floating_point() else f"the token {int(outside[0])}"
            raise RedraftError(f"{self.name!r} has tokens 0 to {self.convention.vocabulary - 1}, not {given}")
        return samples

    def text(self, samples: Tensor) -> Any:
        """What a person reads or looks at: strings, or pictures, of token ids (B, R)."""
        if self.codec is None:
            raise RedraftError(f"{self.name!r} has no codec: its samples are token ids")
        return self.codec(samples)

    def with_critic(self, name: str, critic: Critic) -> TokenModel:
        """The same model with one more critic."""
        return replace(self, critics=self.critics | {name: critic})

    def _check_size(self, state: State) -> None:
        size, visible = state.x.shape[1], state.cond.get("visible")
        if self.positions is None or size <= self.positions:
            return
        longest = size if visible is None else int(visible.sum(1).max())
        if longest > self.positions:
            raise RedraftError(f"a row has {longest:,} tokens, and {self.name!r} has positions for {self.positions:,}")

    def _critic(self, name: str, reads: str) -> Critic:
        if name not in self.critics:
            raise unknown("critic", name, self.critics)
        if self.critics[name].reads != reads:
            ask = {"proposal": "quality", "state": "judge"}[reads]
            raise RedraftError(f"critic {name!r} does not read the {reads}: ask it by `{ask}`")
        return self.critics[name]

    def _features(self, x: Tensor, state: State) -> Tensor:
        features = (self.plain or self.forward)(x, state)[1]
        if features is None:
            raise RedraftError(f"{self.name!r} does not show its features, which its critics need")
        return features

    def _read(self, logits: Tensor, state: State) -> Tensor:
        if logits.ndim != 3 or logits.shape[:2] != state.x.shape:
            raise RedraftError(
                f"the network of {self.name!r} gave logits of shape {tuple(logits.shape)} for tokens of shape "
                f"{tuple(state.x.shape)}"
            )
        if self.convention.shifted:
            logits = torch.cat([logits[:, :1], logits[:, :-1]], 1)
        never = [i for i in (self.convention.mask, *self.convention.forbidden) if i < logits.shape[2]]
        if never:
            logits[:, :, never] = -torch.inf  # in place: with 50,000 words a copy would take a gigabyte
        return logits
