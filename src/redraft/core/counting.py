"""Wrappers that count every row through a network or a verifier, and refuse what is not a number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from redraft.core.batched import Batched
from redraft.core.distinct import prints
from redraft.core.errors import RedraftError, asked, said
from redraft.core.ledger import Ledger
from redraft.core.model import Model
from redraft.core.state import Prediction, State
from redraft.core.task import Problems


class CountedModel:
    """A model whose every `predict` is charged to its rows' problems; all else is the model's own."""

    def __init__(
        self, model: Model, ledger: Ledger, ids: Tensor | None = None, verifier: CountedVerifier | None = None
    ) -> None:
        """Count `model` into `ledger`; a model whose rows cost more than one evaluation says so in `nfe_per_row`.

        Errors name a problem by its id if `ids` (P,) are given, by its number otherwise. The `verifier` is the run's.
        """
        self._model, self._ledger, self._ids, self._verifier = model, ledger, ids, verifier

    def __getattr__(self, name: str) -> Any:
        """Whatever the model has."""
        return getattr(self._model, name)

    def predict(self, state: State) -> Prediction:
        """The model's prediction, counted and checked.

        Of a model of tokens without time input, equal rows are evaluated once: each problem pays for its own different
        rows, whatever else is in the batch, and the others are saved.
        """
        cost = getattr(self._model, "nfe_per_row", 1)
        if "timeless" in self._model.offers:
            return self._predict_distinct(state, cost)
        self._ledger.charge("denoiser", state.problem, cost)
        return self._checked(state)

    def judge(self, name: str, x: Tensor, state: State) -> Tensor:
        """The model's critic on whole proposals `x`, counted as network passes and checked."""
        self._ledger.charge("critic", state.problem)
        judge = self._model.judge  # type: ignore[attr-defined]
        return _sound(name, asked(f"critic {name!r}", judge, name, x, state), x)

    def quality(self, name: str, state: State, prediction: Prediction) -> Tensor:
        """The model's critic on a state, from the denoiser's own pass; checked, and free."""
        quality = self._model.quality  # type: ignore[attr-defined]
        return _sound(name, asked(f"critic {name!r}", quality, name, state, prediction), state.x)

    def decode(self, x: Tensor) -> Tensor:
        """Samples (B, ...) of clean values (B, R, *region), as the model decodes them.

        Raises:
            RedraftError: it fails, or gives no tensor with a sample for each row.
        """
        return decoded(self._model, x)

    def credit(self, problem: Tensor) -> None:
        """Count evaluations of the problems (B,) that a sampler could reuse."""
        self._ledger.credit("denoiser", problem, getattr(self._model, "nfe_per_row", 1))

    def spent(self, problem: Tensor) -> Tensor:
        """NFE (B,) so far of the problems (B,)."""
        return self._ledger.nfe[problem.cpu()]

    def shown(self, problem: Tensor, number: int) -> Tensor:
        """What the run's verifier says of that, see `CountedVerifier.shown`; 0 without one."""
        if self._verifier is None:
            return torch.zeros(len(problem), number, dtype=torch.int64)
        return self._verifier.shown(problem, number)

    def _predict_distinct(self, state: State, cost: int) -> Prediction:
        own = torch.cat([state.problem[:, None].to(state.x), state.x], 1)  # rows of a problem share its condition
        different, equal = _firsts(own)
        self._ledger.charge("denoiser", state.problem[different], cost)
        again = torch.ones(len(state), dtype=torch.bool, device=state.x.device)
        again[different] = False
        self._ledger.credit("denoiser", state.problem[again], cost)
        alike = not state.cond and cost == 1  # guidance hides what is given, which differs between problems
        first, place = _firsts(state.x) if alike else (different, equal)
        if len(first) == len(state):
            return self._checked(state)
        return self._checked(state[first])[place]

    def _checked(self, state: State) -> Prediction:
        prediction = _like(state, self._predicted(state), self._model.name)
        if "tokens" in self._model.offers:
            self._check_logits(prediction.logits, state.x)
        # a maximum over words is NaN if any is, and words that are never drawn are at -inf
        best = prediction.logits.amax(-1) if prediction.logits is not None else None
        for value in (prediction.clean, prediction.uncertainty, prediction.variance, best):
            # a sum is not finite if any of its terms is not, and costs no second tensor
            if value is not None and not value.sum(dtype=torch.float64).isfinite():
                bad = ~value.flatten(1).isfinite().all(1)
                first = int(state.problem[bad][0])
                which = f"number {first}" if self._ids is None else int(self._ids[first])
                raise RedraftError(
                    f"the network of {self._model.name!r} gave NaN or infinity (first for problem {which})"
                )
        return prediction

    def _predicted(self, state: State) -> Prediction:
        """What the model says, if it is a prediction."""
        try:
            prediction: Any = asked(f"the model {self._model.name!r}", self._model.predict, state)
        except RedraftError as error:
            cause = error.__cause__
            if "tokens" not in self._model.offers or not isinstance(cause, IndexError):
                raise
            raise RedraftError(
                f"{self._model.name!r} raised IndexError for the tokens {int(state.x.min())} to {int(state.x.max())}: "
                f"do its logits have more words than it reads? ({said(cause)})"
            ) from cause
        clean = getattr(prediction, "clean", None)
        if not isinstance(prediction, Prediction) or not isinstance(clean, Tensor):
            given = "one without clean values" if isinstance(prediction, Prediction) else type(prediction).__name__
            raise RedraftError(f"{self._model.name!r} predicted {given}: predict must give redraft's Prediction(clean)")
        return prediction

    def _check_logits(self, logits: Tensor | None, x: Tensor) -> None:
        """Raise unless there are logits (B, R, V) for tokens (B, R), of words that the model reads.

        A vocabulary may end with the mask or go on behind it, and logits may leave out what is never drawn: only a
        model that states its vocabulary can be held to it here.
        """
        name, vocabulary = self._model.name, getattr(getattr(self._model, "convention", None), "vocabulary", None)
        if not isinstance(logits, Tensor):
            raise RedraftError(f"{name!r} offers 'tokens' and predicted no logits: give Prediction(clean, logits=...)")
        if logits.ndim != 3 or logits.shape[:2] != x.shape or not logits.shape[2]:
            raise RedraftError(
                f"{name!r} predicted logits of shape {tuple(logits.shape)} for tokens of shape {tuple(x.shape)}: "
                "one number for each word, at each token, is asked for"
            )
        if not logits.is_floating_point() or logits.device != x.device:
            raise RedraftError(
                f"{name!r} predicted logits of {logits.dtype} on {logits.device}: floating-point numbers on "
                f"the tokens' device, {x.device}, are asked for"
            )
        if vocabulary is not None and logits.shape[2] > vocabulary:
            raise RedraftError(
                f"{name!r} predicted logits of {logits.shape[2]} words, and its vocabulary has {vocabulary}"
            )


def decoded(model: Model, x: Tensor) -> Tensor:
    """See `CountedModel.decode`."""
    samples: Any = asked(f"{model.name!r}, asked to decode,", model.decode, x)
    if not isinstance(samples, Tensor) or samples.shape[:1] != x.shape[:1]:
        given = f"shape {tuple(samples.shape)}" if isinstance(samples, Tensor) else f"a {type(samples).__name__}"
        raise RedraftError(f"{model.name!r} decoded {len(x)} rows to {given}: one sample each is asked for")
    return samples


def _like(state: State, prediction: Prediction, name: str) -> Prediction:
    """The prediction, of the precision of the state's values, if its parts are of their shapes, kind and device."""
    x = state.x
    for what, value, shape in (
        ("", prediction.clean, x.shape),
        ("uncertainties of ", prediction.uncertainty, state.t.shape),
        ("variances of ", prediction.variance, x.shape),
    ):
        if value is None:
            continue
        if not isinstance(value, Tensor) or value.shape != shape:
            given = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise RedraftError(f"{name!r} predicted {what}{given} for values of shape {tuple(x.shape)}")
        if value.device != x.device:
            raise RedraftError(f"{name!r} predicted {what}values on {value.device}, and the state is on {x.device}")
    clean = prediction.clean
    if clean.is_complex() or clean.is_floating_point() != x.is_floating_point():
        raise RedraftError(f"{name!r} predicted {clean.dtype}, where the state's values are {x.dtype}")
    return prediction if clean.dtype == x.dtype else replace(prediction, clean=clean.to(x.dtype))


def _sound(name: str, wrong: Any, x: Tensor) -> Tensor:
    """What a critic says of tokens (B, R), if it is a number for each."""
    if not isinstance(wrong, Tensor) or wrong.shape != x.shape:
        given = f"shape {tuple(wrong.shape)}" if isinstance(wrong, Tensor) else f"a {type(wrong).__name__}"
        raise RedraftError(f"critic {name!r} gave {given} for tokens of shape {tuple(x.shape)}")
    if wrong.device != x.device:
        raise RedraftError(f"critic {name!r} gave logits on {wrong.device}, and the tokens are on {x.device}")
    if not wrong.isfinite().all():
        raise RedraftError(f"critic {name!r} gave NaN or infinity")
    return wrong


def _firsts(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Where each different row of `rows` (B, N) stands first (U,), and which of these each row equals (B,)."""
    _, place = torch.unique(rows, dim=0, return_inverse=True)
    first = torch.full((int(place.max()) + 1,), len(rows), device=rows.device)
    first = first.scatter_reduce(0, place, torch.arange(len(rows), device=rows.device), "amin")
    return first, place


class CountedVerifier:
    """A verifier of clean values' samples, charged to their problems and checked; see `Batched` for how it is called.

    Each problem pays for its own different samples of a call, whatever else is in the batch, and the others are saved.
    What is charged is samples, not calls: those that had to be repeated cost no more.
    """

    def __init__(self, verifier: Callable[[Tensor, Problems], Tensor], problems: Problems, ledger: Ledger) -> None:
        """Count `verifier` into `ledger`."""
        self._verifier = verifier if isinstance(verifier, Batched) else Batched(verifier)
        self._problems, self._ledger = problems, ledger
        self._last: tuple[Tensor, Tensor] | None = None

    @property
    def blames(self) -> bool:
        """Whether it says which regions are at fault."""
        return self._verifier.blames

    @property
    def relative(self) -> bool:
        """Whether a score depends on the other samples of the call, and so means nothing beside one of another call."""
        return self._verifier.relative

    @property
    def calls_per_row(self) -> int:
        """What a sample costs."""
        return self._verifier.calls_per_row

    def __call__(self, samples: Tensor, problem: Tensor) -> Tensor:
        """Scores (B,), float64, of samples (B, ...) for the problems numbered `problem` (B,).

        Raises:
            RedraftError: the verifier failed; the sentence names the sample.
        """
        self._count(samples, problem)
        scores = self._verifier(samples, self._problems[problem.cpu()])
        self._last = samples, problem
        return scores

    def shown(self, problem: Tensor, number: int) -> Tensor:
        """The `prints` (P, number) of the last samples of each `problem` (P,) in the last call, then forgotten.

        0 where it had fewer, or where there was no call since this was last asked.
        """
        samples, whose = self._last or (torch.zeros(0), torch.zeros(0))
        self._last, last = None, dict[int, list[int]]()
        for each, one in zip(whose.tolist(), prints(samples).tolist(), strict=True):
            last.setdefault(each, []).append(one)
        rows = [last.get(each, [])[-number:] for each in problem.tolist()]
        return torch.tensor([row if len(row) == number else [0] * number for row in rows], dtype=torch.int64)

    def blame(self, samples: Tensor, problem: Tensor) -> Tensor:
        """How much each region (B, R) is at fault, 0 or more; costs what scores do.

        Raises:
            RedraftError: the verifier failed, or gives no blame.
        """
        if self.blames:
            self._count(samples, problem)
        return self._verifier.blame(samples, self._problems[problem.cpu()])

    def _count(self, samples: Tensor, problem: Tensor) -> None:
        if not len(samples):
            return
        problem, cost = problem.cpu(), self.calls_per_row
        paid = torch.zeros(len(problem), dtype=torch.bool)
        paid[self._verifier.distinct(samples, problem)[0]] = True
        self._ledger.charge("verifier", problem[paid], cost)
        self._ledger.credit("verifier", problem[~paid], cost)
