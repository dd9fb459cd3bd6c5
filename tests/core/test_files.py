"""Folders and files: whole, regular, or one sentence."""

import os

import pytest
import torch
from safetensors.torch import save_file

from redraft import RedraftError
from redraft.bench.plain import read
from redraft.core.files import prepare, regular, replacing, write
from redraft.models.nets.reader import Reader
from redraft.models.weights import digest_of_all, load_network, read_config, save_network
from redraft.tasks.prompt_sets import load_prompts
from redraft.verifiers.grader import Cache
from redraft.verifiers.heads import read_weights
from redraft.verifiers.sets import Statistics


def device(path):
    path.symlink_to("/dev/zero")


PLACES = pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, device], ids=["pipe", "folder", "device"])


@PLACES
def test_only_regular_files_are_opened(tmp_path, make):
    make(tmp_path / "it")
    with pytest.raises(OSError, match="Not a regular file|Is a directory"):
        regular(tmp_path / "it")


def test_what_is_not_there_and_what_is_no_name_are_errors_of_files(tmp_path):
    for path in (tmp_path / "none", tmp_path / "a\0b", str(tmp_path / ("x" * 300))):
        with pytest.raises(OSError, match=r"."):
            regular(path)
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert regular(tmp_path / "link") == tmp_path / "link"


READERS = {
    "YAML": (read, "it.yaml"),
    "prompts": (lambda path: load_prompts(path, "text"), "it.txt"),
    "a sheet": (load_prompts, "it.csv"),
    "lines of JSON": (load_prompts, "it.jsonl"),
    "a configuration": (lambda path: read_config(path.parent, path.name), "it.json"),
    "weights": (read_weights, "it.safetensors"),
    "weights of torch": (read_weights, "it.pth"),
    "statistics": (Statistics.load, "it.safetensors"),
    "a cache": (Cache, "it.jsonl"),
}


@PLACES
@pytest.mark.parametrize("reader", READERS)
def test_whatever_a_user_names_is_read_or_one_sentence(tmp_path, reader, make):
    read_it, name = READERS[reader]
    make(tmp_path / name)
    with pytest.raises(RedraftError) as caught:
        read_it(tmp_path / name)
    assert "\n" not in str(caught.value)


@PLACES
def test_a_network_is_read_from_a_regular_file(tmp_path, make):
    save_network(Reader(), tmp_path, "")
    (tmp_path / "model.safetensors").unlink()
    make(tmp_path / "model.safetensors")
    with pytest.raises(RedraftError, match=r"model.safetensors cannot be loaded"):
        load_network(Reader, tmp_path)


def test_the_digest_of_a_folder_is_of_its_regular_files(tmp_path):
    save_file({"a": torch.zeros(3)}, tmp_path / "a.safetensors")
    before = digest_of_all(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert digest_of_all(tmp_path) == before
    assert digest_of_all(tmp_path / "pipe")
    (tmp_path / "empty").mkdir()
    assert digest_of_all(tmp_path / "empty")


def test_a_file_is_replaced_in_one_piece_or_stays(tmp_path):
    path = tmp_path / "new" / "file"
    write(path, b"one")

    def broken(error):
        with replacing(path) as part:
            part.write_bytes(b"two")
            raise error

    for error in (KeyboardInterrupt, OSError):
        with pytest.raises(error):
            broken(error)
    assert path.read_bytes() == b"one"
    assert [each.name for each in path.parent.iterdir()] == ["file"]


def test_a_file_below_a_file_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RedraftError, match="cannot be written"):
        write(tmp_path / "file" / "below", b"")


def test_a_folder_is_tried_without_touching_what_is_in_it(tmp_path):
    (tmp_path / ".redraft").write_text("the user's")
    prepare(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".redraft"]
