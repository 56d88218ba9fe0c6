"""Classes of images: folders named after them, and their names in plain words."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa

from rsicd_embed.datasets import folder as plain
from rsicd_embed.datasets import splits
from rsicd_embed.datasets.base import Example, Skipped, Source
from rsicd_embed.datasets.spooled_examples import collect
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

_JOINERS = "\u200c\u200d"  # within words of several scripts

# The prompt of CLIP-rsicd's zero-shot evaluation.
PROMPT = "An aerial photograph of {category}"

# Templates that turn a class name into a training caption.
CAPTION_TEMPLATES = (
    "an aerial photograph of {category}",
    "a satellite image of {category}",
    "aerial view of {category}",
    "{category}",
)


def phrases(label: str) -> tuple[str, ...]:
    """The readable name of a class, followed by its synonyms.

    Example:
        >>> phrases("TennisCourt")[:2]
        ('tennis court', 'tennis courts')
    """
    return (readable(label), *_synonyms().get(class_key(label), ()))


@cache
def _synonyms() -> Mapping[str, tuple[str, ...]]:
    lines = Path(__file__).with_name("class_synonyms.txt").read_text(encoding="utf-8").splitlines()
    entries = (line.partition(": ") for line in lines if not line.startswith("#"))
    return {key: tuple(words.split(", ")) for key, _, words in entries}


def class_key(label: str) -> str:
    """The letters and digits of a class name with their marks, in lower case.

    Example:
        >>> class_key("Cafe\u0301 No. 1") == class_key("CAF\u00c9_no1")
        True
    """
    return "".join(_words(label))


def readable(label: str) -> str:
    """Spells a class name in words: `GolfCourse` → `golf course`."""
    key = class_key(label)
    if key in _READABLE:
        return _READABLE[key]
    text = unicodedata.normalize("NFC", label)
    return " ".join(
        _words(
            "".join(
                f" {char}" if before.islower() and char.isupper() else char
                for before, char in pairwise(f" {text}")
            )
        )
    )


def _words(label: str) -> list[str]:
    """Runs of letters and digits with their marks, such as accents and vowels of Hindi."""
    text = unicodedata.normalize("NFC", label).lower()
    return "".join(
        char if char.isalnum() or char in _JOINERS or unicodedata.category(char)[0] == "M" else " "
        for char in text
    ).split()


SCHEMA = pa.schema([pa.field("label", pa.string()), pa.field("split", pa.string())])

# Names of folders that are parts of a dataset rather than classes.
_NO_CLASSES = frozenset(
    {
        *("image", "images", "img", "imgs", "photos", "pictures", "tiles", "patches", "chips"),
        *("mask", "masks", "label", "labels", "annotations", "thumbnails", "thumbs", "previews"),
    }
)


def load(folder: Path) -> Source:
    """Reads images from FOLDER/CLASS/… or FOLDER/SPLIT/CLASS/…, with labels and splits.

    Images outside class folders are reported in `Source.skipped`.

    Raises:
        DatasetError: there are no images or no class folders, a class folder has no images, or
            split folders and class folders are mixed.
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
            outside.append(Skipped(example.uri, "not in a class folder"))
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
    """Derives the columns `label` and `split` of a plain folder from its folder names.

    Every image has to be in FOLDER/CLASS, FOLDER/SPLIT/CLASS, or FOLDER/SPLIT, which gives only a
    split. No labels are derived if all images would have one class, or if a folder is named
    `images`, or after a number or a date. A note reports what was derived.

    Args:
        source: returned by `folder.load`.

    Returns:
        The same images, with the new columns listed in `Source.inferred`.
    """
    names = _FolderNames(source.examples)
    classes, why_none = names.classes()
    notes = list(source.notes)
    if why_none:
        notes.append(f"{source.root}: no labels from folder names: {why_none}")
    if classes:
        notes.append(
            f"{source.root}: labels are the names of the images' folders "
            f"({len(classes):,} classes: {_few(classes)})"
        )
    if names.by_split:
        tops = sorted(names.tops)
        notes.append(f"{source.root}: splits are the names of the top folders ({_few(tops)})")
    known = (("label", classes), ("split", names.by_split))
    columns = [name for name, derived in known if derived]
    if not columns:
        return replace(source, notes=tuple(notes))
    attributes = _attributes(columns)

    def named(example: Example) -> Example:
        parents = _parents(example)
        inner = parents[int(names.by_split)] if classes else None
        split = splits.of_folder(parents[0]) if names.by_split else None
        values = attributes(inner, split)
        if example.attributes:
            values = {**values, **example.attributes}
        return replace(example, attributes=values)

    schema = pa.schema([*(SCHEMA.field(name) for name in columns), *source.schema])
    return replace(
        source,
        examples=collect(map(named, source.examples), schema),
        schema=schema,
        notes=tuple(notes),
        inferred=tuple(columns),
    )


class _FolderNames:
    """What the names of the folders above images say, gathered in one pass.

    Attributes:
        by_split: whether all top folders are named after splits.
        tops: the names of the top folders.
    """

    def __init__(self, examples: Iterable[Example]) -> None:
        self.by_split = True
        self.tops: set[str] = set()
        self._count = 0
        # With and without a split above: classes, number of images elsewhere, the first of them.
        self._inner: dict[bool, set[str]] = {True: set(), False: set()}
        self._outside = {True: 0, False: 0}
        self._first: dict[bool, str] = {}
        split = cache(splits.of_folder)
        for example in examples:
            self._count += 1
            parents = _parents(example)
            self.tops.update(parents[:1])
            self.by_split = self.by_split and bool(parents) and split(parents[0]) is not None
            for below in (True, False):
                if len(parents) == 1 + below:
                    self._inner[below].add(parents[-1])
                else:
                    self._outside[below] += 1
                    self._first.setdefault(below, example.id)
        self.by_split = self.by_split and self._count > 0

    def classes(self) -> tuple[list[str], str]:
        """The classes and an empty text; or none and the reason, empty if it is obvious."""
        classes = sorted(self._inner[self.by_split])
        outside = self._outside[self.by_split]
        if len(classes) < 2 or 2 * outside >= self._count:
            return [], ""
        strange = next((name for name in classes if not _may_be_class(name)), None)
        if strange is not None:
            return [], f"{strange!r} does not look like a class; a manifest can give them"
        if outside:
            return [], (
                f"not all images are directly in a class folder, such as "
                f"{self._first[self.by_split]} ({outside:,} of {self._count:,})"
            )
        return classes, ""


def give_way(source: Source, schema: pa.Schema, owner: str) -> Source:
    """Drops inferred columns whose name is used elsewhere for a column that is not text.

    Args:
        source: a source with or without columns derived from folder names.
        schema: the columns elsewhere.
        owner: the owner of those columns, for the note added to the source.
    """
    kinds = {name: schema.field(name).type for name in source.inferred if name in schema.names}
    clashing = [name for name, kind in kinds.items() if kind not in (pa.string(), pa.null())]
    if not clashing:
        return source
    notes = (
        f"{source.root}: the column {name!r} of {owner} has type {kinds[name]}, so folder names "
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
    """The names of the folders between a source's root and an image."""
    return example.id.split("/")[:-1]


def _attributes(columns: Sequence[str]) -> Callable[[str | None, str | None], Mapping[str, Any]]:
    """Returns a cached function from label and split to attributes, so that images share them."""

    @cache
    def attributes(label: str | None, split: str | None) -> Mapping[str, Any]:
        values = {"label": label, "split": split}
        return {name: values[name] for name in columns}

    return attributes


def _doubts(root: Path, examples: Sequence[Example], classes: Sequence[Path]) -> list[str]:
    """Notes on signs that the folders are not classes, or that they hide splits."""
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
    """Whether the top folders that contain images are named after splits.

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


def _may_be_class(name: str) -> bool:
    """Whether a folder name may be a class rather than a number, date, split or kind of file."""
    if splits.of_folder(name):
        return False
    digits = sum(character.isdigit() for character in name)
    letters = sum(character.isalpha() for character in name)
    return 0 < letters >= digits and name.lower() not in _NO_CLASSES


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _without_images(path: Path) -> str:
    """The error message for a class folder without images."""
    expected = f"expected images of the class {path.name!r} in {path}, found"
    if path.is_symlink():
        return (
            f"{expected} a link to {path.resolve()}, which is read under another path, contains "
            "the dataset, or is empty; remove the link"
        )
    return f"{expected} {plain.without_images(path)}; add some or remove the folder"


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
