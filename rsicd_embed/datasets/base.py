"""One form for every source of images: examples with typed attributes."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

_NO_ATTRIBUTES: Mapping[str, Any] = {}

# The start of a web address, or of an object store's.
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


@dataclass(frozen=True, slots=True)
class Example:
    """One image. There is one of these for each image of an archive, so it is kept small.

    Attributes:
        id: stable across runs; the path relative to the source unless the source gives one.
        file: where the image file is: a string, since a Path takes five times its memory.
        attributes: what else the source says of it, by column name.
    """

    id: str
    file: str
    attributes: Mapping[str, Any] = field(default_factory=lambda: _NO_ATTRIBUTES)

    @property
    def path(self) -> Path:
        """Where the image file is."""
        return Path(self.file)

    @property
    def uri(self) -> str:
        """Where the image file is, from any working directory; of a web address, itself."""
        return self.file if ADDRESS.match(self.file) else str(plain_path(self.path))

    @property
    def captions(self) -> tuple[str, ...]:
        """Its captions; empty where the source has none."""
        found = self.attributes.get("captions") or ()
        return (found,) if isinstance(found, str) else tuple(found)

    @property
    def label(self) -> str | None:
        """Its class as the source writes it."""
        return self.attributes.get("label")

    @property
    def split(self) -> str | None:
        """train, val or test, as the source says."""
        return self.attributes.get("split")


@dataclass(frozen=True)
class Skipped:
    """An image that was left out, and why."""

    uri: str
    reason: str


@dataclass(frozen=True)
class ManifestRows:
    """A file's table, from which values are converted again when a store has another type.

    Attributes:
        path: the file.
        ids: of the rows.
        numbers: of the rows in the file, from 1.
        written: the columns as the file has them; of CSV and JSONL, text as written.
        nulls: texts that are null in a column of another type than text.
    """

    path: Path
    ids: Sequence[str]
    numbers: Sequence[int]
    written: pa.Table
    nulls: frozenset[str] = frozenset()

    def take(self, places: Sequence[int]) -> ManifestRows:
        """Some of the rows."""
        return replace(
            self,
            ids=[self.ids[place] for place in places],
            numbers=[self.numbers[place] for place in places],
            written=self.written.take(pa.array(places, pa.int64())),
        )

    def of(self, examples: Sequence[Example]) -> ManifestRows:
        """The rows of some of the examples, in their order."""
        if len(examples) == len(self.ids):
            return self
        places = {id_: place for place, id_ in enumerate(self.ids)}
        return self.take([places[example.id] for example in examples])


@dataclass(frozen=True)
class Source:
    """Images that belong together.

    Attributes:
        root: the folder that ids and relative paths start from; of a single image, the file.
        examples: in a stable order, with distinct ids.
        schema: Arrow types of the attributes.
        skipped: what is in the source and cannot be an example.
        unread: number of files by suffix that look like pictures and are of formats not read.
        notes: what else a person should know about how the source was read, one line each.
        inferred: columns that come from folder names; a value that a store already has wins.
        rows: the table that the examples come from, if there is one.
    """

    root: Path
    examples: tuple[Example, ...]
    schema: pa.Schema = field(default_factory=lambda: pa.schema([]))
    skipped: tuple[Skipped, ...] = ()
    unread: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    inferred: tuple[str, ...] = ()
    rows: ManifestRows | None = field(default=None, repr=False, compare=False)

    def __repr__(self) -> str:
        """One line, not all examples."""
        columns = ", ".join(f"{field.name} {field.type}" for field in self.schema) or "none"
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        return f"<Source {self.root}: {len(self.examples)} images{skipped}, columns: {columns}>"

    def split(self, name: str) -> tuple[Example, ...]:
        """The examples of one split."""
        return tuple(example for example in self.examples if example.split == name)


def plain_path(path: Path) -> Path:
    """An absolute path without `..`; links are kept where no `..` goes through them."""
    path = path.absolute()
    return path.resolve() if ".." in path.parts else path


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
