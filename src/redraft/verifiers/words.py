"""Tokenizers of networks that read only so much of a text."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redraft.core.content import content


@dataclass
class Words:
    """A tokenizer that cuts off what its network cannot read, and says so the first time.

    Attributes:
        tokenizer: of transformers.
        most: tokens that the network reads, the special ones around a text included.
        who: reads them, in words.
        keeps: 'end' or 'beginning' of a text that is cut.
        said: whether it has been said that one was.
    """

    tokenizer: Any
    most: int
    who: str
    keeps: str = "beginning"
    said: bool = False

    def __post_init__(self) -> None:
        """Tell the tokenizer which side to cut; special tokens stay."""
        self.tokenizer.truncation_side = {"beginning": "right", "end": "left"}[self.keeps]

    @property
    def mark(self) -> str:
        """Tells it from others by all that its words follow from, whoever reads them and whatever was said."""
        return content(self.tokenizer, self.most, self.keeps)

    def __call__(self, texts: Sequence[str], padding: bool | str = True) -> Any:
        """What the network is called with, as tensors."""
        if not self.said:
            self._say(list(texts))
        return self.tokenizer(list(texts), padding=padding, truncation=True, max_length=self.most, return_tensors="pt")

    def _say(self, texts: list[str]) -> None:
        longest = max(map(len, self.tokenizer(texts, verbose=False)["input_ids"]))
        self.said = longest > self.most
        if self.said:
            warnings.warn(
                f"{self.who} reads {self.most} tokens and was given a text of {longest}: of longer ones, this and all "
                f"that follow, it sees the {self.keeps} only",
                stacklevel=2,
            )
