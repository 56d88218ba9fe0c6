"""Evaluation datasets: their splits, classes and captions."""

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
BY_FILE_NAME = "images whose file name contains their class"
EVERY_LABEL = "images with a class"
_DEFAULT = "test"


@dataclass(frozen=True)
class EvalSet:
    """A dataset.

    Attributes:
        name: name of its folder.
        examples: images of all splits; usual names of splits become train, val and test.
        by_file_name: if any file name contains the image's class, only such images count as
            labelled, as in the published protocol on RSICD.
        skipped: files in its folder that are not examples.
        unread: number of image files in unsupported formats, by suffix.
        notes: remarks on how the dataset was read, one line each.
    """

    name: str
    examples: tuple[Example, ...]
    by_file_name: bool
    skipped: tuple[Skipped, ...] = ()
    unread: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def split(self, name: str | None) -> tuple[str, tuple[Example, ...]]:
        """The name and the images of a split.

        `all` selects all images. None selects `test`, or `all` if there are no splits. Usual names
        are equivalent, such as `valid` and `val`.

        Raises:
            DatasetError: there is no such split.
        """
        known = sorted({example.split for example in self.examples if example.split})
        if name is None and not known:
            name = ALL
        if name == ALL:
            return ALL, self.examples
        name = splits.plain(name) or _DEFAULT
        if name not in known:
            names = f"{', '.join(known)} (and all)" if known else "none; omit --split"
            raise DatasetError(f"{self.name}: expected a split {name!r}, found {names}")
        return name, tuple(example for example in self.examples if example.split == name)


@dataclass(frozen=True)
class Labelled:
    """Labelled images.

    Attributes:
        rows: int (n,), positions of the labelled images among the examples.
        labels: int (n,), positions of their classes in `classes`.
        classes: sorted class names as the dataset writes them, of all splits.
        left_out: number of examples that do not count as labelled.
        rule: description of the images that count as labelled.
    """

    rows: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    left_out: int
    rule: str


def open_set(path: Path, *, every_label: bool = False) -> EvalSet:
    """Opens an RSICD-like folder, a folder of class folders, a manifest, or a folder with one.

    Datasets with captions are read as for training. A manifest without captions next to class
    folders is ignored.

    Args:
        path: folder or manifest.
        every_label: count all labelled images; see `EvalSet.by_file_name`.

    Raises:
        DatasetError: it is none of these.
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
    """The source, and whether labels may be restricted by file name."""
    if not path.is_dir():
        if path.suffix.lower() not in manifest.SUFFIXES or not path.exists():
            return open_source(path), False
        rows = manifest.read(path)
        if captions.has_captions(rows):
            return captions.joined(path, rows), False
        return manifest.latest(path, rows), False
    if (source := captioned.load(path)) is not None:
        return source, True
    inside = captions.manifests_in(path)
    if len(inside) != 1:
        return classes.load(path), False
    try:
        rows = manifest.read(inside[0])
    except DatasetError as error:
        return _class_folders_beside(inside[0], error), False
    if captions.has_captions(rows):
        return captions.joined(inside[0], rows), False
    return classes.load(path), False


def _class_folders_beside(table: Path, error: DatasetError) -> Source:
    """Class folders next to a table that is not a manifest, which is reported as skipped."""
    try:
        source = classes.load(table.parent)
    except DatasetError:
        raise error from None
    reason = str(error).removeprefix(f"{table}").lstrip(": ")
    return replace(source, skipped=(*source.skipped, Skipped(str(table), reason)))


def class_labels(examples: Sequence[Example], *, by_file_name: bool) -> list[str | None]:
    """The class of each image; None if it has none or does not count.

    With `by_file_name`, as in CLIP-rsicd: if any file name contains the image's class
    (`beach_12.jpg`), only such images count.

    Raises:
        DatasetError: the label of an image is not a single value.
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


def require_distinct(examples: Sequence[Example]) -> None:
    """Checks that no image of several datasets occurs twice.

    Raises:
        DatasetError: one does.
    """
    seen: set[str] = set()
    for example in examples:
        if example.uri in seen:
            raise DatasetError(f"{example.uri} is in two of the datasets; give each dataset once")
        seen.add(example.uri)


def labelled(evalset: EvalSet, examples: Sequence[Example]) -> Labelled:
    """Selects the examples that have a class.

    Raises:
        DatasetError: the dataset has fewer than two classes, or no example has one.
    """
    everywhere = class_labels(evalset.examples, by_file_name=evalset.by_file_name)
    classes = sorted({label for label in everywhere if label is not None})
    if len(classes) < 2:
        content = f"only {classes[0]!r}" if classes else "no labels"
        raise DatasetError(
            f"{evalset.name}: expected images of at least two classes, found {content}; "
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
    """int (n,): positions of the examples that have captions.

    Raises:
        DatasetError: none has, or captions are not a list of strings.
    """
    for example in examples:
        texts = example.attributes.get("captions")
        if texts and (isinstance(texts, str) or not all(isinstance(text, str) for text in texts)):
            raise DatasetError(f"{example.uri}: expected a list of captions, found {texts!r:.60}")
    rows = np.array([row for row, e in enumerate(examples) if e.captions], np.int64)
    if not rows.size:
        raise DatasetError(
            f"{evalset.name}: expected captions, found none for {len(examples)} images; "
            "give a folder with a dataset_*.json, or a manifest with captions"
        )
    return rows
