"""What `redraft sample` has made: as files, as JSON, as rows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from redraft import __version__
from redraft.core.files import write
from redraft.core.pictures import drawn, png, shrunk, tiled
from redraft.core.result import Result, means_of

COLUMNS = 8


def together(texts: list[str]) -> str:
    """Texts below one another, with empty lines between them where one has lines of its own."""
    return ("\n\n" if any("\n" in text for text in texts) else "\n").join(texts)


@dataclass(frozen=True)
class Sampled:
    """Samples with all that is known of them.

    Attributes:
        result: of the run; its settings say how it is made again.
        metrics: of the task, (P,) by name.
        score: of the verifier (P,), if there is one.
    """

    result: Result
    metrics: dict[str, Tensor]
    score: Tensor | None = None

    def rows(self) -> list[dict[str, Any]]:
        """What is known of each sample, as JSON values; NaN is null."""
        columns: dict[str, list[Any]] = {"problem": self.result.ids.tolist(), "nfe": self.result.ledger.nfe.tolist()}
        if self.score is not None:
            columns["score"] = self.score.tolist()
        columns |= {name: values.tolist() for name, values in self.metrics.items()}
        if self.result.texts is not None:
            columns["text"] = self.result.texts
        return [
            {name: None if value != value else value for name, value in zip(columns, row, strict=True)}
            for row in zip(*columns.values(), strict=True)
        ]

    def about(self) -> dict[str, Any]:
        """All of it as one JSON object; the values of numbers are means over the samples."""
        result, measured = self.result, self.metrics | ({} if self.score is None else {"score": self.score})
        return {
            "redraft": __version__,
            **{name: value for name, value in result.settings.items() if name != "versions"},
            "interrupted": result.interrupted,
            "seconds": result.seconds,
            "nfe": float(result.ledger.nfe.double().mean()),
            "verifier_calls": float(result.ledger.verifier_calls.double().mean()),
            "means": means_of(measured),
            "samples": self.rows(),
        }

    def save(self, folder: Path) -> None:
        """Write the result, samples.jsonl, and samples.txt of texts, or samples.png and pictures/ of pictures.

        Raises:
            RedraftError: the folder cannot be written.
        """
        self.result.save(folder)
        rows = self.rows()
        if self.result.texts is not None:
            write(folder / "samples.txt", (together(self.result.texts) + "\n").encode())
        if self.result.shows:
            pictures = drawn(self.result.samples, self.result.shows)
            write(folder / "samples.png", png(tiled([*map(shrunk, pictures)], COLUMNS)))
            for number, picture in enumerate(pictures):
                rows[number]["picture"] = f"pictures/{number:04d}.png"
                write(folder / rows[number]["picture"], png(picture))
        write(folder / "samples.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
