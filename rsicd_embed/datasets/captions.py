"""Images with captions from any source that has them: what models are trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rsicd_embed.datasets import captioned, manifest
from rsicd_embed.datasets.base import Example, Source
from rsicd_embed.errors import DatasetError

VAL_FRACTION = 0.05

_COLUMNS = ("captions", "caption")
# What other data sets call the splits.
_SPLITS = {"training": "train", "valid": "val", "validation": "val", "dev": "val"}


def load(path: Path) -> Source:
    """A folder with a `dataset_*.json`, a manifest, or a folder with one manifest in it.

    A manifest has a column `caption` or `captions`, and perhaps `split` and `label`. An image may
    have several rows, a caption each. Where no row has a split, about VAL_FRACTION of the images
    are `val`, chosen by a hash of their ids, and the others `train`.

    Raises:
        DatasetError: it is missing, or not as described, or a caption is no text.
    """
    if path.is_dir():
        if captioned.find_json(path):
            return captioned.load(path)
        path = _manifest_in(path)
    elif not path.exists():
        raise DatasetError(f"expected a data set with captions, found nothing at {path}")
    elif path.suffix.lower() not in manifest.SUFFIXES:
        raise DatasetError(
            f"expected a folder or a manifest ({', '.join(sorted(manifest.SUFFIXES))}), "
            f"found {path}"
        )
    rows = manifest.read(path)
    if not any(name in rows.schema.names for name in _COLUMNS):
        raise DatasetError(
            f"{path}: expected a column named {' or '.join(_COLUMNS)}, "
            f"found {', '.join(rows.schema.names) or 'none but the paths'}"
        )
    examples = _split(path, [_joined(path, same) for same in _by_id(rows.examples)])
    return Source(rows.root, tuple(examples), captioned.SCHEMA)


def _manifest_in(folder: Path) -> Path:
    """The one manifest of a folder; augmented captions are none."""
    found = [
        one
        for one in sorted(folder.iterdir())
        if one.suffix.lower() in manifest.SUFFIXES and not one.name.startswith((".", "textaug_"))
    ]
    if len(found) != 1:
        names = ", ".join(one.name for one in found) or "none"
        raise DatasetError(
            f"{folder}: expected a dataset_*.json, or one manifest with captions "
            f"({', '.join(sorted(manifest.SUFFIXES))}), found {names}; give the manifest itself"
        )
    return found[0]


def _by_id(examples: Sequence[Example]) -> list[list[Example]]:
    found: dict[str, list[Example]] = {}
    for example in examples:
        found.setdefault(example.id, []).append(example)
    return list(found.values())


def _joined(path: Path, same: Sequence[Example]) -> Example:
    """One example of the rows of one image: all their captions, and what else they agree on."""
    captions = [caption for one in same for caption in _texts(path, one)]
    attributes: dict[str, Any] = {"captions": list(dict.fromkeys(captions))}
    for name in ("label", "split"):
        values = {str(value) for one in same if (value := one.attributes.get(name)) is not None}
        if len(values) > 1:
            raise DatasetError(
                f"{path}: {same[0].id}: expected one {name}, found {', '.join(sorted(values))}"
            )
        attributes[name] = next(iter(values), None)
    if attributes["split"] is not None:
        split = attributes["split"].strip().lower()
        attributes["split"] = _SPLITS.get(split, split)
    if len({one.path for one in same}) > 1:
        raise DatasetError(
            f"{path}: {same[0].id}: expected one file, found {same[0].path} and {same[-1].path}; "
            "give each image its own id"
        )
    return replace(same[0], attributes=attributes)


def _texts(path: Path, example: Example) -> list[str]:
    found = _value(example.attributes)
    texts = found if isinstance(found, list) else [found]
    for text in texts:
        if text is not None and not isinstance(text, str):
            raise DatasetError(f"{path}: {example.id}: expected captions as text, found {text!r}")
    return [plain for text in texts if text and (plain := " ".join(text.split()))]


def _value(attributes: Mapping[str, Any]) -> Any:
    return next((found for name in _COLUMNS if (found := attributes.get(name)) is not None), None)


def _split(path: Path, examples: Sequence[Example]) -> Sequence[Example]:
    without = [example for example in examples if example.split is None]
    if not without or len(examples) < 2:
        return examples
    if len(without) < len(examples):
        raise DatasetError(
            f"{path}: expected a split of every image or of none, found none of {without[0].id}"
        )
    places = [_place(example.id) for example in examples]
    most = max(VAL_FRACTION, min(places))  # at least one, however few there are
    return [
        replace(
            example,
            attributes={**example.attributes, "split": "val" if place <= most else "train"},
        )
        for example, place in zip(examples, places, strict=True)
    ]


def _place(id_: str) -> float:
    """In [0, 1), the same for an id in every run."""
    return int.from_bytes(hashlib.sha256(id_.encode()).digest()[:6]) / 2**48
