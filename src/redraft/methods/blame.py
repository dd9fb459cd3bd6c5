"""What a verifier adds to IPR: where to redraw, and whether to keep it. No paper has these combinations."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from redraft.core.errors import RedraftError
from redraft.core.fields import AtLeast0, Temperature, checked
from redraft.core.method import Verifier
from redraft.core.model import Model
from redraft.core.state import Draft, State, merge
from redraft.core.streams import Streams
from redraft.methods.value import scored


@dataclass(frozen=True)
class Blame:
    """Redraw where the verifier finds fault, and leave rows alone in which it finds none.

    Regions are drawn without replacement in proportion to blame + floor; the verifier needs a `blame`.

    Attributes:
        floor: weight of a region without fault, beside 1 of the one most at fault: what is wrong may have its cause
            elsewhere.
    """

    floor: AtLeast0 = 0.1
    nfe = 0

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)

    def chosen(
        self, model: Model, state: State, number: Tensor, round_: int, streams: Streams, verifier: Verifier | None
    ) -> tuple[Tensor, Tensor]:
        """Priorities (B, R), and how many regions (B,) to redraw: `number`, or 0 in rows without fault."""
        blame = (
            blaming(verifier)
            .blame(model.decode(state.x), state.problem)
            .double()
            .to(state.t.device)
            .masked_fill(state.frozen, 0)
        )
        weight = blame / blame.amax(1, keepdim=True).clamp_min(1e-12) + self.floor
        noise = streams.at(state.origin).fold("blame").fold(round_).gumbel(state.t.shape[1:])
        able = ((weight > 0) & state.free).sum(1)  # with floor=0 only regions with fault
        return weight.log() + noise, torch.where((blame > 0).any(1), torch.minimum(number, able), 0)


def blaming(verifier: Any) -> Any:
    """The verifier, or the error that says that it gives no blame."""
    if not getattr(verifier, "blames", hasattr(verifier, "blame")):
        raise RedraftError("select=Blame() needs a verifier that says where the fault is: one with a `blame` method")
    return verifier


@dataclass(frozen=True)
class Metropolis:
    """Accept a redraft with probability min(1, exp((r(new) - r(old)) / alpha)).

    Attributes:
        alpha: temperature of the reward, above 0; near 0 only what is no worse is accepted.
    """

    alpha: Temperature = 0.1
    asks = True

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)

    def cost(self, draft: Draft) -> tuple[int, int]:
        """No network rows, and the verifier rows of the decision about a redraft."""
        return 0, 1 if draft.carry else 2

    def kept(self, model: Model, draft: Draft, new: State, streams: Streams, verifier: Verifier | None) -> Draft:
        """The draft with the new state in the rows that accept it."""
        assert verifier is not None
        old = draft.carry.get("reward")
        old = scored(model, draft.state, verifier) if old is None else old
        moved = (new.x != draft.state.x).flatten(1).any(1)
        reward = old.clone()
        if moved.any():
            reward[moved] = scored(model, new[moved], verifier)
        streams = streams.fold("round").fold(draft.number).fold("accept")
        yes = streams.uniform((1,))[:, 0].log() < (reward - old) / self.alpha
        x = merge(yes[:, None].expand_as(new.t), new.x, draft.state.x)
        kept = torch.where(yes, reward, old)
        return replace(
            draft,
            state=new.to(x, new.t),
            carry={"reward": kept},
            scores={"reward": kept, "accepted": (yes & moved).double()},
        )
