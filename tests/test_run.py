"""The run loop: budgets, batches, interruption, kills, and one sentence for whatever is wrong."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import killed_run
import pytest
import torch
from toys import Toy, toy_problems

import redraft
from redraft import IPR, BestOfN, Budget, Disagreement, Generate, Parallel, RedraftError, Sequential, Sweep, Uncertainty
from redraft.core.counting import CountedModel
from redraft.core.ledger import Ledger
from redraft.core.state import Prediction

QUICK = Sequential(steps_per_region=2)
METHOD = IPR(iterations=5, ratio=0.5, initial=QUICK, refine=QUICK)
GIVEN = [0, 4, 2, 5]  # first drafts of 12, 4, 8, 2 NFE, then 6, 2, 4, 2 an iteration


def go(method=METHOD, model=None, problems=None, **settings):
    return redraft.run(method, model or Toy(), problems or toy_problems(GIVEN), **settings)


# ---- budgets


def test_a_budget_is_a_ceiling_for_each_problem_and_nothing_is_spent_once_no_draft_fits():
    model = Toy()
    result = go(model=model, budget=Budget(nfe=13))
    assert result.ledger.nfe.tolist() == [12, 12, 12, 12]
    assert int(result.ledger.nfe.sum()) == model.rows
    result = go(budget=Budget(nfe=17))
    assert result.ledger.nfe.tolist() == [12, 14, 16, 12]  # rows 1 and 3 have had all their iterations
    last = {int(i): int(n) for i, n in zip(result.trace["problem"], result.trace["draft"], strict=True)}
    assert last == {100: 0, 101: 5, 102: 2, 103: 5}


@pytest.mark.parametrize("nfe", [12, 13, 14, 17, 18, 20, 30, 41, 42, 1000])
@pytest.mark.parametrize("keep", [None, Disagreement()])
def test_a_budgeted_run_ends_with_the_unbudgeted_runs_draft_of_that_many_nfe(nfe, keep):
    method, seen = replace(METHOD, keep=keep), []
    whole = go(method, on_draft=lambda samples, trace: seen.append(samples.clone()))
    spent = torch.stack(list(whole.trace.by_draft("nfe").values()))  # (drafts, P)
    best = (spent <= nfe).sum(0) - 1
    result = go(method, budget=Budget(nfe=nfe))
    assert torch.equal(result.samples, torch.stack(seen)[best, torch.arange(4)])
    assert torch.equal(result.ledger.nfe, spent[best, torch.arange(4)])
    assert (result.ledger.nfe <= nfe).all()


@pytest.mark.parametrize("nfe", [1, 6])
def test_a_budget_too_small_for_some_first_draft_is_one_sentence_and_costs_nothing(nfe):
    model = Toy()
    with pytest.raises(RedraftError, match=f"{nfe} NFE is too small for one draft of problem 10[02], which takes"):
        go(model=model, problems=toy_problems(GIVEN), budget=Budget(nfe=nfe))
    assert model.rows == 0


def test_a_start_is_the_result_where_no_refinement_fits():
    problems = toy_problems(GIVEN)
    result = go(problems=problems, start=problems.x, budget=Budget(nfe=1))
    assert torch.equal(result.samples, problems.x)
    assert result.ledger.nfe.tolist() == [0] * 4
    assert len(result.trace) == 4


def test_the_ledger_counts_what_the_network_saw():
    model = Toy()
    result = go(model=model)
    assert int(result.ledger.nfe.sum()) == model.rows
    assert result.ledger.nfe.tolist() == [12 + 5 * 6, 4 + 5 * 2, 8 + 5 * 4, 2 + 5 * 2]
    assert torch.equal(torch.stack(list(result.trace.by_draft("nfe").values()))[-1], result.ledger.nfe)
    assert not result.interrupted


# ---- the same in every batch


@pytest.mark.parametrize(
    "method",
    [
        METHOD,
        replace(METHOD, keep=Disagreement(draws=2)),
        replace(METHOD, select=Sweep(), initial=Parallel(steps=4)),
        replace(METHOD, select=Uncertainty(), level=0.6, noise="fixed"),
        replace(METHOD, refine=Sequential(4, overlap=0.6, order="random", stochasticity=1.0)),
    ],
    ids=["plain", "keep", "sweep", "uncertainty", "random"],
)
@pytest.mark.parametrize("budget", [None, Budget(nfe=25)])
def test_problems_come_out_the_same_in_any_company(method, budget):
    problems = toy_problems(GIVEN)
    together = go(method, problems=problems, budget=budget, seed=3)
    for rows in ([2], [3, 0], [3, 2, 1, 0]):
        rows = torch.tensor(rows)
        result = go(method, problems=problems[rows], budget=budget, seed=3)
        assert torch.equal(result.samples, together.samples[rows])
        assert torch.equal(result.ledger.nfe, together.ledger.nfe[rows])


def test_another_seed_gives_other_samples_and_the_same_seed_the_same():
    first, again, other = go(seed=1), go(seed=1), go(seed=2)
    assert torch.equal(first.samples, again.samples)
    assert first.trace == again.trace
    free = ~toy_problems(GIVEN).frozen
    assert (first.samples != other.samples)[free].all()


def test_a_run_neither_reads_nor_moves_the_global_generator():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = go()
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(1)
    assert torch.equal(first.samples, go().samples)


def test_the_shipped_network_gives_a_board_alone_what_it_gives_it_in_a_batch():
    from redraft.models.weights import SHIPPED

    if not (SHIPPED / "sudoku" / "model.safetensors").exists():
        pytest.skip("the weights are not trained yet")
    model = redraft.load_model("sudoku", device="cpu")
    problems = redraft.load_task("sudoku").problems(3, difficulty="easy")
    method = IPR(iterations=1, initial=Sequential(steps_per_region=1), refine=Sequential(steps_per_region=2))
    together = go(method, model, problems)
    alone = go(method, model, problems[1:2])
    torch.testing.assert_close(alone.samples, together.samples[1:2], atol=1e-3, rtol=0)
    given = problems.frozen
    assert torch.equal(together.samples[given], problems.x[given])


# ---- interruption


@pytest.mark.parametrize("drafts", [0, 3])
def test_ctrl_c_returns_what_there_is(drafts):
    def stop(samples, trace):
        if int(trace["draft"].max()) == drafts:
            raise KeyboardInterrupt

    result = go(on_draft=stop)
    assert result.interrupted
    assert torch.equal(result.samples, go(replace(METHOD, iterations=drafts)).samples)
    assert int(result.trace["draft"].max()) == drafts


@pytest.mark.parametrize("place", ["evaluate", "on_draft"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError, RedraftError])
def test_a_draft_counts_when_all_of_it_is_recorded(tmp_path, place, error):
    """Whatever ends a run, samples, trace, candidates and checkpoint are of the same drafts."""
    how, calls = BestOfN(4, sampler=Parallel(2)), []

    def fails(*given):
        calls.append(given)
        if len(calls) == 3:
            raise error("halfway")
        return {} if place == "evaluate" else None

    def run(**more):
        return redraft.run(how, Toy(), toy_problems([0, 2]), verifier=lambda x, _: x.flatten(1).sum(1), **more)

    if error is KeyboardInterrupt:
        found = run(checkpoint=tmp_path, **{place: fails})
        assert found.interrupted
    else:
        with pytest.raises(RedraftError, match="halfway") as caught:
            run(checkpoint=tmp_path, **{place: fails})
        found = caught.value.result
    drafts = 2 if place == "evaluate" else 3
    assert found.trace["draft"].unique().tolist() == [*range(drafts)]
    assert found.candidates["draft"].unique().tolist() == [*range(drafts)]
    part = run(on_draft=lambda samples, trace: int(trace["draft"].max()) == drafts - 1)
    assert torch.equal(found.samples, part.samples)
    assert found.candidates == part.candidates
    whole, rest = run(), run(checkpoint=tmp_path, **{place: lambda *given: {} if place == "evaluate" else None})
    assert torch.equal(rest.samples, whole.samples)
    assert rest.trace == whole.trace
    assert rest.candidates == whole.candidates
    assert rest.ledger.totals() == whole.ledger.totals()


def test_an_error_before_the_first_draft_brings_none():
    with pytest.raises(RedraftError, match="evaluate raised ZeroDivisionError: division by zero") as caught:
        go(evaluate=lambda samples, problems: 1 / 0)
    assert caught.value.result is None


def test_ctrl_c_before_the_first_draft_is_ctrl_c():
    class Stopped(Toy):
        def predict(self, state):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(model=Stopped())


def test_ctrl_c_within_a_draft_returns_the_draft_before():
    class Stopped(Toy):
        def predict(self, state):
            if self.calls == 20:
                raise KeyboardInterrupt
            return super().predict(state)

    result = go(model=Stopped())
    drafts = int(result.trace["draft"].max())
    assert result.interrupted
    assert torch.equal(result.samples, go(replace(METHOD, iterations=drafts)).samples)


@pytest.mark.skipif(os.name != "posix", reason="there is no SIGKILL")
def test_a_run_that_was_killed_goes_on_and_ends_like_one_that_was_not(tmp_path, monkeypatch):
    script = Path(killed_run.__file__)
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)], stdout=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        lines = [process.stdout.readline().strip() for _ in range(4)]
        assert lines == ["0", "1", "2", "3"]
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert process.returncode == -signal.SIGKILL
    model = Toy()
    resumed = redraft.run(killed_run.METHOD, model, checkpoint=tmp_path, **killed_run.arguments())
    unbroken = redraft.run(killed_run.METHOD, Toy(), **killed_run.arguments())
    assert 0 < model.rows < int(unbroken.ledger.nfe.sum())
    assert torch.equal(resumed.samples, unbroken.samples)
    assert resumed.trace == unbroken.trace
    assert torch.equal(resumed.ledger.nfe, unbroken.ledger.nfe)


# ---- what users get wrong, and what networks do


class Broken(Toy):
    """A model whose prediction is passed through `harm` from its 5th call on."""

    def __init__(self, harm):
        super().__init__()
        self.harm = harm

    def predict(self, state):
        prediction = super().predict(state)
        return self.harm(prediction) if self.calls >= 5 else prediction


def clean(change):
    return lambda p: replace(p, clean=change(p.clean.clone()))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_network_that_gives_no_numbers_is_named_with_the_problem(value):
    def harm(x):
        x[1, 2, 0] = value
        return x

    with pytest.raises(RedraftError, match="network of 'toy' gave NaN or infinity .first for problem 101"):
        go(model=Broken(clean(harm)), problems=toy_problems([0, 0]))


def test_infinities_of_both_signs_do_not_cancel():
    def harm(x):
        x[0, 0, 0], x[0, 1, 0] = torch.inf, -torch.inf
        return x

    with pytest.raises(RedraftError, match="NaN or infinity"):
        go(model=Broken(clean(harm)))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_an_uncertainty_that_is_no_number_is_refused_too(value):
    """Sorted last, such a region would never start, and its noise would pass for a sample."""

    def harm(prediction):
        prediction.uncertainty[:, 5] = value
        return prediction

    with pytest.raises(RedraftError, match="NaN or infinity"):
        go(model=Broken(harm), problems=toy_problems([0, 0]))


@pytest.mark.parametrize("change", [lambda x: x[..., :1], lambda x: x.flatten(1), lambda x: x[:1]])
def test_a_network_that_gives_another_shape_is_refused(change):
    with pytest.raises(RedraftError, match="'toy' predicted shape .* for values of shape"):
        go(model=Broken(clean(change)))


def test_a_half_precision_batch_may_sum_to_more_than_its_type_holds():
    class Half(Toy):
        def predict(self, state):
            return Prediction(torch.full_like(state.x, 3.0, dtype=torch.float16))

    state = toy_problems([0] * 2000).state()  # 24,000 threes are more than 65,504
    assert (CountedModel(Half(), Ledger(2000)).predict(state).clean == 3).all()


def test_problems_of_another_shape_are_refused():
    with pytest.raises(RedraftError, match=r"values of shape \(5, 2\), but 'toy' works on \(6, 2\)"):
        go(problems=toy_problems(GIVEN, regions=5))


def test_no_problems_are_refused():
    with pytest.raises(RedraftError, match="no problems"):
        redraft.run(METHOD, Toy(), toy_problems(GIVEN)[:0])


def test_a_problem_with_everything_frozen_is_named():
    with pytest.raises(RedraftError, match="problem 101 has every region frozen"):
        go(problems=toy_problems([0, 6, 6]))


@pytest.mark.parametrize("shape", [(3, 6, 2), (4, 6), (4, 6, 3), (6, 2)])
def test_a_start_of_another_shape_is_refused(shape):
    with pytest.raises(RedraftError, match="start has shape"):
        go(start=torch.zeros(shape))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_start_that_is_no_number_is_refused(value):
    start = torch.zeros(4, 6, 2)
    start[2, 1, 0] = value
    with pytest.raises(RedraftError, match="start holds NaN or infinity"):
        go(start=start)


def test_a_start_gets_the_given_regions():
    problems = toy_problems(GIVEN)
    result = go(start=torch.full((4, 6, 2), 7.0), problems=problems, budget=Budget(nfe=1))  # no refinement fits
    assert torch.equal(result.samples[problems.frozen], problems.x[problems.frozen])
    assert (result.samples[~problems.frozen] == 7).all()


def test_a_method_that_does_not_go_on_from_samples_says_so():
    with pytest.raises(RedraftError, match="IPR with these settings does not go on from samples"):
        go(replace(METHOD, iterations=0), start=torch.full((4, 6, 2), 7.0))


def test_on_draft_may_end_a_run_at_the_start():
    drafts = []
    result = go(start=torch.full((4, 6, 2), 7.0), on_draft=lambda samples, trace: drafts.append(len(trace)) or True)
    assert drafts == [4]
    assert result.ledger.nfe.sum() == 0


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        (lambda x, p: {"nfe": torch.zeros(len(x))}, "evaluate gave 'nfe', and the trace has a column of that name"),
        (lambda x, p: {"critic": torch.zeros(len(x))}, "evaluate gave 'critic'"),
        (lambda x, p: {"m": torch.zeros(2)}, r"evaluate gave shape \(2,\) for 'm' of 4 samples"),
        (lambda x, p: {"m": 0.5}, "evaluate gave a float for 'm'"),
    ],
)
def test_metrics_that_are_no_new_column_are_refused(metrics, words):
    with pytest.raises(RedraftError, match=words):
        go(evaluate=metrics)


def test_on_draft_sees_all_problems_and_the_trace_holds_the_metrics():
    shapes = []
    result = go(
        budget=Budget(nfe=17),
        evaluate=lambda samples, problems: {"id": problems.ids, "first": samples[:, 0, 0]},
        on_draft=lambda samples, trace: shapes.append(tuple(samples.shape)),
    )
    assert set(shapes) == {(4, 6, 2)}
    assert torch.equal(result.trace["id"], result.trace["problem"])
    last = result.trace["problem"] == 102
    assert result.trace["first"][last][-1] == result.samples[2, 0, 0]


# ---- imports


def test_importing_redraft_imports_no_heavy_package():
    heavy = ["diffusers", "transformers", "ray", "sklearn", "matplotlib", "pyarrow", "scipy", "pandas"]
    code = f"import sys, redraft; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"method": "ipr"}, "method is 'ipr': give one with its settings"),
        ({"method": IPR}, "method is the class IPR: give one with its settings"),
        ({"model": "python"}, "model is 'python': give what redraft.load_model"),
        ({"problems": ["a"]}, "problems is ..a..: give what task.problems"),
        ({"verifier": "clip"}, r"verifier is 'clip': give a function, or what redraft.load_verifier"),
        ({"budget": 800}, r"budget is 800: give redraft.Budget\(nfe=...\)"),
        ({"seed": 1.5}, "seed is 1.5: it must be a whole number"),
        ({"start": [1]}, "start is .1.: give a tensor of samples"),
    ],
)
def test_arguments_of_another_kind_are_one_sentence(change, words):
    given = {"method": IPR(iterations=1), "model": Toy(), "problems": toy_problems([0])} | change
    with pytest.raises(RedraftError, match=words):
        redraft.run(**given)


@pytest.mark.parametrize(
    ("drafts", "words"), [([], "Own gave no draft"), ([None], "Own gave no draft"), ([3], "Own gave 3")]
)
def test_a_method_without_drafts_says_so(drafts, words):
    class Own(Generate):
        def drafts(self, *given):
            return drafts

    with pytest.raises(RedraftError, match=words):
        redraft.run(Own(Sequential(1)), Toy(), toy_problems([0]))


def test_a_checkpoint_knows_a_function_by_its_code_and_a_plain_method_by_its_settings(tmp_path):
    class Plain:
        def __init__(self, sampler):
            self.inner = BestOfN(2, 1, sampler=sampler)

        def __getattr__(self, name):
            return getattr(vars(self)["inner"], name)

    def again(verifier, steps=1):
        return redraft.run(
            Plain(Sequential(steps)), Toy(), toy_problems([0]), verifier=verifier, checkpoint=tmp_path, progress=False
        )

    first = again(lambda x, _: x.flatten(1).sum(1))
    assert torch.equal(again(lambda x, _: x.flatten(1).sum(1)).samples, first.samples)
    with pytest.raises(RedraftError, match="is from a run with other settings"):
        again(lambda x, _: -x.flatten(1).sum(1))
    with pytest.raises(RedraftError, match="is from a run with other settings"):
        again(lambda x, _: x.flatten(1).sum(1), 2)
