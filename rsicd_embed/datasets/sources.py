"""What SOURCE on the command line may be → one `Source`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rsicd_embed.arguments import require_items
from rsicd_embed.datasets import captioned, class_folders, folder, manifest, splits
from rsicd_embed.datasets.base import Example, Source
from rsicd_embed.datasets.missing_files import why_missing
from rsicd_embed.datasets.typed_sources import resolve
from rsicd_embed.errors import DatasetError

# The start of an address as Path leaves it, with a single slash.
_COLLAPSED = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+):/+")


def open_source(path: Path, *, allow_empty: bool = False) -> Source:
    """A folder, an RSICD-like folder, an image file, or a manifest.

    Args:
        path: where it is.
        allow_empty: return a source without examples for a folder that has no image any more.

    Raises:
        DatasetError: it is missing or empty, or is not as described.
    """
    if os.path.isdir(path):  # noqa: PTH112  (Path.is_dir raises for a name that is too long)
        if (source := captioned.load(path)) is not None:
            return source
        source = class_folders.from_folder_names(folder.load(path, allow_empty=allow_empty))
        notes = [f"{file} lists no images with captions" for file in captioned.json_files(path)]
        return replace(source, notes=(*source.notes, *notes))
    if not os.path.exists(path):  # noqa: PTH110
        written = _COLLAPSED.sub(r"\1://", str(path))
        reason = why_missing(written)
        raise DatasetError(
            f"expected a folder, an image or a manifest, found nothing at {written}"
            f"{f': {reason}' if reason else ''}"
        )
    if path.suffix.lower() in manifest.SUFFIXES:
        return manifest.load(path)
    return folder.load_file(path)


def open_sources(
    paths: Sequence[str | Path],
    *,
    split: str | None = None,
    allow_empty: bool = False,
    column_types: Mapping[str, str] | None = None,
) -> list[Source]:
    """Several sources, whose ids must not meet and whose columns must agree in type.

    A column that is of an integer type in one source and of a float type in another is of the
    float type in both; one that is text in another source is text in all, as written.

    Args:
        paths: folders, RSICD-like folders, image files and manifests.
        split: only the images that the source puts in it; `Valid` and `dev` are `val`, and so on.
        allow_empty: as `open_source`.
        column_types: column name → "text", "int64", "float64", "bool", "timestamp" or "date", to
            read it as, such as text with dates.

    Raises:
        DatasetError: as `open_source`, or two of them clash.
        ArgumentError: a single path, which belongs in a list.
    """
    require_items(paths, "paths", (str, Path))
    sources = [open_source(Path(path), allow_empty=allow_empty) for path in paths]
    if split is not None:
        sources = [_only(source, split) for source in sources]
    seen: dict[str, Example] = {}
    for example in (example for source in sources for example in source.examples):
        other = seen.setdefault(example.id, example)
        if other.uri != example.uri:
            raise DatasetError(
                f"{other.path} and {example.path} would both get the id {example.id!r}; "
                "ingest their common folder, or a manifest with ids"
            )
    for table in [source for source in sources if not source.inferred]:
        owner = str(table.root)
        sources = [class_folders.give_way(source, table.schema, owner) for source in sources]
    return resolve(sources, column_types)


def _only(source: Source, split: str) -> Source:
    wanted = splits.plain(split)
    examples = tuple(
        example for example in source.examples if splits.plain(example.split) == wanted
    )
    if source.examples and not examples:
        found = sorted({str(example.split or "none") for example in source.examples})
        raise DatasetError(
            f"{source.root}: expected images of the split {split!r}, found {', '.join(found)}"
        )
    return replace(source, examples=examples)
