"""Who looks at a run sees how far it is: by a bar, by lines in a pipe, or not at all."""

import re

import pytest
from toys import Toy, toy_problems

import redraft
from redraft import IPR, Budget, Sequential
from redraft.core import progress

METHOD = IPR(iterations=50, refine=Sequential(steps_per_region=2))


def run(**how):
    return redraft.run(METHOD, Toy(), toy_problems([2, 3]), **how)


@pytest.fixture
def bars(monkeypatch):
    """The bars that are drawn."""
    drawn = []

    class Kept(progress.tqdm):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.ends = []
            drawn.append(self)

        def update(self, n=1):
            super().update(n)
            self.ends.append(self.total)

    monkeypatch.setattr(progress, "tqdm", Kept)
    return drawn


def test_a_bar_ends_where_the_budget_does(bars):
    result = run(progress=True, budget=Budget(nfe=60))
    (bar,) = bars
    drafts = len(set(result.trace["draft"].tolist()))
    assert 1 < drafts < 51
    assert bar.n == bar.total == drafts
    assert max(bar.ends) == drafts  # known from the first draft on, as each takes what the method says


def test_a_bar_without_a_budget_ends_with_the_method(bars):
    run(progress=True)
    assert bars[0].n == bars[0].total == 51
    assert set(bars[0].ends) == {51}


def test_a_pipe_gets_a_line_now_and_then_and_one_at_the_end(monkeypatch, capsys):
    monkeypatch.setattr(progress, "EVERY", 0.0)
    run(budget=Budget(nfe=60))
    *lines, last = capsys.readouterr().err.splitlines()
    drafts = len(lines)
    assert [re.match(r"redraft: (\d+) of", line)[1] for line in lines] == [str(i + 1) for i in range(drafts)]
    assert re.fullmatch(rf"redraft: ended after {drafts} of {drafts} drafts, \d+ NFE a problem, \d+ seconds", last)


@pytest.mark.parametrize("wanted", [None, False])
def test_a_short_run_in_a_pipe_and_one_without_progress_say_nothing(bars, capsys, wanted):
    run(progress=wanted)
    assert capsys.readouterr().err == ""
    assert not bars


def test_a_terminal_gets_a_bar(bars, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    run()
    assert len(bars) == 1
