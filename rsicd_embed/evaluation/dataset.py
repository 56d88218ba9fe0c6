"""What a model is evaluated on: a data set, one of its splits, its classes or its captions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from rsicd_embed.datasets import captioned, captions, classes, manifest, splits
from rsicd_embed.datasets.base import Example, Skipped, Source
from rsicd_embed.datasets.captioned import label_in_name
from rsicd_embed.datasets.sources import open_source
from rsicd_embed.errors import DatasetError

ALL = "all"
BY_FILE_NAME = "images whose file name tells their class"
EVERY_LABEL = "images with a class"
_DEFAULT = "test"


@dataclass(frozen=True)
class EvalSet:
    """A data set.

    Attributes:
        name: of its folder.
        examples: of all splits, which are called train, val and test where they are these.
        by_file_name: whether only images whose file name tells their class count as labelled,
            where there are any, as in the published protocol on RSICD.
        skipped: what is in its folder and is no example.
        unread: number of files by suffix that look like pictures and are of formats not read.
        notes: what else a person should know about how the dataset was read, one line each.
    """

    name: str
    examples: tuple[Example, ...]
    by_file_name: bool
    skipped: tuple[Skipped, ...] = ()
    unread: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def split(self, name: str | None) -> tuple[str, tuple[Example, ...]]:
        """A split, by its name, and its images.

        `all` is all images. None is `test` where there is one, and `all` where there are no splits.
        `valid` is found as `val`, and so on.

        Raises:
            DatasetError: there is no such split; those that exist are told.
        """
        found = sorted({example.split for example in self.examples if example.split})
        if name is None and not found:
            name = ALL
        if name == ALL:
            return ALL, self.examples
        name = splits.plain(name) or _DEFAULT
        if name not in found:
            there = f"{', '.join(found)} (and all)" if found else "none; leave --split out"
            raise DatasetError(f"{self.name}: expected a split {name!r}, found {there}")
        return name, tuple(example for example in self.examples if example.split == name)


@dataclass(frozen=True)
class Labelled:
    """Images with their classes.

    Attributes:
        rows: int (n,), places in the examples they were chosen from.
        labels: int (n,), places in `classes`.
        classes: as the data set writes them, sorted; also those of its other splits.
        left_out: how many of the examples were not chosen.
        rule: which count as labelled.
    """

    rows: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    left_out: int
    rule: str


def open_set(path: Path, *, every_label: bool = False) -> EvalSet:
    """An RSICD-like folder, a folder with one folder a class, a manifest, or a folder with one.

    What has captions is read as `train` reads it. A folder's manifest without captions is left
    alone: it may be of what class folders hold.

    Raises:
        DatasetError: it is none of them.
    """
    source, by_file_name = _source(path)
    by_file_name = by_file_name and not every_label
    return EvalSet(
        path.resolve().name,
        tuple(splits.named(example, splits.plain(example.split)) for example in source.examples),
        by_file_name,
        source.skipped,
        source.unread,
        source.notes,
    )


def _source(path: Path) -> tuple[Source, bool]:
    """With whether images whose file name tells their class may be the only labelled ones."""
    if not path.is_dir():
        if path.suffix.lower() not in manifest.SUFFIXES or not path.exists():
            return open_source(path), False
        rows = manifest.read(path)
        some = captions.has_captions(rows)
        return captions.joined(path, rows) if some else manifest.latest(path, rows), False
    if (source := captioned.load(path)) is not None:
        return source, True
    inside = captions.manifests_in(path)
    if len(inside) != 1:
        return classes.load(path), False
    try:
        rows = manifest.read(inside[0])
    except DatasetError as error:
        return _without(inside[0], error), False
    if captions.has_captions(rows):
        return captions.joined(inside[0], rows), False
    return classes.load(path), False


def _without(table: Path, error: DatasetError) -> Source:
    """Class folders beside a table that is none of images, which is told."""
    try:
        source = classes.load(table.parent)
    except DatasetError:
        raise error from None
    reason = str(error).removeprefix(f"{table}").lstrip(": ")
    return replace(source, skipped=(*source.skipped, Skipped(str(table), reason)))


def class_labels(examples: Sequence[Example], *, by_file_name: bool) -> list[str | None]:
    """The class of each image; None for one that has none, or does not count.

    By file name, as CLIP-rsicd did it: where any image's name tells its class (`beach_12.jpg`),
    only such images count.

    Raises:
        DatasetError: an image has several classes, or an object.
    """
    several = next((e for e in examples if isinstance(e.label, list | dict)), None)
    if several is not None:
        raise DatasetError(f"{several.uri}: expected one class, found {several.label!r:.60}")
    texts = ["" if e.label is None else str(e.label) for e in examples]
    labels = [text if text.strip() else None for text in texts]
    if by_file_name:
        named = [
            label if label == label_in_name(example.path.name) else None
            for example, label in zip(examples, labels, strict=True)
        ]
        if any(named):
            return named
    return labels


def labelled(evalset: EvalSet, examples: Sequence[Example]) -> Labelled:
    """Which of some examples of a set have a class.

    Raises:
        DatasetError: the set has less than two classes, or none of the examples has one.
    """
    everywhere = class_labels(evalset.examples, by_file_name=evalset.by_file_name)
    classes = sorted({label for label in everywhere if label is not None})
    if len(classes) < 2:
        found = f"only {classes[0]!r}" if classes else "no labels"
        raise DatasetError(
            f"{evalset.name}: expected images of at least two classes, found {found}; "
            "give a folder with one folder per class, a manifest with a column 'label', or "
            "labels.json beside dataset_*.json"
        )
    label_of = dict(zip((e.id for e in evalset.examples), everywhere, strict=True))
    chosen = [(row, label_of[e.id]) for row, e in enumerate(examples) if label_of[e.id] is not None]
    if not chosen:
        raise DatasetError(
            f"{evalset.name}: expected labelled images, found none among {len(examples)}; "
            "choose another --split"
        )
    place = {label: i for i, label in enumerate(classes)}
    rows = np.array([row for row, _ in chosen])
    labels = np.array([place[str(label)] for _, label in chosen])
    strict = everywhere != class_labels(evalset.examples, by_file_name=False)
    rule = BY_FILE_NAME if strict else EVERY_LABEL
    return Labelled(rows, labels, tuple(classes), len(examples) - len(rows), rule)


def with_captions(evalset: EvalSet, examples: Sequence[Example]) -> np.ndarray:
    """int (n,): which of some examples of a set have captions.

    Raises:
        DatasetError: none has, or captions are not lists of texts.
    """
    for example in examples:
        found = example.attributes.get("captions")
        if found and (isinstance(found, str) or not all(isinstance(one, str) for one in found)):
            raise DatasetError(f"{example.uri}: expected a list of captions, found {found!r:.60}")
    rows = np.array([row for row, e in enumerate(examples) if e.captions], np.int64)
    if not rows.size:
        raise DatasetError(
            f"{evalset.name}: expected captions, found none for {len(examples)} images; "
            "give a folder with a dataset_*.json, or a manifest with captions"
        )
    return rows
