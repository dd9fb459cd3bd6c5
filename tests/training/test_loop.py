import pytest
import torch
from torch import nn

from redraft import RedraftError
from redraft.training.loop import Schedule, fit
from redraft.training.sudoku import TrainSudoku


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
