"""What a verifier of text is shown of a sample: what the run wrote of it, or all of it.

    reader(model, "completion")     of a `TokenModel`, up to the first end token that the run wrote
    reader(model, "all")            the prompt and the completion as one text
    reader(model, read)             whatever `read(samples, problems)` gives: a list of strings

No part of a text is padding, at which `problems.cond["visible"]` is false, nor what follows the end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from redraft.core.errors import RedraftError, unknown
from redraft.core.task import Problems, check_samples

Read = Callable[[Tensor, Problems], list[str]]
"""Strings of samples (B, R), one for each of the problems."""
JUDGED = ("completion", "all")


@dataclass(frozen=True)
class Reader:
    """Reads a part of each sample as text.

    A text ends before the first of the `ends` that the run wrote behind all that is given. Where something given stands
    behind something that the run wrote, the problem is a text with gaps: its completion is the whole text, as words out
    of their sentence say nothing, and its prompt is empty.

    Attributes:
        text: strings of ids (B, R), such as a model's `text`.
        part: 'completion', what was written; 'all', with what is given; or 'prompt', what is given before a completion.
        ends: ids that end a text.
        closing: ids that a model expects at the end of a text, which are no text though they are given.
    """

    text: Callable[[Tensor], Any]
    part: str = "completion"
    ends: tuple[int, ...] = ()
    closing: tuple[int, ...] = ()

    def __call__(self, samples: Tensor, problems: Problems) -> list[str]:
        """One string for each of the samples (B, R).

        Raises:
            RedraftError: the samples are not the problems', or they are no texts.
        """
        check_samples(samples, problems)
        samples = samples.cpu()
        return [self._string(row[kept]) for row, kept in zip(samples, self.kept(samples, problems), strict=True)]

    def kept(self, samples: Tensor, problems: Problems) -> Tensor:
        """Which tokens (B, R) of the samples (B, R) are read."""
        frozen = problems.frozen.cpu()
        visible = problems.cond.get("visible", torch.ones_like(frozen)).cpu()
        free, given = visible & ~frozen, visible & frozen
        given &= ~(_among(samples, self.closing) & _behind(free))
        behind = _behind(given)
        text = visible & ((free & behind & _among(samples, self.ends)).cumsum(1) == 0)
        gaps = (free & ~behind).any(1, keepdim=True)
        parts: dict[str, Tensor] = {"completion": text & (free | gaps), "all": text, "prompt": given & ~gaps}
        return parts[self.part]

    def _string(self, ids: Tensor) -> str:
        found = self.text(ids[None])[0] if len(ids) else ""
        if not isinstance(found, str):
            raise RedraftError(f"these samples are no texts but {type(found).__name__}s: take a verifier of those")
        return found


def reader(source: Any, judged: str | Read) -> Read:
    """What reads the samples of `source` for a verifier.

    Args:
        source: the model whose samples they are, for which its own `text` may stand; or a function that makes strings
            of ids (B, R), of which it is not known what ends a text, nor what may stand behind it.
        judged: 'completion' or 'all' (see `Reader`), or a function of one's own, for which no source is needed.

    Raises:
        RedraftError: unknown part, or no such source.
    """
    if callable(judged):
        return judged
    if judged not in JUDGED:
        raise unknown("part of a text", judged, JUDGED)
    model = getattr(source, "__self__", source)
    if hasattr(model, "text"):
        return _of_model(model, judged)
    if not callable(source):
        what = "no model" if source is None else f"a {type(source).__name__}, which writes no text"
        raise RedraftError(f"a verifier of text was given {what}: give the language model whose samples it judges")
    return Reader(source, judged)


def _of_model(model: Any, part: str) -> Reader:
    codec = getattr(model, "codec", None)
    if hasattr(model, "codec") and codec is None:
        raise RedraftError(f"{model.name!r} has no tokenizer, without which its samples are no texts")
    ends = tuple(getattr(getattr(model, "convention", None), "ends", ()))
    _, after = getattr(codec, "frame", ((), ()))
    return Reader(model.text, part, ends, (*ends, *after))


def _among(samples: Tensor, ids: tuple[int, ...]) -> Tensor:
    return torch.isin(samples, torch.tensor(ids, dtype=samples.dtype))


def _behind(where: Tensor) -> Tensor:
    """Places (B, R) behind the last one of each row at which `where` (B, R) is true; all if there is none."""
    left: Tensor = where.flip(1).cumsum(1).flip(1)
    return left == 0
