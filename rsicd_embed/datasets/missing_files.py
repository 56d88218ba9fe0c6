"""Why a path, of a manifest or of a source, leads to no file."""

from __future__ import annotations

import os
import unicodedata
from urllib.parse import unquote

from rsicd_embed.datasets.base import ADDRESS


def why_missing(file: str) -> str | None:
    """What is wrong with a path, and what to write instead; None if nothing is known to be.

    Args:
        file: the path, as `Example.file` has it.
    """
    if ADDRESS.match(file):
        return "web addresses are not downloaded; download the image and write its path"
    if os.path.lexists(file):
        return None
    folder, name = os.path.split(file)
    spellings = {
        file.replace("\\", "/"): "without backslashes",
        unicodedata.normalize("NFD", file): "in Unicode's decomposed form (NFD)",
        unicodedata.normalize("NFC", file): "in Unicode's composed form (NFC)",
        os.path.join(folder, name.strip()): "without blanks around its name",  # noqa: PTH118
        unquote(file): "without %-escapes",
        _with_other_case(file): "with its suffix in the other case",
    }
    for other, difference in spellings.items():
        if other != file and os.path.lexists(other):
            return f"there is {other}, {difference}; write that"
    return "expected / in the path, found backslashes" if "\\" in file else None


def _with_other_case(file: str) -> str:
    stem, suffix = os.path.splitext(file)  # noqa: PTH122  (a Path would alter the rest)
    return stem + (suffix.lower() if suffix != suffix.lower() else suffix.upper())
