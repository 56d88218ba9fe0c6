"""Class names as data sets write them → words that a person, and CLIP, would use."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from rsicd_embed.datasets import folder as plain
from rsicd_embed.datasets import splits
from rsicd_embed.datasets.base import Example, Skipped, Source
from rsicd_embed.errors import DatasetError

_READABLE = {
    # RSICD
    "bareland": "bare land",
    "baseballfield": "baseball field",
    "center": "center building",
    "commercial": "commercial area",
    "denseresidential": "dense residential area",
    "industrial": "industrial area",
    "mediumresidential": "medium residential area",
    "parking": "parking lot",
    "playfields": "playing fields",
    "railwaystation": "railway station",
    "sparseresidential": "sparse residential area",
    "storagetanks": "storage tanks",
    # UC Merced
    "agricultural": "farmland",
    "baseballdiamond": "baseball diamond",
    "buildings": "buildings",
    "golfcourse": "golf course",
    "mobilehomepark": "mobile home park",
    "parkinglot": "parking lot",
    "tenniscourt": "tennis court",
}

# What CLIP-rsicd asked in its zero-shot evaluation.
PROMPT = "An aerial photograph of {category}"

# How a class name is made into a caption for training.
CAPTION_TEMPLATES = (
    "an aerial photograph of {category}",
    "a satellite image of {category}",
    "aerial view of {category}",
    "{category}",
)


def phrases(label: str) -> tuple[str, ...]:
    """`readable` and the synonyms of a class, if there are any: `port` → `port`, `a seaport`, ….

    Example:
        >>> phrases("TennisCourt")[:2]
        ('tennis court', 'tennis courts')
    """
    return (readable(label), *_synonyms().get(_key(label), ()))


@cache
def _synonyms() -> Mapping[str, tuple[str, ...]]:
    lines = Path(__file__).with_name("class_synonyms.txt").read_text(encoding="utf-8").splitlines()
    entries = (line.partition(": ") for line in lines if not line.startswith("#"))
    return {key: tuple(words.split(", ")) for key, _, words in entries}


def _key(label: str) -> str:
    return re.sub(r"[\W_]", "", label).lower()


def readable(label: str) -> str:
    """`denseresidential` → `dense residential area`; `GolfCourse` → `golf course`."""
    key = _key(label)
    if key in _READABLE:
        return _READABLE[key]
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", label)
    return " ".join(re.sub(r"[\W_]+", " ", words).lower().split())


SCHEMA = pa.schema([pa.field("label", pa.string()), pa.field("split", pa.string())])

# Folders with these names are parts of a dataset, not classes.
_NO_CLASSES = frozenset(
    {
        *("image", "images", "img", "imgs", "photos", "pictures", "tiles", "patches", "chips"),
        *("mask", "masks", "label", "labels", "annotations", "thumbnails", "thumbs", "previews"),
    }
)


def load(folder: Path) -> Source:
    """FOLDER/CLASS/… or FOLDER/SPLIT/CLASS/… → examples with a label, and a split in the latter.

    Images beside the class folders are in `Source.skipped`.

    Raises:
        DatasetError: no images, no class folders, a class folder without images, or split folders
            among class folders.
    """
    source = plain.load(folder)
    by_split = _are_splits(folder, source.examples)
    classes = _folders(folder)
    if by_split:
        classes = [path for top in classes if splits.of_folder(top.name) for path in _folders(top)]
    if not classes:
        raise DatasetError(
            f"expected a folder for each class in {folder}, found {len(source.examples)} images "
            "and no class folders; sort them into FOLDER/CLASS, or add a dataset_*.json"
        )
    attributes = _attributes(SCHEMA.names)
    examples, outside = [], []
    for example in source.examples:
        parents = _parents(example)
        if len(parents) < 1 + by_split:
            outside.append(Skipped(example.uri, "in no class folder"))
            continue
        split = splits.of_folder(parents[0]) if by_split else None
        examples.append(replace(example, attributes=attributes(parents[int(by_split)], split)))
    filled = {tuple(_parents(example)[: 1 + by_split]) for example in examples}
    for path in classes:
        if path.relative_to(folder).parts not in filled:
            raise DatasetError(_without_images(path))
    skipped = (*source.skipped, *outside)
    notes = (*source.notes, *_doubts(folder, examples, classes))
    return replace(source, examples=tuple(examples), schema=SCHEMA, skipped=skipped, notes=notes)


def from_folder_names(source: Source) -> Source:
    """Adds the columns `label` and `split` to a plain folder whose folder names say them.

    Every image has to be in FOLDER/CLASS, in FOLDER/SPLIT/CLASS, or in FOLDER/SPLIT, which gives a
    split alone. There are no labels where all images are of one class, or where a folder is called
    `images`, or after a number or a date. A note says what was taken from folder names.

    Args:
        source: of `folder.load`.

    Returns:
        The same examples, and the new columns in `Source.inferred`.
    """
    parents = [_parents(example) for example in source.examples]
    by_split = bool(parents) and all(names and splits.of_folder(names[0]) for names in parents)
    below = [names[1:] for names in parents] if by_split else parents
    classes, why_none = _classes(source.examples, below)
    notes = list(source.notes)
    if why_none:
        notes.append(f"{source.root}: no labels from folder names: {why_none}")
    if classes:
        notes.append(
            f"{source.root}: labels are the names of the images' folders "
            f"({len(classes):,} classes: {_few(classes)})"
        )
    if by_split:
        tops = sorted({names[0] for names in parents})
        notes.append(f"{source.root}: splits are the names of the top folders ({_few(tops)})")
    columns = [name for name, known in (("label", classes), ("split", by_split)) if known]
    if not columns:
        return replace(source, notes=tuple(notes))
    attributes = _attributes(columns)
    examples = (
        replace(
            example,
            attributes=attributes(
                inner[0] if classes else None, splits.of_folder(names[0]) if by_split else None
            ),
        )
        for example, names, inner in zip(source.examples, parents, below, strict=True)
    )
    return replace(
        source,
        examples=tuple(examples),
        schema=pa.schema([SCHEMA.field(name) for name in columns]),
        notes=tuple(notes),
        inferred=tuple(columns),
    )


def give_way(source: Source, schema: pa.Schema, owner: str) -> Source:
    """Leaves out inferred columns that have another type than text elsewhere, with a note.

    Args:
        source: with columns from folder names, or without.
        schema: columns elsewhere.
        owner: whose they are, for the note.
    """
    kinds = {name: schema.field(name).type for name in source.inferred if name in schema.names}
    clashing = [name for name, kind in kinds.items() if kind not in (pa.string(), pa.null())]
    if not clashing:
        return source
    notes = (
        f"{source.root}: the column {name!r} of {owner} is of type {kinds[name]}, so folder names "
        "are not written to it"
        for name in clashing
    )
    return replace(
        source,
        schema=pa.schema([field for field in source.schema if field.name not in clashing]),
        notes=(*source.notes, *notes),
        inferred=tuple(name for name in source.inferred if name not in clashing),
    )


def _parents(example: Example) -> list[str]:
    """The names of the folders between the source and an image."""
    return example.id.split("/")[:-1]


def _attributes(columns: Sequence[str]) -> Callable[[str | None, str | None], Mapping[str, Any]]:
    """A function from label and split to attributes, which images of one class share."""

    @cache
    def attributes(label: str | None, split: str | None) -> Mapping[str, Any]:
        values = {"label": label, "split": split}
        return {name: values[name] for name in columns}

    return attributes


def _doubts(root: Path, examples: Sequence[Example], classes: Sequence[Path]) -> list[str]:
    """What suggests that the folders are not the classes, or hide splits, one line each."""
    doubts = []
    strange = sorted({path.name for path in classes if not _may_be_class(path.name)})
    if strange:
        doubts.append(f"{root}: folders that do not look like classes: {_few(strange)}")
    inner = (name for example in examples for name in _parents(example)[1:])
    inside = sorted({name for name in inner if splits.of_folder(name)} - {*strange})
    if inside:
        doubts.append(
            f"{root}: {_few(inside)} below the top folders are not read as splits; "
            "FOLDER/SPLIT/CLASS is"
        )
    return doubts


def _are_splits(folder: Path, examples: Sequence[Example]) -> bool:
    """Whether the top folders that contain images are splits.

    Raises:
        DatasetError: only some of them are.
    """
    tops = {names[0] for example in examples if (names := _parents(example))}
    named = {name for name in tops if splits.of_folder(name)}
    if named and named != tops:
        raise DatasetError(
            f"{folder}: expected a folder for each split or one for each class, found the splits "
            f"{_few(sorted(named))} beside {_few(sorted(tops - named))}; move one kind elsewhere"
        )
    return bool(named)


def _classes(examples: Sequence[Example], below: Sequence[list[str]]) -> tuple[list[str], str]:
    """The classes that folder names give; or none, and why not where that may surprise.

    Args:
        examples: of a plain folder.
        below: for each, its folders below the split.
    """
    classes = sorted({names[0] for names in below if len(names) == 1})
    outside = [
        example.id for example, names in zip(examples, below, strict=True) if len(names) != 1
    ]
    if len(classes) < 2 or 2 * len(outside) >= len(examples):
        return [], ""
    strange = next((name for name in classes if not _may_be_class(name)), None)
    if strange is not None:
        return [], f"{strange!r} does not look like a class; a manifest can give them"
    if outside:
        return [], (
            f"not all images are directly in a class folder, such as {outside[0]} "
            f"({len(outside):,} of {len(examples):,})"
        )
    return classes, ""


def _may_be_class(name: str) -> bool:
    """Whether a folder's name is that of a class: no number, date, split or kind of file."""
    if splits.of_folder(name):
        return False
    digits = sum(character.isdigit() for character in name)
    letters = sum(character.isalpha() for character in name)
    return 0 < letters >= digits and name.lower() not in _NO_CLASSES


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _without_images(path: Path) -> str:
    """The message for a class folder without images of its own."""
    expected = f"expected images of the class {path.name!r} in {path}, found"
    if path.is_symlink():
        return (
            f"{expected} a link to {path.resolve()}, which is read under another path, contains "
            "the dataset, or has none; remove the link"
        )
    return f"{expected} {plain.without_images(path)}; add some or remove the folder"


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
