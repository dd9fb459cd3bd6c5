"""MNIST's files: read, or refused in one sentence that names the file."""

import gzip
import os
import struct

import pytest
import torch

from redraft import RedraftError
from redraft.tasks.digits import load_digits
from redraft.tasks.idx import MOST, read

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def idx(*shape, data=None):
    content = bytes(i % 10 for i in range(torch.tensor(shape).prod())) if data is None else data
    return struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape) + content


def folder(path, images=None, labels=None, ending=""):
    pack = gzip.compress if ending else bytes
    (path / f"{IMAGES}{ending}").write_bytes(pack(images or idx(10, 4, 4)))
    (path / f"{LABELS}{ending}").write_bytes(pack(labels or idx(10)))
    return str(path)


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_a_folder_is_read(tmp_path, ending):
    digits = load_digits("train", folder(tmp_path, ending=ending))
    assert digits.images.shape == (8, 4, 4)
    assert digits.labels.tolist() == [*range(8)]
    assert digits.images[0, 0, 1] == 1 / 127.5 - 1


def test_a_file_that_is_there_packed_and_unpacked_is_read_once(tmp_path):
    """Twice, the same pictures would be in both splits."""
    folder(tmp_path, ending=".gz")
    (tmp_path / f"{IMAGES}.gz.part").write_bytes(b"")
    assert len(load_digits("train", folder(tmp_path))) == 8


WHOLE = idx(10, 4, 4)
HARM = {
    **{f"{n} bytes": (WHOLE[:n], "is not an IDX file") for n in (0, 1, 3, 4, 8, 11, 15)},
    "a header alone": (WHOLE[:16], "cut short, or has more"),
    "one byte less": (WHOLE[:-1], "cut short, or has more"),
    "one byte more": (WHOLE + b"\0", "cut short, or has more"),
    "floats": (b"\0\0\x0d\3" + WHOLE[4:], "is not an IDX file of bytes with 3 axes"),
    "one axis": (idx(160), "is not an IDX file of bytes with 3 axes"),
    "255 axes": (b"\0\0\x08\xff" + b"\0\0\0\1" * 255, "is not an IDX file"),
    "no pictures": (idx(0, 4, 4), "says that it holds 0 bytes"),
    "too many": (idx(2**32 - 1, 2**32 - 1, 2**32 - 1, data=b""), r"says that it holds 79,\d+,\d+.* bytes"),
    "not square": (idx(10, 2, 8), "has pictures of 2 x 8 pixels: not square"),
    "fewer pictures": (idx(9, 4, 4), "has 9 pictures, and .*labels-idx1-ubyte.* 10 labels"),
}


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("harm", HARM)
def test_harm_is_one_sentence_that_names_the_file(tmp_path, harm, ending):
    content, words = HARM[harm]
    with pytest.raises(RedraftError, match=rf"{IMAGES}{ending} .*{words}|{IMAGES}{ending} {words}") as caught:
        load_digits("train", folder(tmp_path, images=content or b"\0", ending=ending))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("harm", ["cut", "no gzip", "flipped"])
def test_a_damaged_gzip_is_one_sentence(tmp_path, harm):
    folder(tmp_path, ending=".gz")
    path = tmp_path / f"{IMAGES}.gz"
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[:-9], "no gzip": WHOLE, "flipped": whole[:-8] + b"\0" + whole[-7:]}[harm])
    with pytest.raises(RedraftError, match=f"{IMAGES}.gz is cut short or damaged: download it again"):
        load_digits("train", str(tmp_path))


def test_a_gzip_is_not_unpacked_beyond_what_its_header_says(tmp_path):
    path = tmp_path / "bomb.gz"
    with gzip.open(path, "wb", 1) as file:
        file.write(idx(1, 4, 4, data=b""))
        for _ in range(64):
            file.write(bytes(2**20))
    held = []
    opened = gzip.GzipFile.read
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gzip.GzipFile, "read", lambda *given: held.append(opened(*given)) or held[-1])
        with pytest.raises(RedraftError, match="has more data than its header says"):
            read(path, 3)
    assert sum(map(len, held)) < 100
    assert MOST < 2**30


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
def test_a_pipe_or_a_folder_is_one_sentence(tmp_path, make):
    folder(tmp_path)
    (tmp_path / LABELS).unlink()
    make(tmp_path / LABELS)
    with pytest.raises(RedraftError, match=f"{LABELS} cannot be read: (Not a regular file|Is a directory)"):
        load_digits("train", str(tmp_path))


def test_labels_beyond_nine_and_pictures_of_two_sizes_are_refused(tmp_path):
    folder(tmp_path, labels=idx(10, data=bytes([10] * 10)))
    with pytest.raises(RedraftError, match=f"{LABELS} has the label 10: digits are 0 to 9"):
        load_digits("train", str(tmp_path))
    folder(tmp_path)
    (tmp_path / IMAGES.replace("train", "t10k")).write_bytes(idx(10, 5, 5))
    (tmp_path / LABELS.replace("train", "t10k")).write_bytes(idx(10))
    with pytest.raises(RedraftError, match="are of different sizes: keep one set in a folder"):
        load_digits("train", str(tmp_path))
