"""Captioned images for training, from any source with captions, and augmented captions.

Augmented captions are files `textaug_*.jsonl` in the format published by CLIP-rsicd, with one line
per image: `{"filename": "rsicd_images/airport_1.jpg", "captions": [… five texts]}`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, takewhile
from pathlib import Path, PurePosixPath
from typing import Any

from rsicd_embed.datasets import captioned, manifest, splits, text
from rsicd_embed.datasets.base import Example, Source
from rsicd_embed.errors import DatasetError
from rsicd_embed.files import replace_file, storage_errors

_COLUMNS = ("captions", "caption")


def load(path: Path) -> Source:
    """Reads captioned images for training, in the splits train, val and test.

    If no image has a split, one in twenty becomes `val`, chosen by a hash of its id, and the others
    `train`. A warning reports this, and also images without a split if only some lack one.

    Raises:
        DatasetError: as in `read`, or a split has another name.
    """
    source = read(path)
    return replace(source, examples=splits.for_training(path, source.examples))


def read(path: Path) -> Source:
    """Reads captioned images from a dataset folder, a manifest, or a folder with one manifest.

    A dataset folder has a `dataset_*.json`. A manifest has a column `caption` or `captions`, and
    optionally `split` and `label`; an image may have several rows with one caption each. Common
    names of splits are normalised to train, val and test; other names are kept.

    Raises:
        DatasetError: the source is missing or malformed, or a caption is not text.
    """
    if path.is_dir():
        if (source := captioned.load(path)) is not None:
            return source
        path = _manifest_in(path)
    elif not path.exists():
        raise DatasetError(f"expected a dataset with captions, found nothing at {path}")
    elif path.suffix.lower() not in manifest.SUFFIXES:
        raise DatasetError(
            f"expected a folder or a manifest ({', '.join(sorted(manifest.SUFFIXES))}), "
            f"found {path}"
        )
    return joined(path, manifest.read(path))


def joined(path: Path, rows: Source) -> Source:
    """Joins the rows of a manifest that belong to one image.

    Raises:
        DatasetError: there is no column of captions, a caption is not text, or rows of one image
            disagree.
    """
    if not has_captions(rows):
        raise DatasetError(
            f"{path}: expected a column named {' or '.join(_COLUMNS)}, "
            f"found {', '.join(rows.schema.names) or 'none but the paths'}"
        )
    examples = tuple(_joined(path, same) for same in _by_id(rows.examples))
    return Source(rows.root, examples, captioned.SCHEMA)


def has_captions(source: Source) -> bool:
    """Whether a manifest has a column of captions."""
    return any(name in source.schema.names for name in _COLUMNS)


def manifests_in(folder: Path) -> list[Path]:
    """The manifests directly in a folder, without files of augmented captions."""
    return [
        path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in manifest.SUFFIXES and not path.name.startswith((".", "textaug_"))
    ]


def _manifest_in(folder: Path) -> Path:
    manifests = manifests_in(folder)
    if len(manifests) != 1:
        names = ", ".join(path.name for path in [*captioned.json_files(folder), *manifests])
        raise DatasetError(
            f"{folder}: expected a dataset_*.json that lists images, or one manifest with captions "
            f"({', '.join(sorted(manifest.SUFFIXES))}), found {names or 'none'}; "
            "pass the manifest itself"
        )
    return manifests[0]


def _by_id(examples: Sequence[Example]) -> list[list[Example]]:
    groups: dict[str, list[Example]] = {}
    for example in examples:
        groups.setdefault(example.id, []).append(example)
    return list(groups.values())


def _joined(path: Path, same: Sequence[Example]) -> Example:
    """Joins the rows of one image: all captions, and the label and split they agree on."""
    attributes: dict[str, Any] = {
        "captions": captioned.joined_captions([_texts(path, example) for example in same])
    }
    for name, plain in (("label", _text), ("split", splits.plain)):
        values = [plain(example.attributes.get(name)) for example in same]
        attributes[name] = captioned.only_one(f"{path}: {same[0].id}", name, values)
    if len({example.path for example in same}) > 1:
        raise DatasetError(
            f"{path}: {same[0].id}: expected one file, found {same[0].path} and {same[-1].path}; "
            "give each image its own id"
        )
    return replace(same[0], attributes=attributes)


def _texts(path: Path, example: Example) -> list[str]:
    value = next((v for name in _COLUMNS if (v := example.attributes.get(name)) is not None), None)
    texts = value if isinstance(value, list) else [value]
    for caption in texts:
        if caption is not None and not isinstance(caption, str):
            raise DatasetError(
                f"{path}: {example.id}: expected captions as text, found {caption!r}"
            )
    return [plain for caption in texts if caption and (plain := " ".join(caption.split()))]


def _text(value: Any) -> str | None:
    """A value as text; None if blank."""
    text = "" if value is None else str(value)
    return text if text.strip() else None


Captions = dict[str, tuple[str, ...]]

_EXPECTED = 'expected {"filename": …, "captions": [texts]}'


def load_augmented(path: Path) -> Captions:
    """Reads augmented captions by image file name, in the order of the file.

    Raises:
        DatasetError: the file is unreadable or empty, a line is malformed or has no caption, or an
            image occurs twice.
    """
    augmented: Captions = {}
    for number, name, captions in _rows(path):
        plain = PurePosixPath(name).as_posix()
        if plain in augmented:
            raise DatasetError(
                f"{path}: line {number}: expected each image once, found {name} again; remove one"
            )
        augmented[plain] = captions
    if not augmented:
        raise DatasetError(f"{path}: expected a line for each image, found none")
    return augmented


def write_augmented(path: Path, captions: Mapping[str, Sequence[str]]) -> None:
    """Atomically writes captions by image file name, one line per image.

    Raises:
        StoreError: the file cannot be written; an existing file is unchanged.
    """
    lines = [
        json.dumps({"filename": name, "captions": list(texts)}) + "\n"
        for name, texts in captions.items()
    ]
    with storage_errors(f"{path} cannot be written"):
        replace_file(path, lambda aside: aside.write_text("".join(lines), encoding="utf-8"))


def with_augmented(
    examples: Sequence[Example], files: Sequence[Captions], ids: Sequence[str] = ()
) -> list[Example]:
    """Replaces the captions of examples with augmented captions.

    A file names images by their ids, or else as they are stored elsewhere: the folders that all of
    its names have in common are then ignored, and the end of an id counts. Images that no file
    names keep their captions; those that several name have the captions of all.

    Args:
        examples: images of a dataset.
        files: results of `load_augmented`.
        ids: the ids of the whole dataset, whose other splits the files may name; those of
            `examples` by default.

    Raises:
        DatasetError: no image has augmented captions, so the files belong to other images; or the
            name of one fits several images.
    """
    augmented: dict[str, list[Sequence[str]]] = {}
    for captions in files:
        for id_, texts in _matched(ids or [e.id for e in examples], captions).items():
            augmented.setdefault(id_, []).append(texts)
    if examples and not any(example.id in augmented for example in examples):
        raise DatasetError(
            f"expected augmented captions for images such as {examples[0].id}, found them for "
            f"{next(chain.from_iterable(files), 'none')}; use the file of this dataset and split"
        )
    return [
        replace(
            example,
            attributes={
                **example.attributes,
                "captions": captioned.joined_captions(augmented[example.id]),
            },
        )
        if example.id in augmented
        else example
        for example in examples
    ]


def _matched(ids: Sequence[str], captions: Captions) -> Captions:
    """The captions of a file by the ids of the images that it names."""
    if not captions.keys().isdisjoint(ids):
        return captions
    folders = zip(*(PurePosixPath(name).parts[:-1] for name in captions), strict=False)
    shared = len(list(takewhile(lambda parts: len(set(parts)) == 1, folders)))
    short = {"/".join(PurePosixPath(n).parts[shared:]): texts for n, texts in captions.items()}
    named: dict[str, str] = {}
    for id_ in ids:
        parts = PurePosixPath(id_).parts
        ends = ("/".join(parts[start:]) for start in range(len(parts)))
        name = next((end for end in ends if end in short), None)
        if name is not None and named.setdefault(name, id_) != id_:
            raise DatasetError(
                f"expected one image of the augmented captions of {name}, found {named[name]} and "
                f"{id_}; name images by their ids in the file"
            )
    return {id_: short[name] for name, id_ in named.items()}


def _rows(path: Path) -> Iterator[tuple[int, str, tuple[str, ...]]]:
    """Yields line number, file name and captions."""
    for number, line in enumerate(text.read(path).split("\n"), start=1):
        if line.strip():
            yield number, *_row(f"{path}: line {number}", line)


def _row(where: str, line: str) -> tuple[str, tuple[str, ...]]:
    try:
        row = text.parse_json(line)
        name, texts = row["filename"], row["captions"]
    except (ValueError, LookupError, TypeError) as error:
        raise DatasetError(f"{where}: {_EXPECTED}: {error!r}") from error
    if not isinstance(name, str) or not isinstance(texts, list):
        raise DatasetError(f"{where}: {_EXPECTED}, found values of other types")
    if not all(isinstance(caption, str) for caption in texts):
        raise DatasetError(f"{where}: {_EXPECTED}, found a caption of another type")
    text.require_whole([name, texts], f"{where}: expected captions")
    if not PurePosixPath(name).name:
        raise DatasetError(f"{where}: expected the name of an image file, found {name!r}")
    captions = tuple(caption for raw in texts if (caption := " ".join(raw.split())))
    if not captions:
        raise DatasetError(f"{where}: expected captions for {name}, found none; remove the line")
    return name, captions
