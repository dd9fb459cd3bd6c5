"""The demo: boards get better draft by draft, and a page shows it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import redraft
from redraft.core.errors import require
from redraft.core.files import prepare, write
from redraft.report.page import page
from redraft.report.pictures import overview
from redraft.report.story import Step, Story, percent

if TYPE_CHECKING:
    from torch import Tensor

    from redraft.core.result import Result
    from redraft.core.trace import Trace


@dataclass(frozen=True)
class Demo:
    """Refine handwritten Sudoku boards and write a page that shows it.

    Attributes:
        n: boards.
        iterations: refinements after the first draft.
        seed: of the boards and of all randomness.
        difficulty: 'easy', 'medium', 'hard', 'extreme' or 'corrupted'.
        out: folder for index.html and picture.png.
        model: a name from `redraft list`, or a folder.
        seconds: begin no further draft after this time.
        mnist: of the task, a folder with MNIST's files, for a model that was trained on them.
        reader: of the task, a folder that `redraft train reader` wrote.
        device: such as 'cuda'; a GPU if there is one when not given.
    """

    n: int = 32
    iterations: int = 12
    seed: int = 0
    difficulty: str = "hard"
    out: Path = Path("redraft-demo")
    model: str = "sudoku"
    seconds: float | None = None
    mnist: str | None = None
    reader: str | None = None
    device: str | None = None

    def run(self) -> Result:
        """Draft, print a line for each draft, write the page; Ctrl-C writes it with the drafts there are."""
        for module in ("PIL.Image", "matplotlib.figure"):
            require(module, extra="plot")
        folder, method = prepare(self.out), redraft.IPR(iterations=self.iterations)
        model, task = (
            redraft.load_model(self.model, self.device),
            redraft.load_task("sudoku", mnist=self.mnist, reader=self.reader),
        )
        problems = task.problems(self.n, self.seed, difficulty=self.difficulty)
        first = method.initial.nfe((~problems.frozen).sum(1)).double().mean()
        print(f"{self.n} {self.difficulty} boards; the first draft takes {first:.0f} evaluations (NFE) of each")
        watch = _Watch(Story(task, problems, self.iterations + 1, self._about()), self.seconds)
        result = redraft.run(
            method, model, problems, seed=self.seed, evaluate=task.evaluate, on_draft=watch, progress=False
        )
        write(folder / "picture.png", overview(watch.story))
        write(folder / "index.html", page(watch.story).encode())
        print(f"{watch.story.headline}; page: {folder / 'index.html'}")
        return result

    def _about(self) -> str:
        return (
            f"Redraft {redraft.__version__}: redraft demo --n {self.n} --iterations {self.iterations} "
            f"--seed {self.seed} --difficulty {self.difficulty} --model {self.model}. Test boards, drawn with digits "
            "of scikit-learn's set that are kept out of training; a separate network reads the result."
        )


@dataclass
class _Watch:
    """Told of every draft: keeps it, prints its line, ends the run when its time is over."""

    story: Story
    seconds: float | None

    def __call__(self, samples: Tensor, trace: Trace) -> bool:
        if not self.story.steps:
            print("draft   valid   95 % interval   NFE per board   seconds")
        step = self.story.add(samples, trace)
        print(_line(step), flush=True)
        return self.seconds is not None and step.seconds >= self.seconds


def _line(step: Step) -> str:
    low, high = (100 * end for end in step.interval)
    interval = f"{low:.0f} to {high:.0f} %"
    return f"{step.number:5}   {percent(step.share):>5}   {interval:>13}   {step.nfe:13.0f}   {step.seconds:7.1f}"
