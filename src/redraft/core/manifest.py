"""Several files that belong together: a manifest names them with their checksums, and they change as one.

The new files are written beside the old ones, then the new manifest takes the place of the old one, which is the moment
of the change, and then they move to their places. Wherever a kill falls, the manifest fits what is in place or beside.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from redraft.core.files import read_json, regular, write

FILES, SUM = "files", "checksum"  # entries of the manifest, a JSON object


def keep(manifest: Path, about: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
    """Write `files` into the folder of the manifest, which says `about` them, in place of those that it named before.

    Raises:
        OSError, RedraftError: they cannot be written; those that were there before are whole.
    """
    folder = manifest.parent
    folder.mkdir(parents=True, exist_ok=True)
    before = _settled(manifest)
    parts = {folder / name: _beside(folder / name) for name in files}
    for path in parts:
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a folder")
    try:
        for content, part in zip(files.values(), parts.values(), strict=True):
            part.write_bytes(content)
        said = {**about, FILES: {name: sha256(content).hexdigest() for name, content in files.items()}}
        write(manifest, (json.dumps({**said, SUM: _sum(said)}, indent=2) + "\n").encode())
    except BaseException:
        for part in parts.values():
            with suppress(OSError):
                part.unlink()
        raise
    for path, part in parts.items():
        os.replace(part, path)
    for name in before.keys() - files.keys():
        if _is(folder / name, before[name]):
            (folder / name).unlink()


def kept(manifest: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """What the manifest says, and the contents of the files that it names.

    Raises:
        OSError, ValueError: one is missing, or not what was written.
    """
    about = _said(manifest)
    return about, {name: _content(manifest.parent / name, wanted) for name, wanted in about.pop(FILES).items()}


def _said(manifest: Path) -> dict[str, Any]:
    """What a manifest says, if it is as it was written."""
    about = read_json(manifest)
    if not isinstance(about, dict) or not isinstance(about.get(FILES), dict):
        raise ValueError(f"{manifest.name} names no files, as those of an older version: make it again")
    if about.pop(SUM, None) != _sum(about) or any(Path(name).name != name for name in about[FILES]):
        raise ValueError(f"{manifest.name} is damaged or was changed: its checksum does not fit")
    return about


def _sum(about: Mapping[str, Any]) -> str:
    plain = json.loads(json.dumps(about))  # whose keys are texts
    return sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _content(path: Path, wanted: str) -> bytes:
    """The content with the checksum `wanted`, in place or beside."""
    for place in (path, _beside(path)):
        if _is(place, wanted):
            return place.read_bytes()
    regular(path)
    raise ValueError(f"{path.name} is damaged, or of another save: its checksum does not fit")


def _settled(manifest: Path) -> dict[str, str]:
    """The files named now with their checksums, each put in its place if the save that wrote them was killed."""
    try:
        files: dict[str, str] = _said(manifest)[FILES]
    except (OSError, ValueError):
        return {}
    for path in (manifest.parent / name for name in files):
        if _is(_beside(path), files[path.name]):
            os.replace(_beside(path), path)
    return files


def _is(path: Path, wanted: str) -> bool:
    return path.is_file() and sha256(path.read_bytes()).hexdigest() == wanted


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")
