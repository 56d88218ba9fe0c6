"""RSICD, UCM, Sydney and COCO: a Karpathy-style `dataset_*.json` with a folder of images."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from rsicd_embed.datasets import splits, text
from rsicd_embed.datasets.base import Example, Source, why_missing
from rsicd_embed.errors import DatasetError

SCHEMA = pa.schema(
    [
        pa.field("captions", pa.list_(pa.string())),
        pa.field("label", pa.string()),
        pa.field("split", pa.string()),
    ]
)

_EXPECTED = "expected {'images': [{'filename', 'split', 'sentences'}…]}"
_CLASS_IN_NAME = re.compile(r"([A-Za-z]+)_\d+\.")


@dataclass(frozen=True)
class _Entry:
    """One item of `images`: its file name, its path with `filepath`, captions and split."""

    name: str
    path: str
    captions: list[str]
    split: str | None


@dataclass(frozen=True)
class ImageFiles:
    """Where the images of a dataset may be.

    Attributes:
        root: path or URL of the dataset's folder.
        folders: names of the folders in it.
        has: whether there is a file with a path relative to the root.
    """

    root: str
    folders: Sequence[str]
    has: Callable[[str], bool]

    @classmethod
    def below(cls, folder: Path) -> ImageFiles:
        """The files of a local folder."""
        names = sorted(path.name for path in folder.iterdir() if path.is_dir())
        return cls(str(folder), names, lambda name: os.path.isfile(folder / name))  # noqa: PTH113


def json_files(folder: Path) -> list[Path]:
    """Files in a folder that are named like the JSON of a captioned dataset."""
    return sorted(path for path in folder.glob("dataset*.json") if is_metadata(path.name))


def is_metadata(name: str) -> bool:
    """Whether a file describes the images of a dataset, by its path relative to the dataset."""
    path = PurePosixPath(name)
    if len(path.parts) > 1:
        return len(path.parts) == 2 and path.match("txtclasses_*/*.txt")
    return name in ("dataset.json", "labels.json") or path.match("dataset_*.json")


def load(folder: Path) -> Source | None:
    """Reads a dataset in a local folder; see `describe`."""
    source = describe(folder, lambda: ImageFiles.below(folder))
    return source and replace(source, root=Path(source.root))


def describe(folder: Path, files: Callable[[], ImageFiles]) -> Source | None:
    """Reads the images, captions, splits and classes of a dataset; opens no image.

    Images are searched for in the folder itself and in its direct subfolders, with and without an
    entry's `filepath` (COCO); the location with the most images is used. Classes come from
    `labels.json`, else from `txtclasses_*/CLASS.txt`, else from file names such as `beach_12.jpg`,
    unless all images would then have one class.

    Args:
        folder: the folder with the files that `is_metadata` names.
        files: called for the image files, if the folder describes a dataset.

    Returns:
        The source; None if no JSON file in the folder lists images by `filename`.

    Raises:
        DatasetError: several JSON files list images, the file is malformed, or more than half of
            the images are missing.
    """
    listed = {path: raw for path in json_files(folder) if (raw := _listed(path)) is not None}
    if not listed:
        return None
    if len(listed) > 1:
        several = ", ".join(path.name for path in listed)
        raise DatasetError(f"{folder}: expected one dataset_*.json, found {several}; keep one")
    ((path, raw),) = listed.items()
    try:
        entries = [_entry(path, entry) for entry in raw]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise DatasetError(f"{path}: {_EXPECTED}: {error}") from error
    if not entries:
        raise DatasetError(f"{path}: expected images, found none")
    images, names = _locate(path, entries, files())
    labels = _labels(folder) or _labels_in_names(names)
    same: dict[str, list[_Entry]] = {}
    for name, entry in zip(names, entries, strict=True):
        same.setdefault(name, []).append(entry)
    examples = []
    for name, repeats in same.items():
        attributes = {
            "captions": joined_captions([entry.captions for entry in repeats]),
            "label": labels.get(name, labels.get(PurePosixPath(name).name)),
            "split": only_one(f"{path}: {name}", "split", [entry.split for entry in repeats]),
        }
        examples.append(Example(name, posixpath.join(images, name), attributes))
    unused = sorted(set(labels.values()) - {example.label for example in examples})
    notes = (f"{path} lists no image of the classes {', '.join(unused)}",) if unused else ()
    return Source(images, tuple(examples), SCHEMA, notes=notes)


def joined_captions(parts: Sequence[Sequence[str]]) -> list[str]:
    """Concatenates the caption lists of an image, without those that an earlier list has."""
    captions: list[str] = []
    for part in parts:
        known = set(captions)
        captions += [caption for caption in part if caption not in known]
    return captions


def only_one(where: str, name: str, values: Sequence[str | None]) -> str | None:
    """The single value that all entries of an image agree on; None if no entry has a value.

    Raises:
        DatasetError: the entries differ.
    """
    distinct = {value for value in values if value is not None}
    if len(distinct) > 1:
        raise DatasetError(f"{where}: expected one {name}, found {', '.join(sorted(distinct))}")
    return next(iter(distinct), None)


def _listed(path: Path) -> list[Any] | None:
    """The images listed in a JSON file; None if it does not describe a captioned dataset.

    Hugging Face's `dataset_info.json` and `dataset_dict.json` do not.
    """
    try:
        document = text.parse_json(text.read(path))
    except ValueError as error:
        raise DatasetError(f"{path}: {_EXPECTED}, which is JSON: {error}") from error
    images = document.get("images") if isinstance(document, dict) else None
    if not isinstance(images, list):
        return None
    named = any(isinstance(image, dict) and "filename" in image for image in images)
    return images if named or not images else None


def _entry(path: Path, image: dict[str, Any]) -> _Entry:
    if not isinstance(image, dict) or not isinstance(image.get("filename"), str):
        raise TypeError(f"found {image!r:.80} without the text 'filename'")
    name, split = image["filename"], image.get("split")
    sentences = image.get("sentences") or ()
    if not all(isinstance(sentence, dict) and "raw" in sentence for sentence in sentences):
        raise TypeError(f"{name} has sentences without 'raw': {sentences!r:.80}")
    raw = [sentence["raw"] for sentence in sentences]
    for caption in raw:
        if not isinstance(caption, str):
            raise TypeError(f"{name} has the caption {caption!r}, which is not text")
    folder = image.get("filepath") or ""
    where = f"{path}: {name}"
    text.require_whole(raw, f"{where}: expected captions")
    text.require_whole([name, folder, split], f"{where}: expected a name and a split")
    captions = [" ".join(caption.split()) for caption in raw]
    return _Entry(
        Path(name).as_posix(),
        Path(folder, name).as_posix(),
        [caption for caption in captions if caption],
        splits.plain(split),
    )


def _locate(path: Path, entries: Sequence[_Entry], files: ImageFiles) -> tuple[str, list[str]]:
    """Returns the folder with the most images, and their names relative to it."""
    spellings = [[entry.path for entry in entries], [entry.name for entry in entries]]
    if spellings[0] == spellings[1]:
        del spellings[1]
    inside = [f"{name}/" for name in files.folders if not name.startswith(".")]
    most, chosen, names = -1, "", spellings[0]
    for candidate, spelling in product(["", *inside], spellings):
        present = sum(files.has(candidate + name) for name in spelling)
        if present > most:
            most, chosen, names = present, candidate, spelling
        if present == len(spelling):
            break
    images = f"{files.root}/{chosen}".rstrip("/")
    if 2 * most < len(names):
        missing = next(name for name in names if not files.has(chosen + name))
        reason = why_missing(posixpath.join(images, missing)) or "unpack them there"
        raise DatasetError(
            f"{path}: expected at least half of its {len(names):,} images in {files.root} or a "
            f"folder in it, found {most:,} in {images} and no {missing}; {reason}"
        )
    return images, names


def label_in_name(name: str) -> str | None:
    """The class in a file name, such as `beach` in `beach_12.jpg`, or None."""
    match = _CLASS_IN_NAME.match(name)
    return match[1] if match else None


def _labels_in_names(names: Sequence[str]) -> dict[str, str]:
    labels = {name: label for name in names if (label := label_in_name(Path(name).name))}
    return labels if len(set(labels.values())) > 1 else {}  # `tile_3.jpg` names no class


def _labels(folder: Path) -> dict[str, str]:
    path = folder / "labels.json"
    if path.is_file():
        try:
            labels: dict[str, Any] = text.parse_json(text.read(path))
            text.require_whole(labels, f"{path}: expected classes")
            texts = {name: str(label) for name, label in labels.items() if label is not None}
            return {name: label for name, label in texts.items() if label.strip()}
        except (ValueError, AttributeError) as error:
            raise DatasetError(f"{path}: expected {{file name: class}}: {error}") from error
    return {
        name: path.stem
        for path in sorted(folder.glob("txtclasses_*/*.txt"))
        for line in text.read(path).splitlines()
        if (name := line.strip())
    }
