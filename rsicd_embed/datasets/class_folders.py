"""A folder with one folder of images for each class, perhaps below one for each split."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath

import pyarrow as pa

from rsicd_embed.datasets import folder as plain
from rsicd_embed.datasets.base import Example, Skipped, Source
from rsicd_embed.errors import DatasetError

SCHEMA = pa.schema([pa.field("label", pa.string()), pa.field("split", pa.string())])
SPLITS = frozenset({"train", "val", "valid", "validation", "dev", "test"})


def load(folder: Path) -> Source:
    """FOLDER/CLASS/… or FOLDER/SPLIT/CLASS/… → examples with a label, and a split in the latter.

    Images beside the class folders are told in `Source.skipped`.

    Raises:
        DatasetError: no images, no class folders, or a class folder without images.
    """
    found = plain.load(folder)
    tops = _folders(folder)
    by_split = bool(tops) and {one.name for one in tops} <= SPLITS
    classes = [one for top in tops for one in _folders(top)] if by_split else tops
    if not classes:
        raise DatasetError(
            f"expected a folder for each class in {folder}, found {len(found.examples)} images "
            "and no class folders; sort them into FOLDER/CLASS, or add a dataset_*.json"
        )
    examples, outside = [], []
    for example in found.examples:
        parents = PurePosixPath(example.id).parts[:-1]
        if len(parents) < 1 + by_split:
            outside.append(Skipped(example.uri, "in no class folder"))
            continue
        split = parents[0] if by_split else None
        attributes = {"label": parents[int(by_split)], "split": split}
        examples.append(replace(example, attributes=attributes))
    _require_images(classes, examples, by_split=by_split)
    return Source(folder, tuple(examples), SCHEMA, (*found.skipped, *outside))


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _require_images(classes: list[Path], examples: list[Example], *, by_split: bool) -> None:
    filled = {(example.split if by_split else None, example.label) for example in examples}
    for one in classes:
        if (one.parent.name if by_split else None, one.name) not in filled:
            raise DatasetError(
                f"expected images of the class {one.name!r} in {one}, found none; "
                "add some or remove the folder"
            )
