"""`Source` and `Example`, the common form of every source of images, and helpers for paths."""

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

from rsicd_embed.images import container_of
from rsicd_embed.remote import is_remote

_NO_ATTRIBUTES: Mapping[str, Any] = {}

# The beginning of a URL, of the web or of an object store.
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")

# The column with the ETags of remote objects, by which unchanged ones are known without reading.
ETAG = "object_etag"


@dataclass(frozen=True, slots=True)
class Example:
    """One image of a source. Archives have millions of them, so this class is kept small.

    Attributes:
        id: stable across runs; by default the path relative to the source.
        file: path or URL of the image file, or the address of a window of a scene (see
            `images.SceneWindow`), of a member of a tar or of a cell of a table (see
            `images.archived_images`); a string, since a Path takes five times the memory.
        attributes: values of the source's columns, by column name.
    """

    id: str
    file: str
    attributes: Mapping[str, Any] = field(default_factory=lambda: _NO_ATTRIBUTES)

    @property
    def path(self) -> Path:
        """Path of the image file."""
        return Path(self.file)

    @property
    def uri(self) -> str:
        """Absolute path of the image file, or its URL."""
        if ADDRESS.match(self.file) or container_of(self.file):
            return self.file
        return str(plain_path(self.path))

    @property
    def captions(self) -> tuple[str, ...]:
        """The captions; empty if the source has none."""
        captions = self.attributes.get("captions") or ()
        return (captions,) if isinstance(captions, str) else tuple(captions)

    @property
    def label(self) -> str | None:
        """The class, as the source spells it."""
        return self.attributes.get("label")

    @property
    def split(self) -> str | None:
        """The split: train, val, test or another name."""
        return self.attributes.get("split")


@dataclass(frozen=True)
class Skipped:
    """An image that was skipped, and the reason."""

    uri: str
    reason: str


@dataclass(frozen=True)
class ManifestRows:
    """The table of a manifest, kept so that values can be converted to a store's types.

    Attributes:
        path: the manifest; a URL is text.
        ids: ids of the rows.
        numbers: row numbers in the file, from 1.
        written: columns as stored in the file; for CSV and JSONL, the text of each value.
        nulls: texts that mean null in columns of other types than text.
    """

    path: Path | str
    ids: Sequence[str]
    numbers: Sequence[int]
    written: pa.Table
    nulls: frozenset[str] = frozenset()

    def take(self, places: Sequence[int]) -> ManifestRows:
        """Selects rows by position."""
        return replace(
            self,
            ids=[self.ids[place] for place in places],
            numbers=[self.numbers[place] for place in places],
            written=self.written.take(pa.array(places, pa.int64())),
        )

    def of(self, examples: Sequence[Example]) -> ManifestRows:
        """Selects the rows of the given examples, in their order."""
        if len(examples) == len(self.ids):
            return self
        places = {id_: place for place, id_ in enumerate(self.ids)}
        return self.take([places[example.id] for example in examples])


@dataclass(frozen=True)
class Source:
    """A set of images, such as a folder or a manifest.

    Attributes:
        root: the folder to which ids and relative paths refer; for a single image, tar or table,
            its file; a URL is text.
        examples: the images, in a stable order and with distinct ids; those of large sources are
            read from a file while they are iterated (see `spooled_examples`).
        schema: Arrow types of the attributes.
        skipped: files and rows that cannot be used, with reasons.
        unread: number of image files in unsupported formats, by suffix.
        notes: messages for the user about how the source was read, one line each.
        inferred: columns derived from folder names; values already in a store take precedence.
        rows: the table behind the examples, for manifests.
        max_nodata: largest share of pixels without data in a tile of a scene.
        complete: whether a tar or table was read to its end, and all of its images are examples.
    """

    root: Path | str
    examples: Sequence[Example]
    schema: pa.Schema = field(default_factory=lambda: pa.schema([]))
    skipped: tuple[Skipped, ...] = ()
    unread: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    inferred: tuple[str, ...] = ()
    rows: ManifestRows | None = field(default=None, repr=False, compare=False)
    max_nodata: float = 1.0
    complete: bool = True

    def __repr__(self) -> str:
        """One line, not all examples."""
        columns = ", ".join(f"{field.name} {field.type}" for field in self.schema) or "none"
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        return f"<Source {self.root}: {len(self.examples)} images{skipped}, columns: {columns}>"

    def split(self, name: str) -> tuple[Example, ...]:
        """The examples of one split."""
        return tuple(example for example in self.examples if example.split == name)


def with_etag(source: Source, etag: str | None = None) -> Source:
    """Adds the column `ETAG`.

    Args:
        source: a source.
        etag: the ETag of all its examples; None if it is known only when they are read.
    """
    if ETAG in source.schema.names or etag == "":
        return source
    examples = source.examples
    if etag:
        shared = {ETAG: etag}
        examples = tuple(
            replace(
                example,
                attributes={**example.attributes, **shared} if example.attributes else shared,
            )
            for example in examples
        )
    schema = source.schema.append(pa.field(ETAG, pa.string()))
    return replace(source, examples=examples, schema=schema)


def local_path(href: str) -> str:
    """The path of a `file://` URL; other paths and URLs as they are."""
    if not href.startswith("file://"):
        return href
    return unquote(href.removeprefix("file://").removeprefix("localhost"))


def plain_path(path: Path) -> Path:
    """Makes a path absolute and removes `..`; symbolic links are resolved only if it has `..`."""
    path = path.absolute()
    return path.resolve() if ".." in path.parts else path


def why_missing(file: str) -> str | None:
    """Explains why a path leads to no file, and suggests a correction; None if unknown.

    Args:
        file: a path or URL, as in `Example.file`.
    """
    if is_remote(file):
        return None
    if ADDRESS.match(file):
        return (
            "expected a path or an address of s3://, gs://, az:// or http(s)://; download the file "
            "and give its path"
        )
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
            return f"there is {other}, {difference}; use that path"
    return "expected / in the path, found backslashes" if "\\" in file else None


def _with_other_case(file: str) -> str:
    stem, suffix = os.path.splitext(file)  # noqa: PTH122  (a Path would alter the rest)
    return stem + (suffix.lower() if suffix != suffix.lower() else suffix.upper())
