"""Augmented captions beside a data set: `textaug_*.jsonl`, in the form that CLIP-rsicd published.

A line is an image: `{"filename": "rsicd_images/airport_1.jpg", "captions": [… five texts]}`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path, PurePosixPath

from rsicd_embed.datasets import text
from rsicd_embed.datasets.base import Example
from rsicd_embed.errors import DatasetError
from rsicd_embed.files import replace_file, storage_errors

Captions = dict[str, tuple[str, ...]]

_EXPECTED = 'expected {"filename": …, "captions": [texts]}'


def load(path: Path) -> Captions:
    """Captions by image file name, in the order of the file.

    A folder that all the names share is left out: it is called otherwise where the images are.

    Raises:
        DatasetError: the file cannot be read or is empty, a line is not of that form or has no
            caption, or an image is there twice.
    """
    rows = list(_rows(path))
    if not rows:
        raise DatasetError(f"{path}: expected a line for each image, found none")
    folders = zip(*(PurePosixPath(name).parts[:-1] for _, name, _ in rows), strict=False)
    shared = len(list(takewhile(lambda parts: len(set(parts)) == 1, folders)))
    found: Captions = {}
    for number, name, captions in rows:
        short = "/".join(PurePosixPath(name).parts[shared:])
        if short in found:
            raise DatasetError(
                f"{path}: line {number}: expected each image once, found {name} again; remove one"
            )
        found[short] = captions
    return found


def write(path: Path, captions: Mapping[str, Sequence[str]]) -> None:
    """Writes captions by image file name, a line each, all or nothing.

    Raises:
        StoreError: from the disk; an older file is as it was.
    """
    lines = [
        json.dumps({"filename": name, "captions": list(texts)}) + "\n"
        for name, texts in captions.items()
    ]
    with storage_errors(f"{path} cannot be written"):
        replace_file(path, lambda aside: aside.write_text("".join(lines), encoding="utf-8"))


def augmented(examples: Sequence[Example], captions: Mapping[str, Sequence[str]]) -> list[Example]:
    """Examples with the captions that `load` found for them in place of their own.

    An image is found by its id, or by the end of it where the id has folders that the file lacks.
    One that is not found keeps its own captions.

    Raises:
        DatasetError: none is found, so that the file is of other images.
    """
    found = [_of(example.id, captions) for example in examples]
    if examples and not any(found):
        raise DatasetError(
            f"expected augmented captions of images such as {examples[0].id}, found them of "
            f"{next(iter(captions), 'none')}; take the file of this data set and split"
        )
    return [
        replace(example, attributes={**example.attributes, "captions": list(texts)})
        if texts
        else example
        for example, texts in zip(examples, found, strict=True)
    ]


def _of(id_: str, captions: Mapping[str, Sequence[str]]) -> Sequence[str]:
    parts = PurePosixPath(id_).parts
    ends = ("/".join(parts[start:]) for start in range(len(parts)))
    return next((captions[end] for end in ends if end in captions), ())


def _rows(path: Path) -> Iterator[tuple[int, str, tuple[str, ...]]]:
    """Line number, file name and captions."""
    for number, line in enumerate(text.read(path).split("\n"), start=1):
        if line.strip():
            yield number, *_row(f"{path}: line {number}", line)


def _row(where: str, line: str) -> tuple[str, tuple[str, ...]]:
    try:
        row = json.loads(line)
        name, texts = row["filename"], row["captions"]
    except (ValueError, LookupError, TypeError) as error:
        raise DatasetError(f"{where}: {_EXPECTED}: {error!r}") from error
    if not isinstance(name, str) or not isinstance(texts, list):
        raise DatasetError(f"{where}: {_EXPECTED}, found values of other types")
    if not all(isinstance(one, str) for one in texts):
        raise DatasetError(f"{where}: {_EXPECTED}, found a caption of another type")
    text.require_whole([name, texts], f"{where}: expected captions")
    if not PurePosixPath(name).name:
        raise DatasetError(f"{where}: expected the name of an image file, found {name!r}")
    captions = tuple(caption for one in texts if (caption := " ".join(one.split())))
    if not captions:
        raise DatasetError(f"{where}: expected captions of {name}, found none; remove the line")
    return name, captions
