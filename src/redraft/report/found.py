"""What a search for pictures has kept of a prompt, read again: damage is one sentence that says what to do."""

from __future__ import annotations

import base64
import io
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import fmean
from typing import Any

from redraft.core.errors import RedraftError, require, said
from redraft.core.files import plain, read_json
from redraft.core.trace import Trace

WIDE, SHEET = 360, 1024  # pixels of a picture in the page, and of a sheet
TINY = 64  # pixels of a picture whose pixels become squares there
WHICH = ("baseline", "winner")
NFE = ("nfe", "baseline_nfe")


def read_object(path: Path, mend: str) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        RedraftError: there is none; the sentence ends with what to do, `mend`.
    """
    try:
        found = read_json(path)
    except (OSError, ValueError) as error:
        raise RedraftError(f"{path} is damaged: {mend}") from error
    if not isinstance(found, dict):
        raise RedraftError(f"{path} is damaged: {mend}")
    return found


@dataclass(frozen=True)
class Found:
    """What is in the folder of a prompt.

    Attributes:
        folder: where its files are.
        prompt: the text.
        category: of the prompt, or "".
        images: of each, `baseline` and `winner`, scores by verifier, their numbers among the candidates, and what the
            search cost.
        interrupted: the search of this prompt has not ended.
        mark: of the search that made it.
    """

    folder: Path
    prompt: str
    category: str
    images: list[dict[str, Any]]
    interrupted: bool
    mark: str

    @classmethod
    def read(cls, folder: Path) -> Found | None:
        """What is there, if a search has come so far.

        Raises:
            RedraftError: it is damaged.
        """
        path = folder / "summary.json"
        if not plain(path):
            return None
        about = read_object(path, mended(folder))
        try:
            images = [_image(each) for each in about["images"]]
            category = _of(str, _of(dict, about["facts"]).get("category", ""))
            known = _of(str, about["prompt"]), category, images, _of(bool, about["interrupted"])
            return cls(folder, *known, _of(str, about.get("mark", "")))
        except (KeyError, TypeError) as error:
            raise damaged(path) from error

    def check(self, verifiers: Collection[str]) -> None:
        """Read all files that a page needs.

        Raises:
            RedraftError: one is damaged, or there is no score by one of the `verifiers`.
        """
        if not self.images or any(name not in image[w] for image in self.images for w in WHICH for name in verifiers):
            raise damaged(self.folder / "summary.json")
        self.trace(verifiers)
        for number, image in enumerate(self.images):
            for which in WHICH:
                self.picture(which, number)
            if image["sheet"]:
                self.sheet(number)

    def picture(self, which: str, number: int, wide: int = WIDE) -> str:
        """The picture of an image, as an address that holds it.

        Raises:
            RedraftError: it is damaged or has gone.
        """
        path = self.folder / f"{which}-{number}.png"
        try:
            return _encoded(path, wide, path.stat().st_mtime_ns if plain(path) else 0)
        except RedraftError:
            raise
        except Exception as error:  # a library's, of whatever kind
            raise damaged(path, error) from error

    def sheet(self, number: int) -> str:
        """Likewise the sheet of candidates of an image."""
        return self.picture("candidates", number, SHEET)

    def trace(self, verifiers: Collection[str]) -> Trace:
        """The record of the search, with a column for each of the `verifiers`.

        Raises:
            RedraftError: it is damaged or has gone.
        """
        path = self.folder / "trace.parquet"
        try:
            if plain(path) and {"draft", "nfe", *verifiers} <= set(found := Trace.load(path)) and len(found):
                return found
        except RedraftError:
            raise
        except Exception as error:  # a library's, of whatever kind
            raise damaged(path, error) from error
        raise damaged(path)

    def mean(self, which: str, verifier: str) -> float:
        """Of all images: `which` is 'baseline' or 'winner'."""
        return fmean(image[which][verifier] for image in self.images)

    def gain(self, verifier: str) -> float:
        """The winners' mean less the baselines'."""
        return self.mean("winner", verifier) - self.mean("baseline", verifier)


def damaged(path: Path, why: BaseException | None = None) -> RedraftError:
    """The error for a file of a prompt's folder that cannot be read."""
    state = "is damaged" if path.exists() else "is missing"
    reason = f" ({said(why)})" if why and path.exists() else ""
    return RedraftError(f"{path} {state}{reason}: {mended(path.parent)}")


def mended(folder: Path) -> str:
    """What to do about a prompt's folder in which something is damaged."""
    return f"delete the folder {folder} and give the same command again, which searches for this prompt anew"


def _image(about: Any) -> dict[str, Any]:
    """What is said of an image, if all of it is."""
    for which in WHICH:
        for score in _of(dict, about[which]).values():
            _of(float, score)
    for name in (*NFE, "problem"):
        _of(int, about[name])
    for name in ("candidate", "baseline_candidate"):
        _of((int, type(None)), about[name])
    _of(bool, about["baseline_won"])
    return dict(about, sheet=[_of(str, label) for label in _of(list, about["sheet"])])


def _of(kind: Any, value: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} is of another kind")
    return value


@lru_cache(maxsize=4096)
def _encoded(path: Path, wide: int, changed: int) -> str:
    """The file as an address that holds it, shrunk to `wide` pixels, or enlarged to as many if it is tiny."""
    pil = require("PIL.Image", "plot")
    with pil.open(path) as image:
        image = image.convert("RGB")
    file = io.BytesIO()
    if max(image.size) <= TINY:
        times, kind = wide // max(image.size), "png"
        image.resize([times * side for side in image.size], pil.Resampling.NEAREST).save(file, kind)
    else:
        kind = "jpeg"
        image.thumbnail((wide, wide))
        image.save(file, kind, quality=85)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
