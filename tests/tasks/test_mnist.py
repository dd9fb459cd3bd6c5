"""The way from MNIST's files to sampled boards, with scikit-learn's digits enlarged to 28x28 in place of MNIST."""

import gzip
import struct

import pytest
import torch
from torch.nn import functional as F

import redraft
from redraft import RedraftError
from redraft.tasks.digits import load_digits
from redraft.training.reader import TrainReader
from redraft.training.sudoku import TrainSudoku


def write_idx(path, array):
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(head + array.contiguous().numpy().tobytes(), 1))


def test_readers_models_and_boards_of_28_pixels(tmp_path):
    digits = load_digits("train")
    images = F.interpolate(digits.images[:, None], size=28, mode="bilinear")[:, 0]
    write_idx(tmp_path / "t10k-images-idx3-ubyte.gz", ((images + 1) * 127.5).round().to(torch.uint8))
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", digits.labels.to(torch.uint8))
    mnist, reader, out = str(tmp_path), tmp_path / "reader", tmp_path / "model"
    TrainReader(out=reader, steps=150, mnist=mnist).run()
    settings = {"mnist": mnist, "reader": str(reader)}
    TrainSudoku("smoke", out, steps=1, batch=2, boards=2, evaluate=1, iterations=0, compile=False, **settings).run()
    task = redraft.load_task("sudoku", **settings)
    problems = task.problems(1, difficulty="easy")
    result = redraft.run(redraft.IPR(iterations=1), redraft.load_model(str(out)), problems, progress=False)
    assert result.samples.shape == (1, 81, 28, 28)
    assert task.evaluate(problems.x, problems)["givens_kept"].all()


def test_mnist_without_a_reader_says_how_to_get_one():
    with pytest.raises(RedraftError, match="redraft train reader --mnist"):
        redraft.load_task("sudoku", mnist="somewhere").problems(1)
