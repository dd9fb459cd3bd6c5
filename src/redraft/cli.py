"""The command line: `redraft demo | sample | search | ...`, built from the dataclasses that Python users see."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields, make_dataclass
from pathlib import Path
from typing import Annotated, Any, Union

from redraft import __version__
from redraft.core.errors import RedraftError, said, unknown
from redraft.core.registry import METHODS, MODELS, SAMPLERS, TASKS, VERIFIERS, Registry
from redraft.core.signals import ending


@dataclass(frozen=True)
class Group:
    """Commands under a common word: `commands` is of the form of `COMMANDS`."""

    about: str
    commands: Mapping[str, str]


COMMANDS: Mapping[str, str | Group] = {
    "demo": "redraft.commands.demo:Demo",
    "sample": "redraft.commands.sample:Sample",
    "search": "redraft.commands.search:Search",
    "train": Group(
        "Train a reference network.",
        {
            "sudoku": "redraft.training.sudoku:TrainSudoku",
            "reader": "redraft.training.reader:TrainReader",
            "digits": "redraft.training.class_digits:TrainDigits",
            "digits-judges": "redraft.training.judges:TrainDigitsJudges",
            "python": "redraft.training.tokens:TrainPython",
            "sudoku-tokens": "redraft.training.tokens:TrainSudokuTokens",
            "python-kinds": "redraft.training.kinds:TrainPythonKinds",
            "python-reference": "redraft.training.tokens:TrainPythonReference",
            "critic": "redraft.training.critic:TrainCritic",
        },
    ),
    "bench": Group(
        "Run experiments at equal compute and report them.",
        {
            "validate": "redraft.commands.bench:Validate",
            "run": "redraft.commands.bench:Run",
            "resume": "redraft.commands.bench:Resume",
            "status": "redraft.commands.bench:Show",
            "report": "redraft.commands.bench:Report",
        },
    ),
    "list": "redraft.cli:List",
}
"""Commands, or groups of commands: dataclasses with a `run` method, imported only when they are the one asked for."""


COMPLETION = ("--tyro-print-completion", "--tyro-write-completion")
SHELLS = ("bash", "fish", "zsh")
IN_OPTIONS = ("demo", "sample", "search", "train")
"""Commands whose errors Python users see too, so that they are put into the words of options here."""
ABOUT = (
    "Better samples from diffusion models, for more compute at inference time. `redraft --version` tells the version, "
    "`redraft --tyro-print-completion bash` (or zsh) prints what completes commands and options by the tab key."
)


@dataclass(frozen=True)
class List:
    """Print the models, tasks, methods, samplers of masked models and verifiers that there are."""

    def run(self) -> None:
        """Print each with the first line of its documentation, which is read without importing it."""
        for registry in (MODELS, TASKS, METHODS, SAMPLERS, VERIFIERS):
            print(f"{registry.kind}s")
            print("\n".join(f"  {name:19} {line}" for name, line in _listed(registry)))


def main(argv: list[str] | None = None) -> int:
    """Run a command line, `sys.argv` if none is given; the exit code.

    0 when all went well, 1 when a cell failed, 2 after what the user can mend (one sentence on stderr), 130 after
    Ctrl-C, 143 after SIGTERM and 129 after SIGHUP, which are taken as Ctrl-C.
    """
    with ending() as came:
        code = _code(sys.argv[1:] if argv is None else argv)
    return 128 + came[0] if came and code == 130 else code


def _code(argv: list[str]) -> int:
    """The exit code of a command line, 130 if it was interrupted."""
    usual, warnings.formatwarning = warnings.formatwarning, _as_sentence
    try:
        if argv == ["--version"]:
            print(f"redraft {__version__}")
            return 0
        command = parsed(argv)
        outcome = command.run()
    except RedraftError as error:
        print(f"redraft: {_in_options(str(error), argv)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("redraft: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe has gone, as in `redraft list | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except SystemExit as end:  # tyro's, after --help or a wrong option, with its message printed
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 2
    finally:
        warnings.formatwarning = usual
    if getattr(outcome, "interrupted", False):
        print("redraft: interrupted; the result is the last finished draft", file=sys.stderr)
        return 130
    return 1 if getattr(outcome, "failed", None) else 0


def _as_sentence(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning without the place in the code that it comes from."""
    return f"redraft: {message}\n"


def parsed(argv: list[str]) -> Any:
    """The dataclass of the command that `argv` spells, filled in."""
    return _completed(argv) if argv and argv[0] in COMPLETION else _parsed(COMMANDS, argv, "redraft")


def _parsed(commands: Mapping[str, str | Group], argv: list[str], program: str) -> Any:
    """The command's dataclass, filled in from `argv`."""
    import tyro

    from redraft.commands.lists import gathered

    command = commands.get(argv[0]) if argv else None
    if isinstance(command, Group):
        return _parsed(command.commands, argv[1:], f"{program} {argv[0]}")
    if command is not None:
        kind = _load(command)
        return tyro.cli(kind, prog=f"{program} {argv[0]}", args=gathered(kind, argv[1:]))
    stubs = tuple(Annotated[_stub(name, c), tyro.conf.subcommand(name)] for name, c in commands.items())
    about = ABOUT if program == "redraft" else None
    return tyro.cli(Union[stubs], prog=program, args=argv or ["--help"], description=about)  # type: ignore[call-overload] # noqa: UP007


def _completed(argv: list[str]) -> Any:
    """Print what completes the commands, or write it to a file, whose folder is made."""
    import tyro

    if argv[1:] and argv[1] not in SHELLS:
        raise unknown("shell", argv[1], SHELLS)
    try:
        if argv[0] == "--tyro-write-completion" and argv[2:]:
            Path(argv[2]).parent.mkdir(parents=True, exist_ok=True)
        return tyro.cli(_tree("redraft", COMMANDS), prog="redraft", args=argv)
    except OSError as error:
        raise RedraftError(f"{error.filename} cannot be written: {error.strerror}") from error


def _tree(name: str, commands: Mapping[str, str | Group], about: str = ABOUT) -> Any:
    """All commands with all that they take: for tab completion only, as it imports every one of them."""
    import tyro

    branches = []
    for command, each in commands.items():
        kind = _tree(command, each.commands, each.about) if isinstance(each, Group) else _load(each)
        branches.append(Annotated[kind, tyro.conf.subcommand(command)])
    chosen = Annotated[Union[tuple(branches)], tyro.conf.arg(name="")]  # type: ignore[valid-type] # noqa: UP007
    return make_dataclass(name, [("command", chosen)], namespace={"__doc__": about})


def _in_options(sentence: str, argv: list[str]) -> str:
    """An error's sentence in the words of the command's options, where it has some."""
    command = COMMANDS.get(argv[0]) if argv and argv[0] in IN_OPTIONS else None
    if isinstance(command, Group):
        command = command.commands.get(argv[1]) if argv[1:] else None
    if command is None:
        return sentence
    from redraft.commands.words import Options

    own = frozenset(f.name for f in fields(_load(command)))
    return Options(argv, own, parts=argv[0] == "sample").said(sentence)


def _load(target: str) -> Any:
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def _stub(name: str, command: str | Group) -> type:
    """Stands for a command that was not asked for: all that help needs of it."""
    about = command.about if isinstance(command, Group) else first_line(command)
    return make_dataclass(name, [], namespace={"__doc__": about})


def _listed(registry: Registry) -> list[tuple[str, str]]:
    return [(name, first_line(registry.targets()[name])) for name in registry]


def first_line(target: str) -> str:
    """The first line of the docstring of `"module:attribute"`, from the source; nothing is imported but packages."""
    module, _, attribute = target.partition(":")
    try:
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
            return f"({module} cannot be found)"
        body = ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body
    except ModuleNotFoundError:
        return f"({module} cannot be found)"
    except Exception as error:  # whatever another package does when it is imported
        return f"({module} cannot be imported: {said(error)})"
    nodes = (node for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == attribute)
    return next(((ast.get_docstring(node) or "").partition("\n")[0] for node in nodes), "")


if __name__ == "__main__":
    sys.exit(main())
