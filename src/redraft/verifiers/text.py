"""Verifiers of text on `transformers`: any sequence classifier, and perplexity under a causal language model.

They are given token ids, as all verifiers are, and read them as the model that wrote them does:

    toxicity(model, label=0)                   the log-probability that a completion is not toxic
    Classifier("some/checkpoint", "joy", model, judged="all")
    Perplexity(model)

What they judge is what the run wrote, up to its end: without the prompt and without padding (`judged="completion"`);
the prompt with it (`judged="all"`); or what a function `judged(samples, problems)` gives, a list of strings. See
`redraft.core.reading`.

Checkpoints are folders or ids of the hub with weights in safetensors. The named ones are those that FK steering
(Singhal et al. 2025) uses, and after it IterRef and others. Unlike there, nats are nats, and no text is cut but where a
classifier has no positions left: it then sees the end of the text, and says once that it does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from redraft.core.errors import RedraftError, require, unknown
from redraft.core.fields import Count, checks
from redraft.core.reading import Read, Reader, reader
from redraft.core.task import Problems
from redraft.models.hub import pretrained
from redraft.models.weights import pick_device
from redraft.verifiers.words import Words

EMPTY = -20.0  # about the log-probability of being right by chance among half a billion


class Classifier:
    """The log-probability of a label under a sequence classifier, or the output of one without labels (reward models).

    Attributes:
        label: number of the label, or None where there are no labels.
        read: gives the texts that are judged.
        empty: the score of a text without a visible character.
        rows: texts at a time.
    """

    @checks
    def __init__(
        self,
        checkpoint: str,
        label: str | int | None,
        denoiser: Any = None,
        *,
        judged: str | Read = "completion",
        device: str | None = None,
        empty: float = EMPTY,
        rows: Count = 32,
        revision: str | None = None,
    ) -> None:
        """Load the classifier.

        Args:
            checkpoint: folder or hub id of a `...ForSequenceClassification`.
            label: by name or number; None for a classifier with a single output, which then is the score.
            denoiser: the model whose samples are judged, or a function that makes strings of ids (B, R).
            judged: 'completion', 'all' or a function `(samples, problems) -> list[str]`, which needs no denoiser.
            device: such as 'cuda'; a GPU if there is one when not given.
            empty: the score of a text without a visible character.
            rows: texts at a time.
            revision: branch, tag or commit on the hub.

        Raises:
            RedraftError: it cannot be loaded, transformers is missing, there is no such label, or nothing to read by.
        """
        self.read, self.empty, self.rows = reader(denoiser, judged), empty, rows
        self._net, words = _loaded("AutoModelForSequenceClassification", checkpoint, device, revision)
        self.label = label_number(self._net.config, label)
        self._words = Words(words, _positions(words, self._net.config), f"the classifier {checkpoint!r}", "end")

    def __call__(self, samples: Tensor, problems: Problems) -> Tensor:
        """Scores (B,), float64, of token ids (B, R)."""
        texts = self.read(samples, problems)
        return _where_text(texts, lambda some: self._scores([texts[i] for i in some]), self.empty)

    def _scores(self, texts: list[str]) -> Tensor:
        logits: Tensor = self._net(**self._words(texts).to(self._net.device)).logits.double().cpu()
        if self.label is None:
            return logits[:, 0]
        if self._net.config.problem_type == "multi_label_classification":
            return F.logsigmoid(logits[:, self.label])
        return logits.log_softmax(1)[:, self.label]


def toxicity(denoiser: Any = None, label: str | int = 1, **options: Any) -> Classifier:
    """Log-probability that a text is toxic, or with label=0 that it is not. Options as for `Classifier`."""
    return Classifier("s-nlp/roberta_toxicity_classifier", label, denoiser, **options)


def toxicity_held_out(denoiser: Any = None, label: str | int = 1, **options: Any) -> Classifier:
    """Toxicity by another classifier, multilingual, to report beside the one that guides."""
    return Classifier("textdetox/xlmr-large-toxicity-classifier", label, denoiser, **options)


def sentiment(denoiser: Any = None, label: str | int = 2, **options: Any) -> Classifier:
    """Log-probability that a text is positive; label 1 is neutral, 0 negative. Options as for `Classifier`."""
    return Classifier("cardiffnlp/twitter-roberta-base-sentiment", label, denoiser, **options)


def cola(denoiser: Any = None, label: str | int = 1, **options: Any) -> Classifier:
    """Log-probability that a text is acceptable English by CoLA. Options as for `Classifier`."""
    return Classifier("textattack/roberta-base-CoLA", label, denoiser, **options)


def formality(denoiser: Any = None, label: str | int = 1, **options: Any) -> Classifier:
    """Log-probability that a text is formal. Options as for `Classifier`."""
    return Classifier("cointegrated/roberta-base-formality", label, denoiser, **options)


class Perplexity:
    """Minus the mean negative log-likelihood of a text's tokens under a causal model, nats; exp(-score) is perplexity.

    A completion is read after its prompt, whose tokens are not scored: it is p(completion | prompt). The first token of
    all is scored too, after the token that begins a text. Of a text that is longer than the model's context every token
    is scored, with about half a context before it.

    Attributes:
        read: gives the texts that are judged.
        empty: the score of a text without a visible character.
        rows: texts at a time.
    """

    @checks
    def __init__(
        self,
        denoiser: Any = None,
        checkpoint: str = "openai-community/gpt2",
        *,
        judged: str | Read = "completion",
        prompted: bool = True,
        device: str | None = None,
        empty: float = EMPTY,
        rows: Count = 32,
        revision: str | None = None,
    ) -> None:
        """Load the language model; arguments as for `Classifier`, and `prompted`: read completions after their prompts.

        Raises:
            RedraftError: it cannot be loaded, transformers is missing, no token begins its texts, or there is nothing
                to read by.
        """
        self.read, self.empty, self.rows = reader(denoiser, judged), empty, rows
        self._prompts = _prompts(self.read) if prompted else None
        self._net, self._words = _loaded("AutoModelForCausalLM", checkpoint, device, revision)
        self._context = int(getattr(self._net.config, "max_position_embeddings", None) or 1024)
        ids = (self._words.bos_token_id, self._words.eos_token_id)
        begin = next((i for i in ids if i is not None), None)
        if begin is None:
            raise RedraftError(f"the tokenizer of {checkpoint!r} has no token that begins or ends a text")
        self._begin = int(begin)

    def __call__(self, samples: Tensor, problems: Problems) -> Tensor:
        """Scores (B,), float64, of token ids (B, R) of the model whose samples they are."""
        texts = self.read(samples, problems)
        before = self._prompts(samples, problems) if self._prompts else [""] * len(texts)
        score = lambda some: self._scores([before[i] for i in some], [texts[i] for i in some])  # noqa: E731
        return _where_text(texts, score, self.empty)

    def _scores(self, before: Sequence[str], texts: Sequence[str]) -> Tensor:
        given, written = self._tokens(before), self._tokens(texts)
        ids = [first + then for first, then in zip(given, written, strict=True)]
        windows = [
            (row, *window)
            for row, text in enumerate(ids)
            for window in _windows(len(text), self._context, len(given[row]))
        ]
        parts = [[self._begin, *ids[row]][start : stop + 1] for row, start, _, stop in windows]
        new = [first - start for _, start, first, _ in windows]
        total, length = torch.zeros(len(texts), dtype=torch.float64), torch.tensor([len(text) for text in written])
        for at in range(0, len(parts), self.rows):
            rows = torch.tensor([row for row, *_ in windows[at : at + self.rows]])
            total.index_add_(0, rows, self._logp(parts[at : at + self.rows], new[at : at + self.rows]))
        return (total / length).masked_fill(length == 0, self.empty)

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        return list(self._words(list(texts), add_special_tokens=False, verbose=False)["input_ids"])

    def _logp(self, parts: Sequence[list[int]], new: Sequence[int]) -> Tensor:
        """Log-probability (N,) in each part of its tokens after the first, from number `new` of these on."""
        longest = max(map(len, parts))
        x = torch.tensor([[*part, *[0] * (longest - len(part))] for part in parts])
        length = torch.tensor([len(part) for part in parts])[:, None]
        place = torch.arange(longest)
        seen = (place < length).long()
        device = self._net.device
        logits = self._net(input_ids=x.to(device), attention_mask=seen.to(device)).logits[:, :-1].double()
        nll = F.cross_entropy(logits.transpose(1, 2), x[:, 1:].to(device), reduction="none").cpu()
        scored = (place < length - 1) & (place >= torch.tensor(new)[:, None])
        return -(nll * scored[:, :-1]).sum(1)


def _prompts(read: Read) -> Reader | None:
    """What reads the prompts of what is judged, if that is completions."""
    return replace(read, part="prompt") if isinstance(read, Reader) and read.part == "completion" else None


def _windows(tokens: int, context: int, first: int = 0) -> list[tuple[int, int, int]]:
    """Parts of a text of `tokens` tokens, from number `first` on, that fit a context with one token before them.

    Returns:
        (start, first, stop) of each: tokens start..stop - 1 are read after the token before, first..stop - 1 scored.
    """
    found = []
    while first < tokens:
        stop = min(tokens, max(context - 1, first + context // 2))
        found.append((max(0, stop - (context - 1)), first, stop))
        first = stop
    return found


def _where_text(texts: list[str], scores: Callable[[list[int]], Tensor], empty: float) -> Tensor:
    """`scores` of the texts, given by number, that show something, `empty` for the others; (B,) float64."""
    some = [i for i, text in enumerate(texts) if text.strip()]
    found = torch.full((len(texts),), empty, dtype=torch.float64)
    if some:
        with torch.no_grad():
            found[some] = scores(some)
    return found


def _loaded(kind: str, source: str, device: str | None, revision: str | None) -> tuple[Any, Any]:
    """A network of transformers and its tokenizer."""
    require("transformers", "text")
    where = {} if revision is None else {"revision": revision}
    words = pretrained(source, "AutoTokenizer", **where)
    return pretrained(source, kind, **where).to(pick_device(device)), words


def label_number(config: Any, label: str | int | None) -> int | None:
    """The number of a label."""
    if config.num_labels == 1 or label is None:
        if config.num_labels == 1 and label is None:
            return None
        raise RedraftError(
            "this classifier has a single output: give label=None, and it is the score"
            if config.num_labels == 1
            else f"give a label: {', '.join(config.id2label.values())}"
        )
    numbers = {str(name).lower(): number for number, name in config.id2label.items()}
    if isinstance(label, str) and label.lower() not in numbers:
        raise unknown("label", label, config.id2label.values())
    number = numbers[label.lower()] if isinstance(label, str) else label
    if not 0 <= number < config.num_labels:
        raise RedraftError(f"label is {number}: there are {config.num_labels}, from 0 on")
    return int(number)


def _positions(words: Any, config: Any) -> int:
    """The most tokens that a classifier reads; RoBERTa and its kin count positions from behind the padding's id."""
    most = int(getattr(config, "max_position_embeddings", None) or words.model_max_length)
    if "roberta" in config.model_type or config.model_type == "camembert":
        most -= int(config.pad_token_id) + 1
    return min(most, int(words.model_max_length))
