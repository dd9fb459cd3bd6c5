"""Small pictures of all that a search's guide is shown, and the sheet of them under the candidates' own numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from redraft.core.content import content
from redraft.core.distinct import prints
from redraft.core.errors import RedraftError, require, said
from redraft.core.files import plain, prepare, write
from redraft.report.gallery import MOST, pixels, sheet, small
from redraft.report.pictures import Pixels, png

if TYPE_CHECKING:
    from torch import Tensor

    from redraft.core.task import Problems
    from redraft.core.trace import Trace

NAME = re.compile(r"(\d+)_(\d+)_(-?\d+)_([-+.e\d]+)\.png")


@dataclass(frozen=True)
class Small:
    """A small picture in a file, whose name says all of this.

    Attributes:
        path: of the file.
        place: how many the guide was shown before, for the same problem.
        problem: its id.
        sample: stands for the sample, see `redraft.core.distinct.prints`.
        score: by the guide.
    """

    path: Path
    place: int
    problem: int
    sample: int
    score: float

    @classmethod
    def all(cls, folder: Path) -> list[Small]:
        """Those in a folder, whatever else is there."""
        found = ((path, NAME.fullmatch(path.name)) for path in folder.iterdir())
        return [
            cls(path, int(name[1]), int(name[2]), int(name[3]), float(name[4]))
            for path, name in found
            if name and plain(path)
        ]

    def label(self, numbers: dict[int, int]) -> str:
        """What a sheet says of it: its candidate's number, of methods that tell of their candidates, and its score."""
        number = f"{numbers[self.sample]}: " if self.sample in numbers else ""
        return f"{number}{self.score:.4g}"

    def pixels(self) -> Pixels:
        """The picture.

        Raises:
            RedraftError: the file is damaged.
        """
        image = require("PIL.Image", "plot")
        try:
            with image.open(self.path) as opened:
                return np.asarray(opened.convert("RGB"))
        except Exception as error:  # a library's, of whatever kind
            raise RedraftError(f"{self.path} is damaged ({said(error)}): delete it") from error


@dataclass
class Shown:
    """A verifier that keeps a small picture of everything that it is shown, in files, once each."""

    verifier: Any
    folder: Path
    seen: dict[int, set[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Go on from the files that there are."""
        for each in Small.all(prepare(self.folder)):
            self.seen.setdefault(each.problem, set()).add(each.sample)

    def __getattr__(self, name: str) -> Any:
        """Whatever the verifier has."""
        return getattr(self.verifier, name)

    @property
    def mark(self) -> str:
        """That of the verifier: what it was shown changes no score."""
        return content(self.verifier)

    def __call__(self, samples: Tensor, problems: Problems) -> Tensor:
        """Scores (B,)."""
        scores: Tensor = self.verifier(samples, problems)
        each = zip(samples, prints(samples).tolist(), problems.ids.tolist(), scores.tolist(), strict=True)
        for sample, number, problem, score in each:
            seen = self.seen.setdefault(problem, set())
            if number not in seen:
                name = f"{len(seen)}_{problem}_{number}_{score:.6g}.png"
                write(self.folder / name, png(pixels(small(sample)), colours=None))
                seen.add(number)
        return scores

    def of(self, problem: int, numbers: dict[int, int], winner: int | None = None) -> list[Small]:
        """What is on the sheet of a problem: the winner, then the best, or in order if calls cannot be compared.

        Args:
            problem: its id.
            numbers: of the candidates, by their samples; of what is no candidate yet nothing is shown.
            winner: number of the candidate that won.
        """
        relative = getattr(self.verifier, "relative", False)
        found = [each for each in Small.all(self.folder) if each.problem == problem]
        found = [each for each in found if not numbers or each.sample in numbers]
        found.sort(key=lambda each: each.place if relative else (-each.score, each.place))
        won = [each for each in found if winner is not None and numbers.get(each.sample) == winner]
        return (won + [each for each in found if each not in won])[:MOST]


def drawn(cells: list[Small], numbers: dict[int, int]) -> bytes:
    """The sheet, a PNG file."""
    return sheet([each.pixels() for each in cells], [each.label(numbers) for each in cells])


def numbered(candidates: Trace, problem: int, winner: int | None) -> dict[int, int]:
    """The number of the candidate that each sample of a problem is; of several the winner's, or else the first."""
    if (
        "shown" not in candidates or candidates["shown"].is_floating_point()
    ):  # of a run that was begun before it was told
        return {}
    mine = (candidates["problem"] == problem) & (candidates["shown"] != 0)
    pairs = list(zip(candidates["shown"][mine].tolist(), candidates["candidate"][mine].tolist(), strict=True))
    return dict(reversed(pairs)) | {sample: number for sample, number in pairs if number == winner}
