"""Splits: the names that datasets give them, and images held back for validation."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rsicd_embed.datasets.base import Example
from rsicd_embed.errors import DatasetError

VAL_FRACTION = 0.05

_NAMES = {
    "train": ("train", "training", "restval"),  # restval: Karpathy's, of COCO
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
_PLAIN = {name: plain for plain, names in _NAMES.items() for name in names}

_WORD = re.compile(r"[^\W\d_]+")
# Words that a folder's name may have beside that of a split.
_BESIDE_SPLITS = frozenset(
    {"image", "images", "img", "imgs", "pictures", "tiles", "data", "set", "split"}
)


def plain(name: object) -> str | None:
    """train, val or test for what data sets call them; any other name as it is, a blank as None.

    Example:
        >>> plain(" Validation "), plain("extra"), plain("")
        ('val', 'extra', None)
    """
    text = "" if name is None or name != name else str(name).strip()  # NaN is a blank too
    return _PLAIN.get(text.lower(), text) or None


def of_folder(name: str) -> str | None:
    """The split that a folder is named after, perhaps with a number or a word such as `images`.

    Example:
        >>> of_folder("Testing"), of_folder("train2017"), of_folder("val_images")
        ('test', 'train', 'val')
        >>> of_folder("beach"), of_folder("train station")
        (None, None)
    """
    words = [word for word in _WORD.findall(name.lower()) if word not in _BESIDE_SPLITS]
    return _PLAIN.get(words[0]) if len(words) == 1 else None


def named(example: Example, split: str | None) -> Example:
    """The same image, in a split."""
    if split == example.split:
        return example
    return replace(example, attributes={**example.attributes, "split": split})


def for_training(path: Path, examples: Sequence[Example]) -> tuple[Example, ...]:
    """Examples of train, val and test; where none has a split, of train and val.

    Those without a split among others with one stay as they are, which is told.

    Raises:
        DatasetError: a split has another name.
    """
    strange = next((one for one in examples if one.split not in (None, *_NAMES)), None)
    if strange is not None:
        raise DatasetError(
            f"{path}: {strange.id}: expected a split of {', '.join(_NAMES)} "
            f"(or {', '.join(name for name in _PLAIN if name not in _NAMES)}), "
            f"found {strange.split!r}; rename it, or leave its images out"
        )
    without = [one for one in examples if one.split is None]
    if len(without) == len(examples):
        return hold_back(path, [named(one, "train") for one in examples])
    if without:
        warnings.warn(
            f"{path}: {len(without):,} of {len(examples):,} images have no split, such as "
            f"{without[0].id}; they are not trained on",
            stacklevel=2,
        )
    return tuple(examples)


def hold_back(path: Path, examples: Sequence[Example]) -> tuple[Example, ...]:
    """Makes about VAL_FRACTION of the train images val, the same ones in every run, and tells it.

    They are chosen by a hash of their ids: one at least, none of a single image.
    """
    places = {one.id: _place(one.id) for one in examples if one.split == "train"}
    if len(places) < 2:
        return tuple(examples)
    most = max(VAL_FRACTION, min(places.values()))
    held = {id_ for id_, place in places.items() if place <= most}
    warnings.warn(
        f"{path}: there is no split 'val'; {len(held):,} of {len(places):,} train images, told by "
        "a hash of their ids, are held back as val",
        stacklevel=2,
    )
    return tuple(named(one, "val") if one.id in held else one for one in examples)


def _place(id_: str) -> float:
    """In [0, 1), the same for an id in every run."""
    return int.from_bytes(hashlib.sha256(id_.encode()).digest()[:6]) / 2**48
