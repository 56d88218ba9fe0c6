"""Names of splits, and a random validation split for datasets without one."""

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
    "train": ("train", "training", "restval"),  # restval: Karpathy's COCO splits
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
_PLAIN = {name: plain for plain, names in _NAMES.items() for name in names}

_WORD = re.compile(r"[^\W\d_]+")
# Words that a folder name may have in addition to a split.
_BESIDE_SPLITS = frozenset(
    {"image", "images", "img", "imgs", "pictures", "tiles", "data", "set", "split"}
)


def plain(name: object) -> str | None:
    """Normalises the name of a split to train, val or test.

    Other names are returned unchanged, and blanks as None.

    Example:
        >>> plain(" Validation "), plain("extra"), plain("")
        ('val', 'extra', None)
    """
    text = "" if name is None or name != name else str(name).strip()  # NaN counts as blank
    return _PLAIN.get(text.lower(), text) or None


def of_folder(name: str) -> str | None:
    """The split in a folder's name, which may include a number or a word such as `images`.

    Example:
        >>> of_folder("Testing"), of_folder("train2017"), of_folder("val_images")
        ('test', 'train', 'val')
        >>> of_folder("beach"), of_folder("train station")
        (None, None)
    """
    words = [word for word in _WORD.findall(name.lower()) if word not in _BESIDE_SPLITS]
    return _PLAIN.get(words[0]) if len(words) == 1 else None


def named(example: Example, split: str | None) -> Example:
    """Returns an example with another split."""
    if split == example.split:
        return example
    return replace(example, attributes={**example.attributes, "split": split})


def for_training(path: Path, examples: Sequence[Example]) -> tuple[Example, ...]:
    """Checks the splits of examples, and assigns train and val if none has a split.

    A warning reports examples without a split if only some lack one.

    Raises:
        DatasetError: a split is not train, val or test.
    """
    strange = next((e for e in examples if e.split not in (None, *_NAMES)), None)
    if strange is not None:
        raise DatasetError(
            f"{path}: {strange.id}: expected a split of {', '.join(_NAMES)} "
            f"(or {', '.join(name for name in _PLAIN if name not in _NAMES)}), "
            f"found {strange.split!r}; rename it, or remove its images"
        )
    without = [example for example in examples if example.split is None]
    if len(without) == len(examples):
        return add_val_split(path, [named(example, "train") for example in examples])
    if without:
        warnings.warn(
            f"{path}: {len(without):,} of {len(examples):,} images have no split, such as "
            f"{without[0].id}; they are not trained on",
            stacklevel=2,
        )
    return tuple(examples)


def add_val_split(path: Path, examples: Sequence[Example]) -> tuple[Example, ...]:
    """Moves about VAL_FRACTION of the train images to val, and warns about it.

    The images are chosen by a hash of their ids, so every run chooses the same ones: at least one,
    but none if there is only one train image.
    """
    positions = {e.id: _hash_position(e.id) for e in examples if e.split == "train"}
    if len(positions) < 2:
        return tuple(examples)
    limit = max(VAL_FRACTION, min(positions.values()))
    chosen = {id_ for id_, position in positions.items() if position <= limit}
    warnings.warn(
        f"{path}: there is no split 'val'; {len(chosen):,} of {len(positions):,} train images, "
        "chosen by a hash of their ids, are used as val",
        stacklevel=2,
    )
    return tuple(named(e, "val") if e.id in chosen else e for e in examples)


def _hash_position(id_: str) -> float:
    """A hash of an id in [0, 1), the same in every run."""
    return int.from_bytes(hashlib.sha256(id_.encode()).digest()[:6]) / 2**48
