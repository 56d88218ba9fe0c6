"""A folder of images, and single image files."""

from __future__ import annotations

import os
from pathlib import Path

from rsicd_embed.datasets.base import Example, Skipped, Source
from rsicd_embed.errors import DatasetError
from rsicd_embed.images import SUFFIXES


def load(folder: Path) -> Source:
    """Every image below a folder, sorted by its relative path, which is its id; hidden files aside.

    Folders that cannot be listed and names that are not UTF-8 are told in `Source.skipped`.

    Raises:
        DatasetError: there is no image.
    """
    examples: list[Example] = []
    skipped: list[Skipped] = []
    others = 0

    def unlisted(error: OSError) -> None:
        skipped.append(Skipped(_shown(error.filename), f"cannot be listed: {error.strerror}"))

    for directory, folders, files in os.walk(folder, onerror=unlisted):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            path = Path(directory, name)
            if name.startswith(".") or path.suffix.lower() not in SUFFIXES:
                others += 1
            elif _is_utf8(path):
                examples.append(Example(path.relative_to(folder).as_posix(), str(path)))
            else:
                skipped.append(Skipped(_shown(path), "expected a UTF-8 file name; rename it"))
    if not examples:
        found = f"{others} other files" if others else "nothing"
        if skipped:
            found += f"; {skipped[0].uri}: {skipped[0].reason}"
        raise DatasetError(
            f"expected images ({', '.join(sorted(SUFFIXES))}) in {_shown(folder)}, found {found}"
        )
    examples.sort(key=lambda example: example.id)
    return Source(folder, tuple(examples), skipped=tuple(skipped))


def load_file(path: Path) -> Source:
    """One image file; its id is its name.

    Raises:
        DatasetError: its name is not UTF-8.
    """
    if not _is_utf8(path):
        raise DatasetError(f"expected a UTF-8 file name, found {_shown(path)}; rename it")
    return Source(path, (Example(path.name, str(path)),))


def _is_utf8(path: Path) -> bool:
    try:
        str(path.absolute()).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _shown(path: Path | str) -> str:
    """A path as text that can be printed: bytes that are not UTF-8 become `\\xff`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
