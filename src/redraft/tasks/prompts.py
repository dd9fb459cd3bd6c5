"""Prompts as problems: a text to go on from, a text with gaps, or what a picture is to show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from redraft.core.errors import RedraftError, shown
from redraft.core.fields import Count, taken
from redraft.core.model import Model
from redraft.core.task import Problems

Row = list[int | None]
"""Ids of one problem; None where a token is wanted."""


def prompts(
    model: Model,
    texts: Sequence[Any],
    new_tokens: int | None = None,
    *,
    infill: bool = False,
    chat: bool = False,
    marker: str = "[MASK]",
) -> Problems:
    """One problem for each of `texts`, number i with the id i.

    For a language model the prompts are given and stand on the right of `cond["visible"]` (P, R), which is false at
    padding; new tokens follow, then what the model expects at the end of a text. For a model of pictures all tokens, or
    the latents, are free and `cond` holds what the network is conditioned on: prompts are encoded here, once.

    Args:
        model: what the problems are for.
        texts: prompts; class numbers for a model that is conditioned on classes; for a diffusers pipeline also dicts of
            embeddings (1, ...) by the names of its arguments.
        new_tokens: how many tokens to write after each prompt; by default as many as fit after the longest prompt where
            the model's length is fixed, elsewhere 64, or as many as fit into the model's positions.
        infill: write in place of every `marker` instead, one token each.
        chat: put each prompt into the model's chat template first.
        marker: stands for a token that is wanted, whatever the model's own mask looks like.

    Raises:
        RedraftError: no prompts, a model without a tokenizer, prompts that do not fit or that hold the model's own
            mask, nothing to write, or what to write for a model that writes no text.
    """
    new_tokens, marker = taken("new_tokens", new_tokens, Count | None), taken("marker", marker, str)
    infill, chat = taken("infill", infill, bool), taken("chat", chat, bool)
    _check_list(texts)
    codec: Any = model if hasattr(model, "condition") else getattr(model, "codec", None)
    if hasattr(codec, "condition"):
        if infill or chat or new_tokens is not None:
            raise RedraftError(f"{model.name!r} writes no text after a prompt: leave out new_tokens, infill and chat")
        return _conditioned(model, texts, codec)
    if not hasattr(codec, "encode"):
        raise RedraftError(f"{model.name!r} has no tokenizer, which prompts need")
    if others := [text for text in texts if not isinstance(text, str)]:
        raise RedraftError(f"a prompt is {shown(others[0])}, and {model.name!r} goes on from texts")
    texts = [codec.chat(text) for text in texts] if chat else list(texts)
    before, after = ([], []) if chat else codec.frame
    if infill:
        rows = [[*before, *_with_gaps(text, marker, codec), *after] for text in texts]
    else:
        starts = [[*before, *codec.encode(text)] for text in texts]
        room = _room(model, max(map(len, starts)) + len(after), new_tokens)
        rows = [[*start, *[None] * room, *after] for start in starts]
    _check_rows(model, rows)
    return _padded(model, rows, texts, codec.padding)


def _check_list(texts: Any) -> None:
    if isinstance(texts, str):
        raise RedraftError("prompts are a list of texts: put the one text into brackets")
    if not isinstance(texts, Sequence):
        raise RedraftError(f"prompts is {shown(texts)}: give a list of texts")
    if not len(texts):
        raise RedraftError("there are no prompts")


def _check_rows(model: Any, rows: list[Row]) -> None:
    """Raise unless the rows fit into the model, and their masks are those that are to be filled."""
    longest = max(rows, key=len)
    most, what = _most(model)
    if most is not None and len(longest) > most:
        free = longest.count(None)
        given = f"a prompt of {len(longest) - free:,} tokens + {free:,} to write = {len(longest):,}"
        raise RedraftError(f"{given}, and {model.name!r} {what} {most:,}: shorten the prompt or write less")
    mask = model.convention.mask
    if masked := [number for number, row in enumerate(rows) if mask in row]:
        raise RedraftError(
            f"prompt number {masked[0]} holds the model's own mask (id {mask}), which would stay: leave it out, or "
            "mark what is to be written and give infill=True"
        )


def _most(model: Any) -> tuple[int | None, str]:
    """How many tokens a row may have, and what says so."""
    if model.length is not None:
        return model.length, "works on"
    return getattr(model, "positions", None), "has positions for"


def _conditioned(model: Model, texts: Sequence[Any], codec: Any) -> Problems:
    shape = (len(texts), *(n or 0 for n in model.shape))
    return Problems(
        ids=torch.arange(len(texts)),
        x=torch.zeros(shape, dtype=getattr(model, "dtype", torch.int64)),
        frozen=torch.zeros(shape[:2], dtype=torch.bool),
        cond={key: value.cpu() for key, value in codec.condition(texts).items()},
        facts={"prompt": list(texts)},
    )


def _with_gaps(text: str, marker: str, codec: Any) -> Row:
    """Ids of the text, and None for each marker, which stands for a word with the space before it."""
    first, *others = text.split(marker)
    if not others:
        raise RedraftError(f"there is no {marker} to fill in {text!r}")
    row: Row = [*codec.encode(first.rstrip())]
    for piece in others[:-1]:
        row += [None, *codec.encode(piece.rstrip())]
    return [*row, None, *codec.encode(others[-1])]


def _room(model: Any, given: int, new_tokens: int | None) -> int:
    """How many new tokens each row has, for `given` tokens in the longest."""
    most, what = _most(model)
    if new_tokens is None:
        fits = 64 if most is None else most - given
        new_tokens = fits if model.length is not None else min(fits, 64)
        if new_tokens < 1:
            raise RedraftError(
                f"there is no room for new tokens after a prompt of {given:,} tokens: {model.name!r} {what} {most:,}"
            )
    if new_tokens < 1:
        raise RedraftError(f"new_tokens is {new_tokens}: it must be 1 or more")
    return new_tokens


def _padded(model: Any, rows: list[Row], texts: list[str], padding: int) -> Problems:
    length = model.length or max(map(len, rows))
    full = [[*[padding] * (length - len(row)), *row] for row in rows]
    visible = torch.arange(length) >= length - torch.tensor([len(row) for row in rows])[:, None]
    return Problems(
        ids=torch.arange(len(rows)),
        x=torch.tensor([[model.convention.mask if i is None else i for i in row] for row in full]),
        frozen=torch.tensor([[i is not None for i in row] for row in full]),
        cond={"visible": visible},
        facts={"prompt": texts},
    )
