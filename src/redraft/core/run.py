"""The loop that counts, shows, bounds, records, interrupts and resumes; methods only make drafts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Interval
from torch import Tensor

from redraft.core.batched import Batched
from redraft.core.checkpoint import Checkpoint, Finished
from redraft.core.content import content, marked
from redraft.core.counting import CountedModel, CountedVerifier, decoded
from redraft.core.distinct import warn_of_copies
from redraft.core.errors import RedraftError, asked, shown
from redraft.core.fields import taken
from redraft.core.ledger import Budget, Ledger
from redraft.core.method import Method, settled
from redraft.core.model import Model, device_of
from redraft.core.progress import Progress
from redraft.core.progress import progress as shown_progress
from redraft.core.result import Result, settings_of, texts_of
from redraft.core.state import Draft, merge
from redraft.core.streams import Streams
from redraft.core.task import Problems
from redraft.core.trace import OWN, Trace

Evaluate = Callable[[Tensor, Problems], dict[str, Tensor]]
Scores = Callable[[Tensor, Problems], Tensor]
RunSeed = Annotated[int, Interval(ge=-(2**63), le=2**63 - 1)]
"""What fits the words of a key."""


def run(
    method: Method,
    model: Model,
    problems: Problems,
    *,
    verifier: Scores | None = None,
    budget: Budget | None = None,
    seed: int = 0,
    start: Tensor | None = None,
    evaluate: Evaluate | None = None,
    on_draft: Callable[[Tensor, Trace], bool | None] | None = None,
    checkpoint: str | Path | None = None,
    progress: bool | None = None,
) -> Result:
    """Spend compute on better samples.

    Args:
        method: what to do, such as `redraft.IPR(...)`.
        model: what to do it with, such as `redraft.load_model("sudoku")`.
        problems: what samples are wanted for, P of them.
        verifier: scores samples (P,), higher is better; for methods that ask for one.
        budget: ceiling on what each problem may cost; a draft that would pass it is not begun.
        seed: with a problem's id it fixes all of that problem's randomness, in any batch.
        start: samples (P, ...) to go on from, in place of a first draft; given regions are set to what was given.
        evaluate: metrics to read off every draft into the trace, such as `task.evaluate`; not counted as compute.
        on_draft: called after every draft with the samples so far (P, ...) and the trace; True ends the run.
        checkpoint: folder; a run that was killed and is started again with the same arguments goes on from its last
            finished draft and ends with the same result.
        progress: show a bar, or nothing; by default a bar where a person looks at the terminal, and else a line to
            stderr every 30 seconds.

    Returns:
        The last draft within the budget for every problem, with the trace of all. Ctrl-C ends the run early with the
        drafts there are; `result.interrupted` is then true.

    Raises:
        VerifierError: the verifier failed on a sample.
        RedraftError: the budget is too small for one draft, everything is frozen, the network gives NaN, ...

    Whatever a method, a model, a verifier, `evaluate` or `on_draft` raises has an attribute `result`: all that was
    finished before, or None. A draft counts when all of it is recorded.
    """
    _check_arguments(method, model, problems, verifier, budget, start)
    seed, progress = taken("seed", seed, RunSeed), taken("progress", progress, bool | None)
    checkpoint = taken("checkpoint", checkpoint, Path | None)
    evaluate = taken("evaluate", evaluate, Callable[[Any, Any], Any] | None)
    on_draft = taken("on_draft", on_draft, Callable[[Any, Any], Any] | None)
    _check(model, problems, start)
    method = settled(method, model)
    session = _Session(method, model, problems, verifier, budget or Budget(), seed, evaluate, on_draft)
    store = Checkpoint(checkpoint, session.fingerprint(start)) if checkpoint else None
    try:
        with torch.no_grad():
            session.begin(start, store)
            with closing(shown_progress(progress, session.draft.number + 1, method.total())) as bar:
                session.spend(store, bar)
    except KeyboardInterrupt:
        if session.finished is None:
            raise
        session.interrupted = True
    except Exception as error:
        session.hand(error)
        raise
    finally:
        if store and session.finished and not session.given:
            store.save(session.finished, at_once=True)
    result = session.result()
    warn_of_copies(result.trace, type(method).__name__)
    return result


def _check_arguments(method: Any, model: Any, problems: Any, verifier: Any, budget: Any, start: Any) -> None:
    """Refuse what is of another kind than asked for, before anything is computed."""
    if isinstance(method, type) or not hasattr(method, "drafts"):
        raise RedraftError(f"method is {shown(method)}: give one with its settings, such as redraft.IPR(iterations=6)")
    if isinstance(model, type) or not hasattr(model, "predict"):
        raise RedraftError(f"model is {shown(model)}: give what redraft.load_model(...) gives")
    if not isinstance(problems, Problems):
        raise RedraftError(f"problems is {shown(problems)}: give what task.problems(...) or redraft.prompts(...) gives")
    if verifier is not None and not callable(verifier):
        raise RedraftError(f"verifier is {shown(verifier)}: give a function, or what redraft.load_verifier(...) gives")
    if budget is not None and not isinstance(budget, Budget):
        raise RedraftError(f"budget is {shown(budget)}: give redraft.Budget(nfe=...)")
    if start is not None and not isinstance(start, Tensor):
        raise RedraftError(f"start is {shown(start)}: give a tensor of samples")


def _check(model: Model, problems: Problems, start: Tensor | None) -> None:
    if not len(problems):
        raise RedraftError("there are no problems to run on")
    if not _matches(tuple(problems.x.shape[1:]), tuple(model.shape)):
        raise RedraftError(
            f"the problems have values of shape {tuple(problems.x.shape[1:])}, "
            f"but {model.name!r} works on {tuple(model.shape)}"
        )
    if problems.frozen.all(1).any():
        first = int(problems.ids[problems.frozen.all(1)][0])
        raise RedraftError(f"problem {first} has every region frozen: there is nothing to generate")
    if start is not None:
        clean = asked(f"{model.name!r}, asked to encode `start`,", model.encode, start)
        if clean.shape != problems.x.shape:
            raise RedraftError(f"start has shape {tuple(clean.shape)}, but the problems need {tuple(problems.x.shape)}")
        if not clean.isfinite().all():
            raise RedraftError("start holds NaN or infinity")
        if "tokens" in model.offers and (clean.cpu() == model.process.mask)[~problems.frozen].any():
            raise RedraftError("start holds masks: give finished samples")


def _named(verifier: Scores | None) -> str:
    """What tells a verifier from others: its name, and the mark of all that it holds."""
    inner = verifier.verifier if isinstance(verifier, Batched) else verifier
    return f"{getattr(inner, '__qualname__', type(inner).__qualname__)} {marked('the verifier', inner)}"


def _mark(model: Model, weights: str | None) -> str:
    """What tells a model from others: its own `mark`, or else its `digest` and its network.

    Without a digest the `weights` of a run's settings are that mark, which is read off all weights once.
    """
    own = hasattr(type(model), "mark")
    if own and weights is not None and not getattr(model, "digest", None):
        return weights
    held = model if own else [getattr(model, name, None) for name in ("mark", "digest", "net")]
    return marked(f"the model {model.name!r}", held)


def _matches(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    """Whether `shape` is the wanted one, where None stands for any number."""
    return len(shape) == len(wanted) and all(w is None or w == n for n, w in zip(shape, wanted, strict=True))


def _columns(found: dict[str, Tensor], rows: int, taken: Sequence[str], by: str) -> None:
    """Refuse what is no new column of so many rows."""
    for name, values in found.items():
        if name in taken:
            raise RedraftError(f"{by} gave {name!r}, and the trace has a column of that name: call it something else")
        if not isinstance(values, Tensor) or values.shape != (rows,):
            given = f"shape {tuple(values.shape)}" if isinstance(values, Tensor) else f"a {type(values).__name__}"
            raise RedraftError(f"{by} gave {given} for {name!r} of {rows} samples: one number for each is needed")


def _one_call(model: Model, draft: Draft) -> Tensor:
    """What a draft is taken to ask of a verifier by a method that does not say."""
    return torch.ones(len(draft), dtype=torch.int64)


@dataclass
class _Session:
    """A run under way: the rows still at work, and all that is `finished`, of a draft that was `given` at first."""

    method: Method
    model: Model
    problems: Problems
    verifier: Scores | None
    budget: Budget
    seed: int
    evaluate: Evaluate | None
    on_draft: Callable[[Tensor, Trace], bool | None] | None
    interrupted: bool = False
    ended: bool = False
    given: bool = False
    finished: Finished | None = None
    seconds: float = 0.0
    draft: Draft = field(init=False)
    ledger: Ledger = field(init=False)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All that the outcome depends on besides the problems, as JSON values, looked through once."""
        return settings_of(self.method, self.model, self.budget, self.seed)

    def fingerprint(self, start: Tensor | None) -> dict[str, Any]:
        """What must be equal for a checkpoint to be this run's."""
        given = [self.problems.frozen, self.problems.state().x, self.problems.cond, self.problems.facts]
        return self.settings | {
            "problems": self.problems.ids.tolist(),
            "given": marked("the problems", given),
            "start": None if start is None else content(self.model.encode(start)),
            "verifier": _named(self.verifier),
            "parts": marked("the method", self.method),
            "mark": _mark(self.model, self.settings["weights"]),
        }

    def begin(self, start: Tensor | None, store: Checkpoint | None) -> None:
        """The state before the first draft, or after the last one that a checkpoint holds."""
        state = self.problems.state(device_of(self.model, self.problems.x.device))
        self.draft, self.ledger = Draft(state), Ledger(len(self.problems))
        if store and (saved := store.load(state, self.problems.ids)):
            self.finished, self.draft, self.seconds, self.ledger = saved, saved.draft, saved.seconds, saved.paid.copy()
            self.ended = self._stops()
        elif start is not None:
            x = merge(state.free, self.model.encode(start).to(state.x), state.x)
            self.draft = Draft(state.to(x, torch.zeros_like(state.t)), number=0)
            self.given, self.finished = True, self._recorded(self.draft, {})
            self.ended = self._stops()

    def spend(self, store: Checkpoint | None, bar: Progress) -> None:
        """Make drafts until the method ends or no further one fits the budget."""
        verifier = CountedVerifier(self.verifier, self.problems, self.ledger) if self.verifier else None
        model = CountedModel(self.model, self.ledger, self.problems.ids, verifier)
        streams = Streams.root(self.seed, self.problems.ids.to(self.draft.state.x.device))
        fits = self._fits()
        if self.draft.number < 0 and not fits.all():
            worst = self.draft[~fits][self._most_nfe(self.draft[~fits]).argmax()[None]]
            problem, need = int(self.problems.ids[worst.state.problem[0]]), f"{int(self._most_nfe(worst))} NFE"
            if self.budget.verifier_calls is not None:
                need += f" and {int(self._most_calls(worst))} verifier calls"
            raise RedraftError(
                f"the budget of {self.budget} is too small for one draft of problem {problem}, which takes {need}"
            )
        while fits.any() and not self.ended:
            self.draft = self.draft[fits]
            drafts = iter(self.method.drafts(model, self.draft, streams[self.draft.state.problem], verifier))
            if not self._advance(drafts, store, bar):
                return
            fits = self._fits()

    def _advance(self, drafts: Any, store: Checkpoint | None, bar: Progress) -> bool:
        """Draft until some row's budget ends (True) or the method does (False)."""
        while True:
            began = time.perf_counter()
            draft = next(drafts, None)
            if draft is None:
                if self.given:
                    raise RedraftError(f"{type(self.method).__name__} with these settings does not go on from samples")
                if self.finished is None:
                    raise RedraftError(f"{type(self.method).__name__} gave no draft")
                return False
            if not isinstance(draft, Draft):
                raise RedraftError(f"{type(self.method).__name__} gave {shown(draft)}, where a Draft is asked for")
            self.seconds += time.perf_counter() - began
            self.finished, self.draft, self.given = self._recorded(draft, draft.scores), draft, False
            if store:
                store.save(self.finished)
            last = self._stops()
            bar.tell(draft.number + 1, self._expected(), float(self.ledger.nfe.double().mean()))
            if last or not self._fits().all():
                return not last

    def _fits(self) -> Tensor:
        """Rows (B,) whose next draft stays within the budget."""
        rows = self.draft.state.problem.cpu()
        fits = torch.ones(len(rows), dtype=torch.bool)
        if self.budget.nfe is not None:
            fits &= self.ledger.nfe[rows] + self._most_nfe(self.draft) <= self.budget.nfe
        if self.budget.verifier_calls is not None:
            fits &= self.ledger.verifier_calls[rows] + self._most_calls(self.draft) <= self.budget.verifier_calls
        return fits

    def _expected(self) -> int | None:
        """Drafts in all: of the method, or as many as fit into the budget at the most that the next one can take."""
        rows, more = self.draft.state.problem.cpu(), []
        if self.budget.nfe is not None:
            more.append((self.budget.nfe - self.ledger.nfe[rows]) // self._most_nfe(self.draft).clamp_min(1))
        if self.budget.verifier_calls is not None:
            left = self.budget.verifier_calls - self.ledger.verifier_calls[rows]
            more.append(left // self._most_calls(self.draft).clamp_min(1))
        ends = [] if (total := self.method.total()) is None else [total]
        if more:
            ends.append(self.draft.number + 1 + int(torch.stack(more).amin(0).max()))
        return min(ends, default=None)

    def _most_nfe(self, draft: Draft) -> Tensor:
        """The most evaluations (B,) that the next draft can take, guidance included."""
        return self.method.nfe(self.model, draft).cpu() * getattr(self.model, "nfe_per_row", 1)

    def _most_calls(self, draft: Draft) -> Tensor:
        """The most verifier calls (B,) that the next draft can take."""
        calls: Tensor = getattr(self.method, "verifier_calls", _one_call)(self.model, draft).cpu()
        return calls * getattr(self.verifier, "calls_per_row", 1)

    def _recorded(self, draft: Draft, scores: dict[str, Tensor]) -> Finished:
        """All there is with this draft: what is finished stays as it is meanwhile, whatever fails or interrupts."""
        rows, before = draft.state.problem.cpu(), self.finished
        metrics = self._metrics(draft, rows)
        _columns(scores, len(rows), OWN, type(self.method).__name__)
        _columns(metrics, len(rows), (*OWN, *scores), "evaluate")
        final = before.final.clone() if before else self.problems.state(draft.state.x.device).x.clone()
        final[draft.state.problem] = draft.state.x
        trace = (before.trace if before else Trace()).with_rows(
            problem=self.problems.ids[rows],
            draft=torch.full_like(rows, draft.number),
            nfe=self.ledger.nfe[rows],
            critic=self.ledger.spent["critic"][rows],
            verifier_calls=self.ledger.verifier_calls[rows],
            seconds=torch.full((len(rows),), self.seconds, dtype=torch.float64),
            **scores,
            **metrics,
        )
        candidates = self._collected(before.candidates if before else Trace(), draft)
        return Finished(draft, final, trace, candidates, self.ledger.copy(), self.seconds)

    def _metrics(self, draft: Draft, rows: Tensor) -> dict[str, Tensor]:
        """What is to be read off a draft."""
        known, metrics = getattr(self.model, "log_likelihood", None), dict[str, Tensor]()
        if known or self.evaluate:
            samples = decoded(self.model, draft.state.x)
            metrics |= {"log_likelihood": known(samples)} if known else {}
            metrics |= asked("evaluate", self._evaluated, samples, rows) if self.evaluate else {}
        return metrics

    def _collected(self, before: Trace, draft: Draft) -> Trace:
        """The candidates `before` and those (B, K) that the method has evaluated for a draft."""
        if not draft.candidates:
            return before
        each = next(iter(draft.candidates.values())).shape[1]
        problem = self.problems.ids[draft.state.problem.cpu()].repeat_interleave(each)
        columns = {name: value.flatten() for name, value in draft.candidates.items()}
        return before.with_rows(problem=problem, draft=torch.full_like(problem, draft.number), **columns)

    def _evaluated(self, samples: Tensor, rows: Tensor) -> dict[str, Tensor]:
        found: Any = self.evaluate(samples, self.problems[rows]) if self.evaluate else {}
        if not isinstance(found, dict):
            raise RedraftError(f"evaluate gave {shown(found)}: metrics by name are asked for, such as task.evaluate's")
        return found

    def _stops(self) -> bool:
        """Show the samples so far; whether no more are wanted."""
        if not (self.finished and self.on_draft):
            return False
        return bool(asked("on_draft", self.on_draft, decoded(self.model, self.finished.final), self.finished.trace))

    def hand(self, error: Exception) -> None:
        """Let an error bring along what is finished, if anything is and can be decoded."""
        with suppress(Exception):
            error.result = self.result() if self.finished else None  # type: ignore[attr-defined]

    def result(self) -> Result:
        """All that the run gives back."""
        assert self.finished is not None
        samples = decoded(self.model, self.finished.final)
        return Result(
            samples=samples,
            ids=self.problems.ids,
            trace=self.finished.trace,
            candidates=self.finished.candidates,
            ledger=self.ledger,
            settings=self.settings,
            seconds=self.finished.seconds,
            interrupted=self.interrupted,
            texts=texts_of(self.model, samples, self.problems),
            shows=getattr(self.model, "shows", None),
        )
