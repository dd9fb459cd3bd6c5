import signal
import sys
import threading
from functools import partial
from math import inf, nan

import pytest
import torch
from torch import nn

from redraft import RedraftError
from redraft.cli import main
from redraft.core import files, sealed
from redraft.training import loop
from redraft.training.class_digits import TrainDigits
from redraft.training.critic import TrainCritic
from redraft.training.judges import TrainDigitsJudges
from redraft.training.kinds import TrainPythonKinds
from redraft.training.loop import Schedule, fit
from redraft.training.reader import TrainReader
from redraft.training.sudoku import TrainSudoku
from redraft.training.tokens import TrainPython, TrainPythonReference, TrainSudokuTokens


def regression(net):
    """Loss of a linear fit whose data follow from the step."""

    def loss(step):
        x = torch.randn(16, 3, generator=torch.Generator().manual_seed(step))
        return {"square": (net(x)[:, 0] - x.sum(1)).square().mean()}

    return loss


def linear():
    torch.manual_seed(0)
    return nn.Linear(3, 1)


def test_a_stopped_run_goes_on_as_if_it_had_not_been(tmp_path):
    whole = linear()
    fit(whole, regression(whole), Schedule(30), None, "whole")
    part = linear()
    steps = regression(part)

    def cut(step):
        if step == 12:
            raise KeyboardInterrupt
        return steps(step)

    with pytest.raises(KeyboardInterrupt):
        fit(part, cut, Schedule(30, every=0), tmp_path / "c.safetensors", "part")
    rest = linear()
    fit(rest, regression(rest), Schedule(30, every=0), tmp_path / "c.safetensors", "rest")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, rest.state_dict()[name])


@pytest.fixture
def ctrl_c():
    """Ctrl-C as in a terminal, whatever the tests were started under."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda: signal.raise_signal(signal.SIGINT)
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler


def pressed(loss, at, press, times=1):
    """The loss, with Ctrl-C in the middle of a step; and the steps that it was asked for."""
    seen = []

    def pressing(step):
        seen.append(step)
        if step == at:
            for _ in range(times):
                press()
        return loss(step)

    return pressing, seen


@pytest.mark.parametrize("at", [1, 12, 29])
def test_ctrl_c_saves_the_step_and_the_same_call_goes_on_as_if_there_had_been_none(tmp_path, ctrl_c, capsys, at):
    whole, part, rest = linear(), linear(), linear()
    fit(whole, regression(whole), Schedule(30), None, "whole")
    loss, seen = pressed(regression(part), at, ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        fit(part, loss, Schedule(30), tmp_path / "new" / "c.safetensors", "part")
    assert seen == list(range(at + 1))
    assert f"part: interrupted at step {at + 1}; the same command goes on" in capsys.readouterr().err
    loss, seen = pressed(regression(rest), None, ctrl_c)
    fit(rest, loss, Schedule(30), tmp_path / "new" / "c.safetensors", "rest")
    assert seen == list(range(at + 1, 30))
    for name, value in whole.state_dict().items():
        assert torch.equal(value, rest.state_dict()[name])


def test_a_second_ctrl_c_and_one_without_a_checkpoint_interrupt_at_once(tmp_path, ctrl_c):
    path = tmp_path / "c.safetensors"
    for times, checkpoint in ((2, path), (1, None)):
        net, after = linear(), []

        def press(after=after):
            ctrl_c()
            after.append(True)

        with pytest.raises(KeyboardInterrupt):
            fit(net, pressed(regression(net), 5, press, times)[0], Schedule(30), checkpoint, "cut")
        assert len(after) == times - 1
        assert not path.exists()


def test_ctrl_c_in_the_first_step_of_a_run_does_not_wait_for_its_compiler(tmp_path, ctrl_c):
    """There is nothing to save that is not saved: in a new run, and in one that goes on."""
    path, net, waited = tmp_path / "c.safetensors", linear(), []

    def compiling(step):
        ctrl_c()
        waited.append(step)

    for cut in (compiling, pressed(regression(net), 1, ctrl_c)[0], compiling):
        with pytest.raises(KeyboardInterrupt):
            fit(net, cut, Schedule(9), path, "compiled")
    assert not waited


def test_ctrl_c_during_the_last_checkpoint_is_not_lost(tmp_path, ctrl_c, monkeypatch):
    save = loop._save
    monkeypatch.setattr(loop, "_save", lambda *given: (ctrl_c(), save(*given)))
    net = linear()
    with pytest.raises(KeyboardInterrupt):
        fit(net, regression(net), Schedule(3), tmp_path / "c.safetensors", "late")
    assert (tmp_path / "c.safetensors").exists()


def test_another_handler_of_ctrl_c_stays(tmp_path, ctrl_c):
    calls, net = [], linear()
    default = signal.signal(signal.SIGINT, lambda *given: calls.append(given))
    try:
        fit(net, pressed(regression(net), 1, ctrl_c)[0], Schedule(3), tmp_path / "c.safetensors", "hosted")
    except KeyboardInterrupt:
        pytest.fail("training took the handler's place")
    finally:
        signal.signal(signal.SIGINT, default)
    assert len(calls) == 1


def test_training_outside_the_main_thread_leaves_ctrl_c_alone(tmp_path, ctrl_c):
    net = linear()
    path = tmp_path / "c.safetensors"
    thread = threading.Thread(target=lambda: fit(net, regression(net), Schedule(3), path, "thread"))
    thread.start()
    thread.join()
    assert path.exists()


def test_the_command_line_ends_in_130_after_ctrl_c_and_goes_on(tmp_path, ctrl_c, monkeypatch, capsys):
    argv = ["train", "digits", "--preset", "smoke", "--width", "8", "--layers", "1", "--evaluate", "0"]
    argv += ["--out", str(tmp_path / "out")]
    average, presses = loop._average, iter((lambda: None, ctrl_c))
    monkeypatch.setattr(loop, "_average", lambda *given: (next(presses)(), average(*given)))
    assert main(argv) == 130
    said = capsys.readouterr().err
    assert "digits: interrupted at step 2; the same command goes on" in said
    assert said.endswith("redraft: interrupted\n")
    monkeypatch.setattr(loop, "_average", average)
    assert main(argv) == 0
    assert (tmp_path / "out" / "model.safetensors").exists()


def test_a_run_without_a_progress_bar_writes_checkpoints_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "tqdm", partial(loop.tqdm, disable=True))
    path, net = tmp_path / "c.safetensors", linear()
    there = []
    fit(net, lambda step: there.append(path.exists()) or regression(net)(step), Schedule(3, every=0), path, "quiet")
    assert there == [False, True, True]


def test_training_learns():
    net = linear()
    before = regression(net)(999)["square"]
    fit(net, regression(net), Schedule(400, rate=0.05, warmup=10, average=0.9), None, "learn")
    assert regression(net)(999)["square"] < before / 100


def test_a_loss_that_is_not_a_number_ends_in_one_sentence():
    net = linear()
    with pytest.raises(RedraftError, match="loss is nan at step 0"):
        fit(net, lambda step: {"bad": net.weight.sum() * torch.nan}, Schedule(3), None, "bad")


def test_the_rate_rises_holds_and_falls_to_zero():
    schedule = Schedule(1000, rate=1.0, warmup=100, decay=0.5)
    assert [schedule.rate_at(step) for step in (49, 99, 400, 750, 1000)] == [0.5, 1, 1, 0.5, 0]


def test_the_recipe_writes_a_model_that_loads(tmp_path):
    from redraft import load_model

    folder = tmp_path / "tiny"
    TrainSudoku("smoke", folder, steps=2, batch=2, boards=4, evaluate=1, iterations=0, compile=False).run()
    model = load_model(str(folder))
    assert model.shape == (81, 8, 8)
    assert "2 AdamW steps of 2 boards" in (folder / "README.md").read_text()


def test_an_unknown_preset_is_refused():
    with pytest.raises(RedraftError, match="unknown preset"):
        TrainSudoku(preset="tpu").run()


def test_a_checkpoint_of_other_training_is_refused(tmp_path):
    path = tmp_path / "c.safetensors"
    fit(linear(), regression(linear()), Schedule(3, every=0), path, "first", {"seed": 0})
    for schedule, about in ((Schedule(3, every=0), {"seed": 1}), (Schedule(4, every=0), {"seed": 0})):
        with pytest.raises(RedraftError, match="is of training with other settings"):
            fit(linear(), regression(linear()), schedule, path, "other", about)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(RedraftError, match="is damaged; delete it to start over"):
        fit(linear(), regression(linear()), Schedule(3, every=0), path, "first", {"seed": 0})


@pytest.mark.parametrize("failing", [(sealed, "save_file"), (files.os, "replace")], ids=["save_file", "replace"])
def test_a_checkpoint_that_cannot_be_written_is_one_sentence_and_leaves_the_last_one(tmp_path, monkeypatch, failing):
    path, net = tmp_path / "c.safetensors", linear()
    calls, works = [], getattr(*failing)

    def full(*given):
        calls.append(given)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return works(*given)

    monkeypatch.setattr(*failing, full)
    with pytest.raises(
        RedraftError, match=r"^the checkpoint .*c\.safetensors cannot be written: .*No space left"
    ) as caught:
        fit(net, regression(net), Schedule(3, every=-1), path, "full")
    assert "\n" not in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["c.safetensors"]


def test_a_folder_that_takes_no_checkpoint_is_refused_before_the_first_step(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RedraftError, match="file cannot be written"):
        fit(linear(), lambda step: pytest.fail("it trained"), Schedule(3), tmp_path / "file" / "c.safetensors", "none")


RECIPES = {
    TrainSudoku: {"boards": 2, "evaluate": 1, "iterations": 0, "compile": False},
    TrainReader: {},
    TrainDigits: {"evaluate": 0},
    TrainDigitsJudges: {},
    TrainPython: {"compile": False},
    TrainSudokuTokens: {"boards": 2, "compile": False},
    TrainPythonKinds: {"lines": 2},
    TrainPythonReference: {"compile": False},
    TrainCritic: {"model": "sudoku-tokens", "task": "sudoku-tokens", "rows": 2, "evaluate": 2},
}


@pytest.fixture
def unprepared(monkeypatch):
    """Nothing is read, built or trained."""
    for recipe in RECIPES:
        module = sys.modules[recipe.__module__]
        for name in ("fit", "load_digits", "load_reader", "load_model", "_seeded", "_read", "_boards"):
            monkeypatch.setattr(module, name, lambda *given, **more: pytest.fail("it prepared first"), raising=False)


@pytest.mark.parametrize("recipe", RECIPES)
def test_an_out_that_is_a_file_is_refused_before_anything_is_prepared(tmp_path, unprepared, recipe):
    (tmp_path / "file").write_text("")
    with pytest.raises(RedraftError, match="the folder .*file cannot be written: File exists"):
        recipe(out=tmp_path / "file", **RECIPES[recipe]).run()


EVERYWHERE = {"steps": (0, -3, nan), "batch": (0, -1), "seed": (-1,)}
OF_ONE = {
    TrainSudoku: {"boards": (0,), "evaluate": (-1,), "iterations": (-1,), "mixed": (2, -0.1, nan), "guide": (-1, nan)},
    TrainReader: {},
    TrainDigits: {
        "width": (0, -8), "layers": (0, -1), "distorted": (2, nan), "dropped": (-1, nan), "rate": (0, -1, nan, inf),
        "evaluate": (-1, 3),
    },
    TrainDigitsJudges: {"batch": (1,)},
    TrainPython: {"width": (0, -8), "depth": (0,), "heads": (0, -1), "rate": (0, nan)},
    TrainSudokuTokens: {"boards": (0,), "depth": (0,), "passes": (0,), "hidden": (0,), "rate": (nan,)},
    TrainPythonKinds: {"lines": (0,), "batch": (1,)},
    TrainPythonReference: {"width": (0,), "depth": (-1,), "heads": (0,), "rate": (-1,)},
    TrainCritic: {
        "rows": (0,), "blocks": (0,), "reveal": (0,), "evaluate": (0,), "rate": (0, nan), "temperature": (nan,),
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("recipe", "name", "value"),
    [
        (recipe, name, value)
        for recipe, own in OF_ONE.items()
        for given in (EVERYWHERE, own)
        for name, values in given.items()
        for value in values
    ],
)
def test_a_size_a_rate_or_a_share_without_a_meaning_is_refused_first(tmp_path, unprepared, recipe, name, value):
    with pytest.raises(RedraftError, match=f"^{name} is {value}: it must ") as caught:
        recipe(out=tmp_path / "out", **RECIPES[recipe] | {name: value}).run()
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_size_that_is_given_is_not_the_presets():
    assert loop.sizes({"cpu": (5, 6)}, TrainSudoku(steps=1)) == (1, 6)


def test_no_evaluation_leaves_no_trace_of_one_in_the_card(tmp_path):
    TrainSudoku("smoke", tmp_path, steps=1, batch=2, boards=2, evaluate=0, compile=False).run()
    card = (tmp_path / "README.md").read_text()
    assert "hard test boards" not in card
    assert "on CPU.\n- Made by" in card or "on CUDA.\n- Made by" in card
