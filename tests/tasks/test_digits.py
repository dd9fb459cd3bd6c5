import gzip
import struct

import pytest
import torch

from redraft import RedraftError
from redraft.tasks.digits import distort, load_digits


def write_idx(path, array):
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(head + array.numpy().tobytes()))


@pytest.fixture
def folder(tmp_path):
    write_idx(tmp_path / "t10k-images-idx3-ubyte.gz", torch.arange(10 * 28 * 28).reshape(10, 28, 28).to(torch.uint8))
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", torch.arange(10).to(torch.uint8))
    return tmp_path


def test_mnist_is_read_from_idx_files_and_split_by_index(folder):
    train, test = (load_digits(split, str(folder)) for split in ("train", "test"))
    assert train.labels.tolist() == list(range(8))
    assert test.labels.tolist() == [8, 9]
    assert train.images.shape == (8, 28, 28)
    assert train.images[0, 0, :3].tolist() == pytest.approx([-1, 1 / 127.5 - 1, 2 / 127.5 - 1])


def test_a_cut_file_is_told_from_a_whole_one(folder):
    path = folder / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-5]))
    with pytest.raises(RedraftError, match="cut short"):
        load_digits("train", str(folder))
    path.write_bytes(path.read_bytes()[:-20])  # what a broken download leaves
    with pytest.raises(RedraftError, match="cut short"):
        load_digits("train", str(folder))


def test_a_folder_without_mnist_is_named(tmp_path):
    with pytest.raises(RedraftError, match="holds no MNIST files"):
        load_digits("train", str(tmp_path))


def test_an_unknown_split_is_refused():
    with pytest.raises(RedraftError, match="unknown split"):
        load_digits("validation")


def test_distortion_is_slight_repeatable_and_keeps_the_range():
    images = load_digits("train").images[:50]
    first, again = (distort(images, torch.Generator().manual_seed(0)) for _ in range(2))
    assert torch.equal(first, again)
    assert first.min() >= -1 - 1e-5
    assert first.max() <= 1 + 1e-5
    assert 0.01 < (first - images).square().mean() < 0.3
