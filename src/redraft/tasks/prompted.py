"""Prompts of your own as a task: texts that a language model goes on from, judged by verifiers alone."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from redraft.core.errors import RedraftError
from redraft.core.fields import Count, checked, checks
from redraft.core.model import Model
from redraft.core.task import HowMany, Problems, ProblemSeed, Split, check_samples, origin
from redraft.tasks.prompt_sets import PromptSet, load_prompts
from redraft.tasks.prompts import prompts

SPLITS = {"train": 0, "test": 1}


@dataclass(frozen=True)
class Prompted:
    """Prompts of a file of yours, which a language model goes on from; verifiers judge what it writes.

    Attributes:
        file: that `redraft.tasks.prompt_sets.load_prompts` reads, such as one with a prompt a line.
        kind: of the file; by the name's ending if not given.
        new_tokens: to be written after each prompt.
        chat: put each prompt into the model's chat template first.
        read: what the file holds.
    """

    file: str | None = None
    kind: str | None = None
    new_tokens: Count = 64
    chat: bool = False
    read: PromptSet = field(init=False, repr=False)
    name = "prompts"

    def __post_init__(self) -> None:
        """Read the file.

        Raises:
            RedraftError: none is given, or it holds no prompts; or nothing is to be written.
        """
        checked(self)
        if self.file is None:
            raise RedraftError("the task 'prompts' needs `file`, such as a text with a prompt a line")
        object.__setattr__(self, "read", load_prompts(self.file, self.kind))

    @checks
    def problems(
        self,
        n: HowMany,
        seed: ProblemSeed = 0,
        split: Split = "test",
        model: Model | None = None,
    ) -> Problems:
        """The file's first `n` prompts, in its order.

        Args:
            n: how many; more samples of each come of several seeds of the run.
            seed: makes other ids, and so other random numbers, of the same prompts.
            split: likewise.
            model: the language model that is to go on; without one the prompts are left out, and the problems only
                serve to state costs.

        Raises:
            RedraftError: the file has fewer prompts, or whatever `redraft.prompts` raises.
        """
        if n > len(self.read):
            raise RedraftError(
                f"{self.file} has {len(self.read)} prompts and n is {n}: ask for no more, and for more samples of each "
                "by further seeds"
            )
        ids = (origin(SPLITS[split], seed) << 24) + torch.arange(n)
        if model is None:
            blank = torch.zeros(n, self.new_tokens, dtype=torch.int64)
            return Problems(ids, blank, blank.bool())
        made = prompts(model, self.read.texts[:n], self.new_tokens, chat=self.chat)
        facts = {name: values[:n] for name, values in self.read.facts.items()}
        return replace(made, ids=ids, facts=made.facts | facts)

    def evaluate(self, samples: Tensor, problems: Problems) -> dict[str, Tensor]:
        """No metrics: there is nothing exact to say of a text, see `Experiment.held_out` for verifiers that only look.

        Raises:
            RedraftError: the samples are not the problems'.
        """
        check_samples(samples, problems)
        return {}
