"""RSICD, UCM and Sydney: a Karpathy-style `dataset_*.json` beside a folder of images."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from rsicd_embed.datasets import text
from rsicd_embed.datasets.base import Example, Source
from rsicd_embed.errors import DatasetError

SCHEMA = pa.schema(
    [
        pa.field("captions", pa.list_(pa.string())),
        pa.field("label", pa.string()),
        pa.field("split", pa.string()),
    ]
)

_CLASS_IN_NAME = re.compile(r"([A-Za-z]+)_\d+\.")


def find_json(folder: Path) -> Path | None:
    """The `dataset_*.json` of a folder, None where it is not such a dataset.

    Raises:
        DatasetError: there are several.
    """
    found = sorted(folder.glob("dataset_*.json"))
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise DatasetError(f"{folder}: expected one dataset_*.json, found {names}; keep one")
    return found[0] if found else None


def load(folder: Path) -> Source:
    """Reads the images, captions, splits and classes of a dataset folder; opens no image.

    A class comes from `labels.json`, else from `txtclasses_*/CLASS.txt`, else from file names
    such as `beach_12.jpg`, unless that would make all of one class.

    Raises:
        DatasetError: no `dataset_*.json`, or it is not of that form, or its images are not there.
    """
    path = find_json(folder)
    if path is None:
        raise DatasetError(f"expected a dataset_*.json in {folder}, found none")
    written = text.read(path)
    try:
        entries = [_entry(path, one) for one in json.loads(written)["images"]]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise DatasetError(
            f"{path}: expected {{'images': [{{'filename', 'split', 'sentences'}}…]}}: {error!r}"
        ) from error
    if not entries:
        raise DatasetError(f"{path}: expected images, found none")
    images = _image_folder(folder, [entry["filename"] for entry in entries])
    labels = _labels(folder) or _labels_in_names([entry["filename"] for entry in entries])
    same: dict[str, list[dict[str, Any]]] = {}
    for entry in entries:
        same.setdefault(entry["filename"], []).append(entry)
    examples = []
    for name, of_one in same.items():
        attributes = {
            "captions": joined_captions([entry["captions"] for entry in of_one]),
            "label": labels.get(name),
            "split": only_one(f"{path}: {name}", "split", [entry["split"] for entry in of_one]),
        }
        examples.append(Example(name, str(images / name), attributes))
    return Source(images, tuple(examples), SCHEMA)


def joined_captions(parts: Sequence[Sequence[str]]) -> list[str]:
    """The captions of an image that is there several times: each part, but for what was said."""
    captions: list[str] = []
    for part in parts:
        known = set(captions)
        captions += [one for one in part if one not in known]
    return captions


def only_one(where: str, name: str, values: Sequence[str | None]) -> str | None:
    """What the entries of one image agree on.

    Raises:
        DatasetError: they differ.
    """
    found = {value for value in values if value is not None}
    if len(found) > 1:
        raise DatasetError(f"{where}: expected one {name}, found {', '.join(sorted(found))}")
    return next(iter(found), None)


def _entry(path: Path, found: dict[str, Any]) -> dict[str, Any]:
    texts = [sentence["raw"] for sentence in found.get("sentences") or ()]
    for one in texts:
        if not isinstance(one, str):
            raise TypeError(f"{found['filename']} has the caption {one!r}, which is no text")
    captions = [" ".join(one.split()) for one in texts]
    split = found.get("split")
    where = f"{path}: {found['filename']}"
    text.require_whole(texts, f"{where}: expected captions")
    text.require_whole([found["filename"], split], f"{where}: expected a name and a split")
    return {
        "filename": Path(found["filename"]).as_posix(),
        "captions": [caption for caption in captions if caption],
        "split": None if split is None else str(split),
    }


def _image_folder(folder: Path, names: Sequence[str]) -> Path:
    for candidate in [folder, *sorted(p for p in folder.iterdir() if p.is_dir())]:
        if any((candidate / name).is_file() for name in names):
            return candidate
    raise DatasetError(
        f"expected the images in {folder} or a folder in it, found no {names[0]}; unpack them there"
    )


def label_in_name(name: str) -> str | None:
    """`beach` of `beach_12.jpg`; None for a name of another form."""
    match = _CLASS_IN_NAME.match(name)
    return match[1] if match else None


def _labels_in_names(names: Sequence[str]) -> dict[str, str]:
    labels = {name: label for name in names if (label := label_in_name(Path(name).name))}
    return labels if len(set(labels.values())) > 1 else {}  # `tile_3.jpg` names no class


def _labels(folder: Path) -> dict[str, str]:
    path = folder / "labels.json"
    if path.is_file():
        try:
            labels: dict[str, Any] = json.loads(text.read(path))
            text.require_whole(labels, f"{path}: expected classes")
            return {name: str(label) for name, label in labels.items() if str(label).strip()}
        except (ValueError, AttributeError) as error:
            raise DatasetError(f"{path}: expected {{file name: class}}: {error}") from error
    return {
        name: path.stem
        for path in sorted(folder.glob("txtclasses_*/*.txt"))
        for name in text.read(path).split()
    }
