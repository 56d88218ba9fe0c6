"""What a model is trained on: the images of one data set or of several, with weights."""

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
    """What is trained on, and what the best model is chosen on.

    Attributes:
        train: images, each with captions.
        weights: of each image of `train`, how often it is drawn in an epoch.
        val: images, each with captions.
        names: of the data sets' folders or manifests.
    """

    train: tuple[Example, ...]
    weights: tuple[float, ...]
    val: tuple[Example, ...]
    names: tuple[str, ...] = ()


def weighted(text: str) -> tuple[Path, float]:
    """`DIR` or `DIR=0.5` → a path and its weight, which is 1 unless it is said.

    Raises:
        DatasetError: the weight is not a number above 0.

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
    """The train and val splits of data sets, as `datasets.captions.load` reads them.

    Where none has images in val, some of train are held back as val, which is told; see
    `datasets.splits.hold_back`.

    Ids of several data sets begin with the name of their folder or manifest, since `1.jpg` is in
    many of them.

    Args:
        paths_with_weights: data sets, and how often an image of each is drawn in an epoch: 0.5 for
            half of them each time, 2 for each of them twice.
        augmented_captions: whether images of the train split get the captions that the
            `textaug_*.jsonl` files beside their data set list for them.

    Raises:
        DatasetError: there is none, one cannot be read, has no image of the train split, or images
            without captions; or there is too little to hold back, or two have the same ids.
    """
    if not paths_with_weights:
        raise DatasetError("expected a data set to train on, found none")
    train: list[Example] = []
    weights: list[float] = []
    val: list[Example] = []
    augmented = False
    for path, weight, source in _with_val(paths_with_weights):
        own = list(_split(path, source, "train"))
        if augmented_captions and (files := _augmented(path)):
            own = captions.with_augmented(
                own, {k: v for one in files for k, v in captions.load_augmented(one).items()}
            )
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
            f"{shown}: expected images of the split 'val' to choose on, or two of train, of "
            "which to hold one back, found less; add some"
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
    found = [(path, weight, captions.load(path)) for path, weight in paths_with_weights]
    if any(source.split("val") for _, _, source in found):
        return found
    return [
        (path, weight, replace(source, examples=splits.hold_back(path, source.examples)))
        for path, weight, source in found
    ]


def _split(path: Path, source: Source, name: str) -> tuple[Example, ...]:
    found = source.split(name)
    if not found:
        splits = sorted({example.split or "none" for example in source.examples})
        raise DatasetError(
            f"{path}: expected images of the split {name!r}, found {', '.join(splits)}"
        )
    mute = next((example for example in found if not example.captions), None)
    if mute is not None:
        raise DatasetError(f"{path}: {mute.id}: expected a caption, found none; add one")
    return found


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
                "give a data set once, with a weight"
                if other.uri == example.uri
                else "rename one of the data sets' folders"
            )
            raise DatasetError(
                f"{other.uri} and {example.uri} have the same id {example.id!r}; {remedy}"
            )
