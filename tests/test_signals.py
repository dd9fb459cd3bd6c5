"""SIGTERM and SIGHUP are taken as Ctrl-C: what is finished is kept, workers end, the exit code says which it was."""

import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
from processes import marked
from toys import Toy, toy_problems

import redraft
from redraft import IPR, Result, Sequential
from redraft.cli import main
from redraft.core.run import _Session
from redraft.core.sealed import unseal
from redraft.core.signals import ending, held, kept
from redraft.models.nets.board import BoardNet
from redraft.models.nets.transformer import Transformer
from redraft.models.weights import save_network

pytestmark = pytest.mark.skipif(os.name != "posix", reason="there are no such signals")
BOTH = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])


@pytest.fixture(autouse=True)
def plain():
    """As a program begins, whatever the tests were started under; and handlers are put back."""
    numbers = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in numbers.items()}
    yield
    assert {number: signal.signal(number, handler) for number, handler in before.items()} == numbers


@BOTH
def test_the_first_interrupts_and_the_second_ends_the_program(number):
    def body(came):
        try:
            signal.raise_signal(number)
        finally:
            assert signal.getsignal(number) is signal.SIG_DFL
            assert came == [number]

    with pytest.raises(KeyboardInterrupt), ending() as came:
        body(came)


def test_what_is_ignored_or_handled_by_another_stays():
    seen = []
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *given: seen.append(given))
    with ending() as came:
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGTERM)
    assert (came, len(seen)) == ([], 1)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_outside_the_main_thread_nothing_is_touched():
    def body():
        with ending(), held(lambda: True), kept():
            seen.append(signal.getsignal(signal.SIGTERM))

    seen = []
    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert seen == [signal.SIG_DFL]


@BOTH
def test_what_is_held_is_told_once_and_the_second_interrupts(number):
    def body(came):
        with held(lambda: True) as asked:
            signal.raise_signal(number)
            assert (asked, came) == ([number], [number])
            signal.raise_signal(signal.SIGINT)
            pytest.fail("the second did not interrupt")

    with ending() as came, pytest.raises(KeyboardInterrupt):
        body(came)


def test_what_is_held_and_not_worth_saving_interrupts_at_once():
    def body():
        with held(lambda: False):
            signal.raise_signal(signal.SIGTERM)
            pytest.fail("it did not interrupt")

    with ending() as came, pytest.raises(KeyboardInterrupt):
        body()
    assert came == [signal.SIGTERM]


def test_handlers_are_kept_from_a_library():
    with kept():
        signal.signal(signal.SIGTERM, lambda *given: None)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_library_user_gets_what_is_finished():
    how, problems = IPR(iterations=3, initial=Sequential(1), refine=Sequential(1)), toy_problems([0, 2])

    def stop(samples, trace):
        if int(trace["draft"].max()) == 1:
            signal.raise_signal(signal.SIGTERM)

    with ending() as came:
        result = redraft.run(how, Toy(), problems, on_draft=stop)
    assert came == [signal.SIGTERM]
    assert result.interrupted
    assert int(result.trace["draft"].max()) == 1


@pytest.fixture(scope="module")
def boards(tmp_path_factory):
    """A folder with a network of random weights."""
    folder = tmp_path_factory.mktemp("boards")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_network(
            BoardNet(width=8, message=4, hidden=8, layers=1, passes=1, cell=16), folder, "", {"model": "sudoku"}
        )
    return str(folder)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_sample_that_was_ended_goes_on_with_the_same_command(boards, tmp_path, monkeypatch, capsys, number, code):
    def argv(folder):
        options = ["--model", boards, "--n", "2", "--difficulty", "easy", "--out", str(tmp_path / folder)]
        options += ["--checkpoint", str(tmp_path / folder / "c")]
        return ["sample", *options, "ipr", "--iterations", "3", "refine:parallel", "--refine.steps", "2"]

    stops = _Session._stops
    with monkeypatch.context() as patch:
        patch.setattr(
            _Session,
            "_stops",
            lambda me: stops(me) or me.finished.draft.number == 1 and signal.raise_signal(number),
        )
        assert main(argv("cut")) == code
    assert "redraft: interrupted" in capsys.readouterr().err
    part = Result.load(tmp_path / "cut")
    assert part.interrupted
    assert int(part.trace["draft"].max()) == 1
    assert main(argv("cut")) == main(argv("whole")) == 0
    rest, whole = Result.load(tmp_path / "cut"), Result.load(tmp_path / "whole")
    assert torch.equal(rest.samples, whole.samples)
    assert rest.trace == whole.trace


# ---- real processes


def begun(*argv, **environment):
    command = [sys.executable, "-m", "redraft.cli", *map(str, argv)]
    more = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)} | environment
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ | more)


def within(seconds, holds):
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_run_and_a_training_in_processes_of_their_own_save_what_they_have(boards, tmp_path):
    run, net = tmp_path / "run" / "run.safetensors", tmp_path / "net"
    method = ["ipr", "--iterations", "100000", "refine:parallel", "--refine.steps", "2"]
    smoke = ["--preset", "smoke", "--steps", "100000", "--width", "8", "--layers", "1", "--evaluate", "0"]
    with begun("sample", "--model", boards, "--n", 1, "--checkpoint", run.parent, *method) as sample:
        with begun("train", "digits", *smoke, "--out", net) as train:
            within(150, run.exists)
            sample.terminate()
            said = b""
            while not re.search(rb" [1-9]\d*/100000 ", said):
                said += train.stderr.read1()
            train.terminate()
            assert b"the same command goes on" in train.stderr.read()
            assert train.wait() == 143
        assert b"redraft: interrupted" in sample.stderr.read()
        assert sample.wait() == 143
    assert unseal(run)
    assert [unseal(path) for path in net.glob("*.safetensors")]
    assert not [*tmp_path.rglob("*.part")]


GRID = """\
name: long
claim: nothing in particular
task: sudoku-tokens
model: MODEL
problems: {n: 1, seed: 3, difficulty: easy}
shard: 1
seeds: SEEDS
metrics: {violations: min}
methods: {ancestral: {method: generate, sampler: {preset: ancestral, steps: 4}}}
"""


def test_an_experiment_keeps_its_cells_and_leaves_no_worker(tmp_path):
    with torch.random.fork_rng():
        net = Transformer(vocabulary=10, width=8, depth=1, heads=2, layout="board")
    save_network(net, tmp_path / "net", "", {"model": "sudoku-tokens"})
    text = GRID.replace("MODEL", str(tmp_path / "net")).replace("SEEDS", str([*range(1900)]))
    (tmp_path / "grid.yaml").write_text(text)
    out, mark = tmp_path / "out", ("REDRAFT_TEST_GRID", str(os.getpid()))
    command = ["bench", "run", tmp_path / "grid.yaml", "--workers", 2, "--out", out, "--yes"]
    with begun(*command, **dict([mark])) as process:
        within(150, lambda: [*out.glob("cells/*/*.parquet")])
        assert len(marked(*mark)) >= 3  # the command and two workers
        process.terminate()
        said = process.stderr.read().decode()
        assert process.wait() == 143
    assert "what was finished is kept" in said
    within(60, lambda: not marked(*mark))
    assert not [*out.rglob("*.part")]
