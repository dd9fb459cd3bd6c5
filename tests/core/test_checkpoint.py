"""Checkpoints: whole or refused."""

import json
import os
import random
import threading
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest
import torch
from harm import flipped
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from toys import Toy, toy_problems

import redraft
from redraft import IPR, BestOfN, Budget, Disagreement, Parallel, RedraftError, Sequential, preset
from redraft.core import checkpoint as module
from redraft.core.checkpoint import Checkpoint
from redraft.core.sealed import seal, unseal
from redraft.models.critic import HeadCritic
from redraft.tasks.markov import Markov
from redraft.verifiers import Batched, WeightedSum

QUICK = Sequential(steps_per_region=2)
GIVEN = [0, 2, 4]


@pytest.fixture(autouse=True)
def every_draft(monkeypatch):
    """Write after every draft, not once in two seconds."""
    monkeypatch.setattr(Checkpoint.__init__, "__defaults__", (0.0,))


def method(**settings):
    return IPR(**{"iterations": 6, "initial": QUICK, "refine": QUICK} | settings)


def stop_after(drafts):
    def stop(samples, trace):
        if int(trace["draft"].max()) == drafts:
            raise KeyboardInterrupt

    return stop


def begun(folder, drafts=3, **settings):
    """A run that was interrupted in its draft number `drafts`, of which the one before is on disk."""
    settings = {"problems": toy_problems(GIVEN), "seed": 2} | settings
    how = settings.pop("method", method())
    run = redraft.run(how, Toy(), checkpoint=folder, on_draft=stop_after(drafts), **settings)
    assert run.interrupted
    assert (folder / "run.safetensors").exists()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"method": method(keep=Disagreement())},
        {"budget": Budget(nfe=30)},
        {"evaluate": lambda samples, problems: {"first": samples[:, 0, 0], "ok": samples[:, 0, 0] > 0}},
        {"start": toy_problems(GIVEN, first=7).x},
    ],
    ids=["plain", "with memory", "with a budget that ends rows early", "with metrics", "with a start"],
)
def test_a_run_goes_on_where_it_was_stopped(tmp_path, settings):
    settings = {"problems": toy_problems(GIVEN), "seed": 2} | settings
    how = settings.pop("method", method())
    unbroken = redraft.run(how, Toy(), **settings)
    begun(tmp_path, method=how, **settings)
    model = Toy()
    resumed = redraft.run(how, model, checkpoint=tmp_path, **settings)
    assert 0 < model.rows < int(unbroken.ledger.nfe.sum())
    assert torch.equal(resumed.samples, unbroken.samples)
    assert resumed.trace == unbroken.trace
    assert resumed.ledger.totals() == unbroken.ledger.totals()
    assert resumed.seconds > 0


def test_a_finished_run_started_again_spends_nothing(tmp_path):
    first = redraft.run(method(), Toy(), toy_problems(GIVEN), checkpoint=tmp_path)
    model = Toy()
    again = redraft.run(method(), model, toy_problems(GIVEN), checkpoint=tmp_path)
    assert model.rows == 0
    assert torch.equal(again.samples, first.samples)
    assert again.trace == first.trace


def test_nothing_but_the_whole_file_is_left(tmp_path):
    redraft.run(method(), Toy(), toy_problems(GIVEN), checkpoint=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["run.safetensors"]


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 3},
        {"method": method(ratio=0.5)},
        {"method": method(refine=Sequential(steps_per_region=3))},
        {"budget": Budget(nfe=10**6)},
        {"problems": toy_problems(GIVEN, first=101)},
        {"problems": toy_problems([0, 2])},
        {"start": toy_problems(GIVEN).x},
        {"problems": toy_problems([0, 2, 3])},
    ],
    ids=["seed", "ratio", "sampler", "budget", "ids", "number of problems", "start", "givens"],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, other):
    begun(tmp_path)
    settings = {"method": method(), "problems": toy_problems(GIVEN), "seed": 2} | other
    with pytest.raises(RedraftError, match="is from a run with other settings"):
        redraft.run(model=Toy(), checkpoint=tmp_path, **settings)


def rerun(folder):
    return redraft.run(method(), Toy(), toy_problems(GIVEN), seed=2, checkpoint=folder)


@pytest.mark.parametrize("harm", ["garbage", "cut", "empty"])
def test_a_damaged_checkpoint_is_one_sentence(tmp_path, harm):
    begun(tmp_path)
    path = tmp_path / "run.safetensors"
    whole = path.read_bytes()
    path.write_bytes({"garbage": b"x" * 1000, "cut": whole[:-10], "empty": b""}[harm])
    with pytest.raises(RedraftError, match="is damaged; delete it to start over"):
        rerun(tmp_path)


def test_no_flipped_bit_changes_a_run_silently(tmp_path):
    begun(tmp_path)
    path = tmp_path / "run.safetensors"
    whole, draw = path.read_bytes(), random.Random(0)
    for place in (draw.randrange(8 * len(whole)) for _ in range(60)):
        path.write_bytes(flipped(whole, place))
        with pytest.raises(RedraftError, match="is damaged; delete it to start over"):
            rerun(tmp_path)


def first(**forged):
    return lambda tensors: tensors | {name: change(tensors[name]) for name, change in forged.items()}


FORGED = {
    "rows repeated": first(rows=lambda v: v[[0, 0, 1]]),
    "rows missing": first(rows=lambda v: v[:2]),
    "rows beyond": first(rows=lambda v: v + 1),
    "rows negative": first(rows=lambda v: v - 1),
    "rows of no numbers": first(rows=lambda v: v.double()),
    "final nan": first(final=lambda v: v.index_fill(0, torch.tensor([1]), torch.nan)),
    "final of fewer": first(final=lambda v: v[:2]),
    "final of another type": first(final=lambda v: v.double()),
    "spent negative": first(**{"spent.denoiser": lambda v: -v}),
    "spent of fewer": first(**{"spent.denoiser": lambda v: v[:2]}),
    "no spent": lambda tensors: {k: v for k, v in tensors.items() if not k.startswith("spent")},
    "no trace": lambda tensors: {k: v for k, v in tensors.items() if not k.startswith("trace")},
    "a trace of fewer": lambda tensors: {k: v[:-1] if k.startswith("trace") else v for k, v in tensors.items()},
    "a column of fewer": first(**{"trace.nfe": lambda v: v[:-1]}),
    "a count negative": first(**{"trace.nfe": lambda v: -v}),
    "a draft beyond": first(**{"trace.draft": lambda v: v + 1}),
    "another problem": first(**{"trace.problem": lambda v: v + 1}),
    "a carry of fewer": lambda tensors: {k: v[:2] if k.startswith("carry") else v for k, v in tensors.items()},
    "an unknown group": lambda tensors: tensors | {"other.a": torch.zeros(3)},
}


@pytest.mark.parametrize("forged", FORGED)
def test_tensors_that_cannot_be_of_the_run_are_refused_though_their_checksum_fits(tmp_path, forged):
    how = method(keep=Disagreement())
    begun(tmp_path, method=how)
    path = tmp_path / "run.safetensors"
    tensors, about = unseal(path)
    assert any(name.startswith("carry") for name in tensors)
    seal(path, FORGED[forged](tensors), about)
    with pytest.raises(RedraftError, match="is damaged; delete it to start over"):
        redraft.run(how, Toy(), toy_problems(GIVEN), seed=2, checkpoint=tmp_path)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        *(("number", text) for text in ("-1", "1.5", "true", "[]", "9")),
        *(("seconds", t) for t in ("-1.0", "NaN", "[]")),
    ],
)
def test_numbers_that_cannot_be_of_the_run_are_refused_though_their_checksum_fits(tmp_path, name, number):
    begun(tmp_path)
    tensors, about = unseal(tmp_path / "run.safetensors")
    seal(tmp_path / "run.safetensors", tensors, about | {name: number})
    with pytest.raises(RedraftError, match="is damaged; delete it to start over"):
        rerun(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: {k: v for k, v in tensors.items() if not k.startswith("carry")},
        lambda tensors: tensors | {"carry.x": tensors["rows"].clone()},
        first(final=lambda v: v + 1e-3),
    ],
    ids=["no carry", "another carry", "other samples"],
)
def test_tensors_of_another_checksum_are_refused(tmp_path, change):
    how = method(keep=Disagreement())
    begun(tmp_path, method=how)
    path = tmp_path / "run.safetensors"
    with safe_open(path, "pt") as file:
        about = file.metadata()
    save_file(change(load_file(path)), path, about)
    with pytest.raises(RedraftError, match="delete it to start over: its checksum does not fit what it holds"):
        redraft.run(how, Toy(), toy_problems(GIVEN), seed=2, checkpoint=tmp_path)


def test_a_checkpoint_without_a_checksum_is_refused(tmp_path):
    begun(tmp_path)
    path = tmp_path / "run.safetensors"
    tensors, about = unseal(path)
    save_file(tensors, path, about)
    with pytest.raises(RedraftError, match="delete it to start over: it has no checksum, as those of an older version"):
        rerun(tmp_path)


@pytest.mark.parametrize(
    "make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "folder", "device"]
)
def test_a_pipe_a_folder_or_a_device_in_its_place_is_one_sentence(tmp_path, make):
    make(tmp_path / "run.safetensors")
    with pytest.raises(RedraftError, match="run.safetensors is damaged; delete it"):
        rerun(tmp_path)


@pytest.mark.parametrize("about", [None, {"fingerprint": "ours"}, {"other": "x"}])
def test_another_safetensors_in_its_place_is_one_sentence(tmp_path, about):
    begun(tmp_path)
    path = tmp_path / "run.safetensors"
    if about and "fingerprint" in about:
        with safe_open(path, "pt") as file:
            about = {"fingerprint": file.metadata()["fingerprint"]}
    save_file({"weight": torch.zeros(3)}, path, about)
    with pytest.raises(RedraftError, match="run.safetensors"):
        rerun(tmp_path)


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_spent(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        model = Toy()
        with pytest.raises(RedraftError, match="cannot be written"):
            redraft.run(method(), model, toy_problems(GIVEN), checkpoint=folder)
        assert model.rows == 0


def test_a_metric_may_have_a_dot_in_its_name(tmp_path):
    settings = {"evaluate": lambda samples, problems: {"board.ok": samples[:, 0, 0]}}
    begun(tmp_path, **settings)
    resumed = redraft.run(method(), Toy(), toy_problems(GIVEN), seed=2, checkpoint=tmp_path, **settings)
    assert resumed.trace == redraft.run(method(), Toy(), toy_problems(GIVEN), seed=2, **settings).trace


def test_two_metrics_may_be_one_tensor(tmp_path):
    def evaluate(samples, problems):
        ok = samples[:, 0, 0].clone()
        return {"a": ok, "b": ok}

    begun(tmp_path, evaluate=evaluate)
    resumed = redraft.run(method(), Toy(), toy_problems(GIVEN), seed=2, checkpoint=tmp_path, evaluate=evaluate)
    assert torch.equal(resumed.trace["a"], resumed.trace["b"])


def test_writes_are_not_more_often_than_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(Checkpoint.__init__, "__defaults__", (1000.0,))
    writes = []
    monkeypatch.setattr(module, "seal", lambda *given: writes.append(1) or seal(*given))
    redraft.run(method(), Toy(), toy_problems(GIVEN), checkpoint=tmp_path)
    assert len(writes) == 2  # after the first draft and at the end


def test_ctrl_c_and_the_end_write_what_there_is(tmp_path, monkeypatch):
    """Whatever the time since the last write; a draft that was begun costs nothing."""
    monkeypatch.setattr(Checkpoint.__init__, "__defaults__", (1000.0,))
    whole = redraft.run(method(), Toy(), toy_problems(GIVEN))
    calls = []

    def predict(self, state):
        calls.append(1)
        if len(calls) == 20:
            raise KeyboardInterrupt
        return Toy.predict(self, state)

    cut = redraft.run(method(), type("Cut", (Toy,), {"predict": predict})(), toy_problems(GIVEN), checkpoint=tmp_path)
    assert cut.interrupted
    saved = load_file(tmp_path / "run.safetensors")
    assert saved["trace.draft"].tolist() == cut.trace["draft"].tolist()
    assert saved["trace.draft"].max() > 0
    again = redraft.run(method(), Toy(), toy_problems(GIVEN), checkpoint=tmp_path)
    assert torch.equal(again.samples, whole.samples)
    assert again.trace == whole.trace
    assert again.ledger.totals() == whole.ledger.totals()
    calls.clear()
    redraft.run(method(), type("Cut", (Toy,), {"predict": predict})(), toy_problems(GIVEN), checkpoint=tmp_path)
    assert not calls


def test_a_run_that_was_ended_by_on_draft_is_ended_when_it_goes_on(tmp_path):
    def enough(samples, trace):
        return int(trace["draft"].max()) == 1

    first, again = (
        redraft.run(method(), Toy(), toy_problems(GIVEN), checkpoint=tmp_path, on_draft=enough) for _ in range(2)
    )
    assert first.trace["draft"].max() == 1
    assert torch.equal(again.samples, first.samples)
    assert again.trace == first.trace


def test_the_fingerprint_is_readable(tmp_path):
    store = Checkpoint(tmp_path, {"b": 1, "a": [2]})
    assert json.loads(store.fingerprint) == {"a": [2], "b": 1}
    assert store.load(toy_problems(GIVEN).state(), toy_problems(GIVEN).ids) is None


@dataclass(frozen=True)
class Sum:
    """A verifier with a setting."""

    sign: float = 1.0

    def __call__(self, samples, problems):
        return self.sign * samples.double().flatten(1).sum(1)


def mean(samples, problems):
    return samples.double().flatten(1).mean(1)


class Weighing:
    """A verifier that is no dataclass, with a network and settings."""

    def __init__(self, weight, words=("good",)):
        self.net, self.words = torch.nn.Linear(2, 1, bias=False), words
        self.net.weight.data = torch.tensor([[1.0, weight]])

    def __call__(self, samples, problems):
        return self.net(samples.float()).detach().flatten(1).sum(1)


def times(factor):
    return lambda samples, problems: factor * samples.flatten(1).sum(1)


def weighed(weights, samples, problems):
    return (weights * samples).flatten(1).sum(1)


VERIFIERS = {
    "networks": (lambda: Weighing(1.0), Weighing(1.0 + 1e-6)),
    "settings that are no numbers": (lambda: Weighing(1.0), Weighing(1.0, ("bad",))),
    "closures": (lambda: times(1.0), times(2.0)),
    "partials": (
        lambda: partial(weighed, torch.tensor([1.0, 2.0])),
        partial(weighed, torch.tensor([1.0, 3.0])),
    ),
    "sums": (lambda: WeightedSum({"a": (times(1.0), 1.0)}), WeightedSum({"a": (times(1.0), 2.0)})),
    "batched": (lambda: Batched(times(1.0), size=2), Batched(times(2.0), size=2)),
}


@pytest.mark.parametrize("kind", VERIFIERS)
def test_a_verifier_is_known_by_all_that_it_holds(tmp_path, kind):
    make, other = VERIFIERS[kind]

    def run(verifier):
        how = BestOfN(3, sampler=Parallel(2))
        return redraft.run(how, Toy(), toy_problems(GIVEN), verifier=verifier, checkpoint=tmp_path)

    first = run(make())
    assert torch.equal(run(make()).samples, first.samples)  # made anew
    with pytest.raises(RedraftError, match=r"is from a run with other settings \(verifier\): delete it"):
        run(other)


def test_a_verifier_without_content_is_refused_unless_it_says_its_mark(tmp_path):
    def run(**settings):
        return redraft.run(BestOfN(2, sampler=Parallel(2)), Toy(), toy_problems(GIVEN), verifier=locked, **settings)

    locked = Weighing(1.0)
    locked.lock = threading.Lock()
    run()
    with pytest.raises(
        RedraftError, match="the verifier holds a _thread.lock, .*: give it an attribute `mark`, a text"
    ):
        run(checkpoint=tmp_path)
    locked.mark = "weighing by 1"
    run(checkpoint=tmp_path)


@pytest.mark.parametrize("place", ["cond", "facts"])
@pytest.mark.parametrize(
    ("one", "other"),
    [(["a cat"] * 3, ["a cat", "a dog", "a cat"]), ([np.zeros(3)] * 3, [np.zeros(3)] * 2 + [np.ones(3)])],
    ids=["texts", "arrays"],
)
def test_problems_are_known_by_all_that_they_hold(tmp_path, place, one, other):
    def run(values):
        problems = replace(toy_problems(GIVEN), **{place: {"about": values}})
        return redraft.run(method(), Toy(), problems, checkpoint=tmp_path)

    first = run(one)
    assert torch.equal(run([*one]).samples, first.samples)
    with pytest.raises(RedraftError, match=r"other settings \(given\)"):
        run(other)


def test_a_method_is_known_by_what_its_words_do_not_say(tmp_path):
    @dataclass(frozen=True)
    class Own:
        table: torch.Tensor
        inner: IPR = method()

        def __getattr__(self, name):
            return getattr(object.__getattribute__(self, "inner"), name)

    tables = [torch.zeros(5000), torch.zeros(5000)]
    tables[1][2500] = 1
    redraft.run(Own(tables[0]), Toy(), toy_problems(GIVEN), checkpoint=tmp_path)
    with pytest.raises(RedraftError, match=r"other settings \(parts\)"):
        redraft.run(Own(tables[1]), Toy(), toy_problems(GIVEN), checkpoint=tmp_path)


def test_a_model_of_ones_own_is_known_by_its_network(tmp_path):
    def run(weight):
        model = Toy()
        model.net = torch.nn.Linear(1, 1, bias=False)
        model.net.weight.data.fill_(weight)
        return redraft.run(method(), model, toy_problems(GIVEN), checkpoint=tmp_path)

    run(1.0)
    run(1.0)
    with pytest.raises(RedraftError, match=r"other settings \(mark\)"):
        run(1.0 + 1e-6)


@pytest.mark.parametrize("other", [Sum(-1.0), mean])
def test_a_checkpoint_of_a_run_with_another_verifier_is_refused(tmp_path, other):
    how = BestOfN(5, sampler=Parallel(2))
    stopped = redraft.run(how, Toy(), toy_problems(GIVEN), verifier=Sum(), checkpoint=tmp_path, on_draft=stop_after(2))
    assert stopped.interrupted
    with pytest.raises(RedraftError, match="is from a run with other settings"):
        redraft.run(how, Toy(), toy_problems(GIVEN), verifier=other, checkpoint=tmp_path)
    rest = redraft.run(how, Toy(), toy_problems(GIVEN), verifier=Sum(), checkpoint=tmp_path)
    assert torch.equal(rest.samples, redraft.run(how, Toy(), toy_problems(GIVEN), verifier=Sum()).samples)


def test_a_checkpoint_of_a_run_with_another_critic_or_chain_is_refused(tmp_path):
    def run(critic, seed=0, **more):
        task = Markov(length=8, chain_seed=seed)
        model = task.model.with_critic("star", critic)
        return redraft.run(IPR(3, refine=preset("ancestral", steps=4), initial=preset("ancestral", steps=4)), model,
                           task.problems(2), checkpoint=tmp_path, **more)  # fmt: skip

    torch.manual_seed(0)
    first, second = HeadCritic(4, 7), HeadCritic(4, 7)
    second.linear.weight.data.add_(1.0)
    run(first, on_draft=stop_after(1))
    for other in ({"critic": second}, {"critic": first, "seed": 1}):
        with pytest.raises(RedraftError, match="is from a run with other settings"):
            run(**other)
    run(first)
