"""The train and val images of one or several weighted datasets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rsicd_embed.datasets import captions, splits
from rsicd_embed.datasets.base import Example, Source
from rsicd_embed.errors import DatasetError


@dataclass(frozen=True)
class TrainingData:
    """Captioned images to train on and to validate on.

    Attributes:
        train: training images.
        weights: how often each image of `train` is drawn per epoch.
        val: validation images, which select the best model.
        names: names of the datasets' folders or manifests.
    """

    train: tuple[Example, ...]
    weights: tuple[float, ...]
    val: tuple[Example, ...]
    names: tuple[str, ...] = ()


def weighted(text: str) -> tuple[Path, float]:
    """Splits `PATH` or `PATH=0.5` into path and weight, which is 1 by default.

    Example:
        >>> weighted("ucm=0.5")
        (PosixPath('ucm'), 0.5)
    """
    name, equals, value = text.rpartition("=")
    if not equals or Path(text).exists():
        return Path(text), 1.0
    try:
        weight = float(value)
    except ValueError:
        weight = math.nan
    if not 0 < weight < math.inf:
        raise DatasetError(f"expected PATH=WEIGHT with a weight above 0, found {text!r}")
    return Path(name), weight


def training_source(
    paths_with_weights: Sequence[tuple[Path, float]], *, augmented_captions: bool = False
) -> TrainingData:
    """Reads the train and val splits of datasets.

    If no dataset has val images, some training images are held out, with a warning; see
    `datasets.splits.add_val_split`. The ids of several datasets are prefixed with the name of their
    folder or manifest, since names such as `1.jpg` occur in many of them.

    Args:
        paths_with_weights: datasets, and how often an image of each is drawn per epoch: 0.5 draws a
            random half of them, 2 draws each of them twice.
        augmented_captions: whether training images use the captions listed in the
            `textaug_*.jsonl` files beside their dataset.

    Raises:
        DatasetError: a dataset cannot be read, has no training images or has images without
            captions; there are no datasets or too few images to hold out; or ids collide.
    """
    if not paths_with_weights:
        raise DatasetError("expected a dataset to train on, found none")
    train: list[Example] = []
    weights: list[float] = []
    val: list[Example] = []
    augmented = False
    for path, weight, source in _with_val(paths_with_weights):
        own = list(_split(path, source, "train"))
        if augmented_captions and (files := _augmented(path)):
            listed = [captions.load_augmented(file) for file in files]
            own = captions.with_augmented(own, listed, [e.id for e in source.examples])
            augmented = True
        others = source.split("val")
        if len(paths_with_weights) > 1:
            own, others = _named(path, own), tuple(_named(path, others))
        train += own
        weights += [weight] * len(own)
        val += others
    shown = ", ".join(str(path) for path, _ in paths_with_weights)
    if not val:
        raise DatasetError(
            f"{shown}: expected images in the split 'val', or at least two in train to hold one "
            "out, found fewer; add some"
        )
    if augmented_captions and not augmented:
        raise DatasetError(
            f"{shown}: expected textaug_*.jsonl with augmented captions, found none; "
            "make them with augment-captions, or set data.augmented_captions=false"
        )
    _require_distinct([*train, *val])
    names = tuple(_name(path) for path, _ in paths_with_weights)
    return TrainingData(tuple(train), tuple(weights), tuple(val), names)


def _with_val(
    paths_with_weights: Sequence[tuple[Path, float]],
) -> list[tuple[Path, float, Source]]:
    sources = [(path, weight, captions.load(path)) for path, weight in paths_with_weights]
    if any(source.split("val") for _, _, source in sources):
        return sources
    return [
        (path, weight, replace(source, examples=splits.add_val_split(path, source.examples)))
        for path, weight, source in sources
    ]


def _split(path: Path, source: Source, name: str) -> tuple[Example, ...]:
    examples = source.split(name)
    if not examples:
        splits = sorted({example.split or "none" for example in source.examples})
        raise DatasetError(
            f"{path}: expected images in the split {name!r}, found {', '.join(splits)}"
        )
    bare = next((example for example in examples if not example.captions), None)
    if bare is not None:
        raise DatasetError(f"{path}: {bare.id}: expected a caption, found none; add one")
    return examples


def _augmented(path: Path) -> list[Path]:
    return sorted((path if path.is_dir() else path.parent).glob("textaug_*.jsonl"))


def _named(path: Path, examples: Sequence[Example]) -> list[Example]:
    return [replace(example, id=f"{_name(path)}/{example.id}") for example in examples]


def _name(path: Path) -> str:
    return path.resolve().stem if path.is_file() else path.resolve().name


def _require_distinct(examples: Sequence[Example]) -> None:
    seen: dict[str, Example] = {}
    for example in examples:
        other = seen.setdefault(example.id, example)
        if other is not example:
            remedy = (
                "give each dataset once, with a weight"
                if other.uri == example.uri
                else "rename one of the folders"
            )
            raise DatasetError(
                f"{other.uri} and {example.uri} have the same id {example.id!r}; {remedy}"
            )
