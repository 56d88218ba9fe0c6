"""What a model is evaluated on: a data set, one of its splits, its classes or its captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rsicd_embed.datasets import captioned, class_folders
from rsicd_embed.datasets.base import Example, Skipped
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
        examples: of all splits.
        by_file_name: whether only images whose file name tells their class count as labelled,
            where there are any, as in the published protocol on RSICD.
        skipped: what is in its folder and is no example.
    """

    name: str
    examples: tuple[Example, ...]
    by_file_name: bool
    skipped: tuple[Skipped, ...] = ()

    def split(self, name: str | None) -> tuple[str, tuple[Example, ...]]:
        """A split, by its name, and its images.

        `all` is all images. None is `test` where there is one, and `all` where there are no splits.

        Raises:
            DatasetError: there is no such split; those that exist are told.
        """
        found = sorted({example.split for example in self.examples if example.split})
        if name is None and not found:
            name = ALL
        if name == ALL:
            return ALL, self.examples
        name = name or _DEFAULT
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
    """An RSICD-like folder, a folder with one folder a class, or a manifest.

    Raises:
        DatasetError: it is none of them.
    """
    name = path.resolve().name
    if path.is_dir() and not captioned.find_json(path):
        source = class_folders.load(path)
    else:
        source = open_source(path)
    return EvalSet(name, source.examples, path.is_dir() and not every_label, source.skipped)


def class_labels(examples: Sequence[Example], *, by_file_name: bool) -> list[str | None]:
    """The class of each image; None for one that has none, or does not count.

    By file name, as CLIP-rsicd did it: where any image's name tells its class (`beach_12.jpg`),
    only such images count.
    """
    labels = [None if e.label in (None, "") else str(e.label) for e in examples]
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
            "give a folder with one folder a class, or labels.json beside dataset_*.json"
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
            "give a folder with a dataset_*.json"
        )
    return rows
