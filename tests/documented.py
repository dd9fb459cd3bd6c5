"""The commands that README and docs tell people to type."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = ("redraft", "make", "pip", "python", "ray")


def blocks(page):
    """Fenced blocks of shell, which name no language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    return [body for language, body in found if not language]


def lines(block):
    """Command and comment of each line, with those joined that a backslash continues."""
    for line in block.replace("\\\n", " ").splitlines():
        command, _, comment = line.partition(" #")
        if command.strip():
            yield command.strip(), comment.strip()


def inline():
    """Commands within sentences, `redraft ...` or `python bench/...`."""
    for page in PAGES:
        prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
        yield from (" ".join(found.split()) for found in re.findall(r"`((?:redraft|python bench/)\s[^`]*)`", prose))


def variants(command, comment):
    """The words of a command, and of those that its comment speaks of.

    `--preset gpu` in a comment stands for the command with it; 'also a, b' for the command with a or b in place of one
    of its words, so each is a list of which one must be right.
    """
    words = shlex.split(command)
    yield [words]
    yield from ([[*words, *option]] for option in re.findall(r"(--[\w-]+) (\w+)", comment))
    if also := re.search(r"\b(?:also|and) ((?:[\w-]+, )*[\w-]+)$", comment):
        for other in also[1].split(", "):
            yield [[*words[:place], other, *words[place + 1 :]] for place in range(1, len(words))]
