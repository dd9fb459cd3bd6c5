"""List options given more than once keep all of their values."""

import pytest

from redraft.cli import COMMANDS, Group, _load, _parsed
from redraft.commands.lists import gathered, list_options


def parsed(*argv):
    return _parsed(COMMANDS, list(argv), "redraft")


@pytest.mark.parametrize(
    "argv",
    [
        ["f", "--set", "a=1", "b=2", "c=3"],
        ["f", "--set", "a=1", "--set", "b=2", "--set", "c=3"],
        ["f", "--set", "a=1", "b=2", "--out", "x", "--set", "c=3"],
        ["f", "--set=a=1", "--out=x", "--set", "b=2", "c=3", "--size", "smoke"],
        ["--set", "a=1", "--out", "x", "--set=b=2", "--set", "c=3", "--yes", "--", "f"],
    ],
)
def test_set_counts_however_often_it_is_given(argv):
    made = parsed("bench", "run", *argv)
    assert made.set == ("a=1", "b=2", "c=3")
    assert made.file == "f"
    assert (str(made.out) == "x") is any("out" in word for word in argv)


def test_settings_of_a_search_count_however_often_they_are_given():
    made = parsed("search", "--model", "m", "--settings", "a=1", "--prompt", "p", "--settings", "b=-2", "c=3")
    assert made.settings == ("a=1", "b=-2", "c=3")


def test_lists_of_methods_and_their_samplers_count_too():
    method = ["evolution", "--levels", "1", "0.5", "--levels", "0.25"]
    sampler = ["sampler:preset", "--sampler.name", "llada", "--sampler.settings", "block=8"]
    made = parsed(
        "sample", "--n", "2", *method, *sampler, "--sampler.steps", "4", "--sampler.settings", "ends_last=true"
    )
    assert made.method.levels == (1.0, 0.5, 0.25)
    assert made.method.sampler.settings == ("block=8", "ends_last=true")


def test_one_value_each_stays_as_it_was():
    assert parsed("sample", "--n", "2", "--n", "3").n == 3
    assert parsed("sample", "evolution").method.levels == (1.0, 1.0, 0.8, 0.6)
    assert parsed("sample", "evolution", "--levels", "0.5").method.levels == (0.5,)


def test_every_list_option_of_every_command_is_known():
    def commands(found):
        for name, command in found.items():
            yield from commands(command.commands) if isinstance(command, Group) else [(name, _load(command))]

    known = {name: list_options(kind) for name, kind in commands(COMMANDS)}
    assert {name: lists for name, lists in known.items() if lists} == {
        "run": {"set"}, "validate": {"set"}, "search": {"settings"}, "sample": {"levels", "settings"},
    }  # fmt: skip
    for name, kind in commands(COMMANDS):
        for option in known[name]:
            assert gathered(kind, [f"--{option}", "a", f"--{option}", "b"]) == [f"--{option}", "a", "b"]
