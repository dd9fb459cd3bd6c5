"""Calls to verifiers: batches that fit, the same asked once, failures tried again, errors that name the sample."""

import random
import threading
import time

import numpy as np
import pytest
import tokens
import torch
from toys import Toy, toy_problems

import redraft
from redraft import Budget, Generate, RedraftError, Sequential
from redraft.core import batched as module
from redraft.core.counting import CountedModel, CountedVerifier
from redraft.core.ledger import Ledger
from redraft.core.state import Prediction
from redraft.models.tokens import Convention
from redraft.processes.mask import MaskDiffusion
from redraft.verifiers import Batched, VerifierError


def some(n, first=100):
    """Samples (n, 3) that all differ, and their problems."""
    return torch.arange(3.0 * n).reshape(n, 3), toy_problems([0] * n, first=first)


def total(samples, problems):
    return samples.sum(1) + 1000 * problems.ids


class Recorder:
    """Sums samples and problem ids, keeps the sizes of its batches, and lets `harm` raise."""

    def __init__(self, harm=lambda samples, problems: None, **traits):
        self.sizes, self.harm = [], harm
        vars(self).update(traits)

    def __call__(self, samples, problems):
        self.sizes.append(len(samples))
        self.harm(samples, problems)
        return total(samples, problems)

    def blame(self, samples, problems):
        return self(samples, problems)[:, None].expand(-1, 6)


FULL, WRONG = RuntimeError("CUDA out of memory. Tried to allocate"), ValueError("no such word")


def fits(most, error=FULL):
    def harm(samples, problems):
        if len(samples) > most:
            raise error

    return harm


def chokes_on(value, error=WRONG):
    def harm(samples, problems):
        if (samples == value).any():
            raise error

    return harm


@pytest.fixture
def waits(monkeypatch):
    """The seconds that would have been waited."""
    seconds = []
    monkeypatch.setattr(module.time, "sleep", seconds.append)
    return seconds


# ---- batches


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA out of memory. Tried"), MemoryError(), torch.cuda.OutOfMemoryError("full")]
)
def test_batches_halve_until_they_fit_and_stay_there(error, waits):
    samples, problems = some(21)
    verifier = Recorder(fits(3, error))
    scores = Batched(verifier, retries=5)
    assert torch.equal(scores(samples, problems), total(samples, problems).double())
    assert verifier.sizes[:4] == [21, 11, 6, 3]
    assert max(verifier.sizes[4:]) == 3
    assert sum(verifier.sizes[3:]) == 21
    assert scores.size == 3
    verifier.sizes.clear()
    scores(samples, problems)
    assert verifier.sizes == [3] * 7
    assert not waits  # what is too large is not tried again


def test_the_size_asked_for_is_kept_and_the_order_too():
    samples, problems = some(10)
    verifier = Recorder()
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    scores = Batched(verifier, size=4)(samples[order], problems[order])
    assert torch.equal(scores, total(samples, problems).double()[order])
    assert verifier.sizes == [4, 4, 2]


def test_a_verifier_says_how_many_it_wants_and_the_user_knows_better():
    samples, problems = some(5)
    verifier = Recorder(rows=2)
    Batched(verifier)(samples, problems)
    Batched(verifier, size=5)(samples, problems)
    assert verifier.sizes == [2, 2, 1, 5]


def test_one_sample_that_does_not_fit_is_named():
    samples, problems = some(3)
    with pytest.raises(
        VerifierError, match=r"raised RuntimeError: CUDA out of memory.*sample number 0, for problem 100"
    ):
        Batched(Recorder(fits(0)))(samples, problems)


def test_no_samples_are_no_call():
    verifier = Recorder()
    samples, problems = some(1)
    assert Batched(verifier)(samples[:0], problems[:0]).shape == (0,)
    assert Batched(verifier).blame(samples[:0], problems[:0]).shape == (0, 6)
    assert not verifier.sizes


def test_what_the_verifier_does_to_its_samples_is_its_own_affair():
    samples, problems = some(4)
    for unique in (True, False):
        kept = samples.clone()
        Batched(lambda s, p: s.zero_()[:, 0], unique=unique)(samples, problems)
        assert torch.equal(samples, kept)


def test_numbers_of_python_keep_their_digits():
    samples, problems = some(2)
    assert Batched(lambda s, p: [0.1, 1e-9 + 1])(samples, problems).tolist() == [0.1, 1e-9 + 1]


# ---- the same asked once


def test_equal_samples_of_a_problem_are_scored_once():
    samples, problems = some(4)
    rows, who = torch.tensor([2, 0, 2, 2, 1, 0]), torch.tensor([3, 0, 3, 1, 1, 0])
    verifier = Recorder()
    scores = Batched(verifier)(samples[rows], problems[who])
    assert torch.equal(scores, total(samples[rows], problems[who]).double())
    assert verifier.sizes == [4]
    Batched(verifier, unique=False)(samples[rows], problems[who])
    assert verifier.sizes == [4, 6]


def test_a_blind_verifier_sees_a_sample_once_whatever_the_problem():
    samples, problems = some(3)
    sizes = []

    def blind(s, p):
        sizes.append(len(s))
        return s[:, 0]

    blind.blind = True
    scores = Batched(blind)(samples[[1, 1, 0]], problems)
    assert torch.equal(scores, samples[[1, 1, 0], 0].double())
    assert sizes == [2]


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.bfloat16, torch.float32])
def test_samples_of_any_type_are_told_apart(dtype):
    values = torch.tensor([[0, 1], [1, 0], [0, 1], [1, 1]]).to(dtype)
    first, place = Batched(total).distinct(values, torch.tensor([7, 7, 7, 8]))
    assert first.tolist() == [0, 1, 3]
    assert place.tolist() == [0, 1, 0, 2]


def test_duplicates_are_saved_in_the_ledger_problem_by_problem():
    """What a problem pays does not depend on who else is in the batch, even where a blind verifier is asked once."""
    samples, problems = some(3)
    verifier = Recorder(blind=True, calls_per_row=2)
    rows, who = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([0, 0, 1, 1, 2])
    together, alone = Ledger(3), Ledger(3)
    CountedVerifier(verifier, problems, together)(samples[rows], who)
    assert verifier.sizes == [2]
    assert together.spent["verifier"].tolist() == [2, 4, 2]
    assert together.saved["verifier"].tolist() == [2, 0, 0]
    for problem in range(3):
        mine = who == problem
        CountedVerifier(verifier, problems, alone)(samples[rows[mine]], who[mine])
    assert torch.equal(alone.spent["verifier"], together.spent["verifier"])
    assert torch.equal(alone.saved["verifier"], together.saved["verifier"])


def test_nothing_is_saved_where_each_is_to_be_scored():
    samples, problems = some(2)
    ledger = Ledger(2)
    CountedVerifier(Batched(total, unique=False), problems, ledger)(samples[[0, 0, 0]], torch.tensor([1, 1, 1]))
    assert ledger.verifier_calls.tolist() == [0, 3]


# ---- failures


def test_failures_at_random_are_tried_again_and_nothing_is_lost(waits):
    """One call in twenty raises; no score is missing, wrong or out of place."""
    dice = random.Random(0)
    failed = []

    def harm(samples, problems):
        if dice.random() < 0.05:
            failed.append(len(samples))
            raise ConnectionError("503")

    samples, problems = some(600)
    scores = Batched(Recorder(harm), size=4, retries=3)(samples, problems)
    assert torch.equal(scores, total(samples, problems).double())
    assert len(failed) >= 5
    assert set(waits) <= {1.0, 2.0, 4.0}
    assert len(waits) == len(failed)


def test_waits_double_up_to_a_minute(waits):
    samples, problems = some(1)
    verifier = Recorder(chokes_on(0.0))
    with pytest.raises(VerifierError, match="raised ValueError: no such word"):
        Batched(verifier, retries=8, wait=0.5)(samples, problems)
    assert waits == [0.5, 1, 2, 4, 8, 16, 32, 60]
    assert len(verifier.sizes) == 9


@pytest.mark.parametrize("retries", [0, 2])
def test_the_sample_that_makes_it_raise_is_found(retries, waits):
    samples, problems = some(13)
    verifier = Recorder(chokes_on(3.0 * 9))
    with pytest.raises(VerifierError, match=r"sample number 9, for problem 109\)") as told:
        Batched(verifier, size=8, retries=retries)(samples, problems)
    assert (told.value.row, told.value.problem) == (9, 109)
    assert torch.equal(told.value.sample, samples[9])
    assert isinstance(told.value.__cause__, ValueError)
    assert len(waits) == retries  # the search does not wait again at every step
    assert verifier.sizes == [8] + [5] * (retries + 1) + [3, 2, 1, 1]


def test_the_number_is_that_of_the_caller_though_duplicates_went_before():
    samples, problems = some(4)
    rows = torch.tensor([0, 0, 1, 1, 2, 3])
    with pytest.raises(VerifierError, match="sample number 4, for problem 102"):
        Batched(Recorder(chokes_on(6.0)))(samples[rows], problems[rows])
    with pytest.raises(VerifierError, match="sample number 4, for problem 102"):
        Batched(lambda s, p: torch.where(s[:, 0] == 6, torch.nan, 0.0))(samples[rows], problems[rows])


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_no_number_names_its_sample(value):
    samples, problems = some(7)
    with pytest.raises(VerifierError, match="gave NaN or infinity .sample number 5, for problem 105"):
        Batched(lambda s, p: torch.where(s[:, 0] == 15, value, 0.0), size=3)(samples, problems)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (torch.zeros(3), r"gave shape \(3,\) for 4 samples: \(4,\) is asked for"),
        (torch.zeros(4, 1), r"gave shape \(4, 1\) for 4 samples"),
        (torch.tensor(1.0), r"gave shape \(\) for 4 samples"),
        (None, "gave a NoneType, where numbers"),
        ("good", "gave a str, where numbers"),
        ({"score": 1}, "gave a dict, where numbers"),
        (torch.full((4,), 1j), "gave a complex Tensor, where numbers are asked for"),
        (np.full(4, 1j), "gave a complex ndarray, where numbers"),
        ([np.complex64(1j), 1.0, 1.0, 1.0], "gave a complex list, where numbers"),
        ([torch.tensor(1j)] * 4, "gave a complex list, where numbers"),
        ([1j] * 4, "gave a complex list, where numbers"),
        ([10**400] * 4, "gave a list, where numbers"),
    ],
)
def test_what_is_no_score_for_each_sample_is_one_sentence_and_not_tried_again(answer, sentence, waits):
    samples, problems = some(4)
    with pytest.raises(RedraftError, match=sentence):
        Batched(lambda s, p: answer, retries=3)(samples, problems)
    assert not waits


def test_an_error_of_several_lines_is_told_by_its_first():
    samples, problems = some(1)
    with pytest.raises(VerifierError, match=r"raised ValueError: no such word \(sample number 0, for problem 100\)$"):
        Batched(Recorder(chokes_on(0.0, ValueError("no such word\n  at line 3\n"))))(samples, problems)


def test_a_sentence_for_the_user_is_passed_on_at_once(waits):
    samples, problems = some(4)
    verifier = Recorder(chokes_on(0.0, RedraftError("give it a key")))
    with pytest.raises(RedraftError, match="^give it a key$"):
        Batched(verifier, retries=3)(samples, problems)
    assert verifier.sizes == [4]


def test_ctrl_c_is_no_failure():
    samples, problems = some(4)
    for timeout in (None, 5.0):
        verifier = Recorder(chokes_on(0.0, KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            Batched(verifier, retries=3, timeout=timeout)(samples, problems)
        assert verifier.sizes == [4]


# ---- time-outs


def test_a_call_that_hangs_is_tried_again_and_told_at_last(waits):
    freed = threading.Event()
    samples, problems = some(2)
    verifier = Recorder(lambda s, p: freed.wait(10))
    began = time.perf_counter()
    with pytest.raises(
        VerifierError, match=r"took more than 0.05 seconds on 2 samples from this one on .sample number 0"
    ):
        Batched(verifier, retries=2, timeout=0.05)(samples, problems)
    assert time.perf_counter() - began < 2
    assert verifier.sizes == [2, 2, 2]
    assert waits == [1, 2]
    freed.set()


def test_a_call_that_hung_once_is_forgiven(waits):
    freed, calls = threading.Event(), []

    def harm(samples, problems):
        calls.append(1)
        if len(calls) == 1:
            freed.wait(10)

    samples, problems = some(3)
    scores = Batched(Recorder(harm), retries=1, timeout=0.5)(samples, problems)
    assert torch.equal(scores, total(samples, problems).double())
    freed.set()


def test_a_call_in_time_is_as_without_a_timeout_gradients_included():
    samples, problems = some(3)
    modes = []

    def verifier(s, p):
        modes.append(torch.is_grad_enabled())
        return total(s, p)

    with torch.no_grad():
        assert torch.equal(Batched(verifier, timeout=5)(samples, problems), total(samples, problems).double())
    Batched(verifier, timeout=5)(samples, problems)
    assert modes == [False, True]
    with pytest.raises(VerifierError, match="ValueError: no such word .sample number 2"):
        Batched(Recorder(chokes_on(6.0)), timeout=5)(samples, problems)


# ---- blame


def test_blame_goes_the_way_of_scores():
    samples, problems = some(5)
    verifier = Recorder(fits(2))
    ledger = Ledger(5)
    counted = CountedVerifier(verifier, problems, ledger)
    assert counted.blames
    rows = torch.tensor([0, 0, 1, 2, 3, 4])
    blame = counted.blame(samples[rows], rows)
    assert torch.equal(blame, total(samples, problems).double()[rows][:, None].expand(-1, 6))
    assert ledger.verifier_calls.tolist() == [1] * 5
    assert ledger.saved["verifier"].tolist() == [1, 0, 0, 0, 0]


class Blaming(Recorder):
    def __init__(self, found):
        super().__init__()
        self.found = found

    def blame(self, samples, problems):
        return self.found[: len(samples)]


def test_blame_is_checked():
    samples, problems = some(2)
    found = torch.zeros(2, 6)
    found[1, 3] = -1
    with pytest.raises(VerifierError, match="blamed a region by less than 0 .sample number 1"):
        Batched(Blaming(found)).blame(samples, problems)
    with pytest.raises(VerifierError, match="NaN or infinity .sample number 1"):
        Batched(Blaming(found.sqrt())).blame(samples, problems)
    with pytest.raises(RedraftError, match=r"gave shape \(2, 5\) for 2 samples: \(2, 6\)"):
        Batched(Blaming(found[:, 1:])).blame(samples, problems)


def test_a_verifier_without_blame_says_so_and_costs_nothing():
    samples, problems = some(2)
    ledger = Ledger(2)
    counted = CountedVerifier(total, problems, ledger)
    assert not counted.blames
    with pytest.raises(RedraftError, match="the verifier gives no blame: function"):
        counted.blame(samples, torch.arange(2))
    assert ledger.verifier_calls.tolist() == [0, 0]


# ---- settings


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"size": 0}, "size is 0: it must be a whole number of 1 or more"),
        ({"retries": -1}, "retries is -1"),
        ({"wait": -0.5}, "wait is -0.5"),
        ({"timeout": 0}, "timeout is 0: it must be a number above 0"),
    ],
)
def test_settings_without_a_meaning_are_refused(settings, sentence):
    with pytest.raises(RedraftError, match=sentence):
        Batched(total, **settings)


def test_what_compares_samples_is_never_split():
    def relative(samples, problems):
        sizes.append(len(samples))
        if len(sizes) > 1:
            raise ValueError("why")
        return samples[:, 0] - samples[:, 0].mean()

    sizes, relative.relative = [], True
    samples, problems = some(5)
    with pytest.raises(RedraftError, match="cannot be called in batches"):
        Batched(relative, size=2)
    scores = Batched(relative)
    assert scores(samples, problems).tolist() == [-6, -3, 0, 3, 6]
    with pytest.raises(VerifierError, match="raised ValueError: why on 5 samples from this one on"):
        scores(samples, problems)
    assert sizes == [5, 5]


# ---- in a run


class Scored(Generate):
    """Generates one draft after another and asks for its scores."""

    def drafts(self, model, draft, streams, verifier=None):
        for number in range(4):
            made = next(super().drafts(model, type(draft)(draft.state), streams.fold(number)))
            scores = verifier(model.decode(made.state.x), made.state.problem)
            yield type(draft)(made.state, number, {"reward": scores})


def test_a_verifier_that_fails_in_a_run_is_one_sentence_and_a_checkpoint_goes_on_from_there(tmp_path):
    problems, calls = toy_problems([0, 4, 2]), []

    def flaky(samples, asked):
        calls.append(len(samples))
        if len(calls) >= 3 and 102 in asked.ids and broken:
            raise ConnectionError("the line is dead")
        return samples[:, 0, 0]

    flaky.mark = "flaky"  # whatever it has captured

    def go(**settings):
        return redraft.run(Scored(Sequential(2)), Toy(), problems, verifier=flaky, **settings)

    broken = True
    with pytest.raises(
        RedraftError, match="raised ConnectionError: the line is dead .sample number 2, for problem 102"
    ):
        go(checkpoint=tmp_path)
    broken = False
    whole = go()
    resumed = go(checkpoint=tmp_path, budget=Budget())
    assert torch.equal(resumed.samples, whole.samples)
    assert "reward" in resumed.trace


@pytest.mark.parametrize("unique", [True, False])
def test_other_numbers_of_samples_and_problems_are_one_sentence(unique):
    with pytest.raises(RedraftError, match="there are 3 samples for 2 problems: give one for each"):
        Batched(total, unique=unique)(some(3)[0], some(2)[1])


# ---- models of one's own


class Own:
    """A model of tokens 0 to 2 and the mask 3 that says what it is told to, unless it meets what it cannot read."""

    name, shape, offers, graph = "own", (4,), frozenset({"regions", "tokens"}), None
    process = MaskDiffusion(3)

    def __init__(self, says, **more):
        self.says, self.embed = says, torch.nn.Embedding(4, 1)
        vars(self).update(more)

    def predict(self, state):
        self.embed(state.x)
        return self.says(state)

    def decode(self, x):
        return x


def logits(words, rows=2, regions=4):
    return torch.zeros(rows, regions, words)


def said_of(says, **more):
    state = tokens.problems(2, x=torch.full((2, 4), 3)).state()
    return CountedModel(Own(says, **more), Ledger(2)).predict(state)


@pytest.mark.parametrize(
    ("says", "sentence"),
    [
        (lambda state: logits(3), "'own' predicted Tensor: predict must give redraft's Prediction"),
        (lambda state: None, "'own' predicted NoneType: predict must give"),
        (lambda state: (state.x, logits(3)), "'own' predicted tuple: predict must give"),
        (lambda state: Prediction(None), "'own' predicted one without clean values"),
        (lambda state: Prediction(state.x), "'own' offers 'tokens' and predicted no logits"),
        (lambda state: Prediction(state.x, logits=[1]), "'own' offers 'tokens' and predicted no logits"),
        (
            lambda state: Prediction(state.x, logits=logits(3, regions=5)),
            r"logits of shape \(2, 5, 3\) for tokens of sh",
        ),
        (lambda state: Prediction(state.x, logits=logits(3, rows=1)), r"logits of shape \(1, 4, 3\) for tokens"),
        (lambda state: Prediction(state.x, logits=logits(3)[0]), r"logits of shape \(4, 3\) for tokens"),
        (lambda state: Prediction(state.x, logits=logits(0)), r"logits of shape \(2, 4, 0\) for tokens"),
    ],
)
def test_what_is_no_prediction_is_one_sentence(says, sentence):
    with pytest.raises(RedraftError, match=sentence):
        said_of(says)


def test_a_model_that_states_its_vocabulary_is_held_to_it():
    def says(words):
        return lambda state: Prediction(state.x, logits=logits(words))

    with pytest.raises(RedraftError, match="'own' predicted logits of 5 words, and its vocabulary has 4"):
        said_of(says(5), convention=Convention(4, 3))
    for words in (2, 3, 4):  # logits may leave out what is never drawn
        said_of(says(words), convention=Convention(4, 3))
    said_of(says(5), convention=Convention(5, 3))  # the mask need not be the last


def test_a_word_that_a_model_draws_and_cannot_read_is_one_sentence():
    def says(state):
        return Prediction(state.x, logits=logits(9, len(state)).index_fill(2, torch.tensor([8]), 50.0))

    problems = tokens.problems(2, x=torch.full((2, 4), 3))
    with pytest.raises(
        RedraftError, match="'own' raised IndexError for the tokens 3 to 8: do its logits have more words"
    ):
        redraft.run(Generate(redraft.samplers.Unmask(steps=4)), Own(says), problems)


def test_an_index_error_of_a_model_of_pictures_is_its_own_affair():
    with pytest.raises(RedraftError, match="raised IndexError: list index out of range"):
        said_of(lambda state: [][0], offers=frozenset({"regions"}))


def test_what_is_not_a_number_names_the_problem_by_its_id_where_that_is_known():
    class Half(Toy):
        def predict(self, state):
            clean = super().predict(state).clean
            return Prediction(torch.where(state.problem[:, None, None] == 1, torch.nan, clean))

    problems = toy_problems([0, 0])
    with pytest.raises(RedraftError, match="NaN or infinity .first for problem 101.$"):
        CountedModel(Half(), Ledger(2), problems.ids).predict(problems.state())
    with pytest.raises(RedraftError, match="NaN or infinity .first for problem number 1.$"):
        CountedModel(Half(), Ledger(2)).predict(problems.state())
