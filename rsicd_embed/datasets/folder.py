"""A folder of images, and single image files."""

from __future__ import annotations

import os
from pathlib import Path

from rsicd_embed.datasets.base import Example, Source
from rsicd_embed.embedder.images import SUFFIXES
from rsicd_embed.errors import DatasetError


def load(folder: Path) -> Source:
    """Every image below a folder, sorted by its relative path, which is its id; hidden files aside.

    Raises:
        DatasetError: there is none, or a file name is not UTF-8.
    """
    paths, others = [], 0
    for directory, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            path = Path(directory, name)
            if not name.startswith(".") and path.suffix.lower() in SUFFIXES:
                paths.append(path)
            else:
                others += 1
    if not paths:
        found = f"{others} other files" if others else "nothing"
        raise DatasetError(
            f"expected images ({', '.join(sorted(SUFFIXES))}) in {folder}, found {found}"
        )
    examples = [Example(_id(path, folder), path) for path in paths]
    return Source(folder, tuple(sorted(examples, key=lambda example: example.id)))


def load_file(path: Path) -> Source:
    """One image file; its id is its name."""
    return Source(path.parent, (Example(_id(path, path.parent), path),))


def _id(path: Path, root: Path) -> str:
    name = path.relative_to(root).as_posix()
    try:
        name.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DatasetError(f"expected a UTF-8 file name, found {name!r}; rename it") from error
    return name
