"""Images with captions from any source that has them: what models are trained on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Any

from rsicd_embed.datasets import captioned, manifest, splits, text
from rsicd_embed.datasets.base import Example, Source
from rsicd_embed.errors import DatasetError
from rsicd_embed.files import replace_file, storage_errors

_COLUMNS = ("captions", "caption")


def load(path: Path) -> Source:
    """What `read` finds, to be trained on: in the splits train, val and test.

    Where no image has a split, one in twenty is `val`, chosen by a hash of its id, and the others
    are `train`, which is told. So are images without a split among others that have one.

    Raises:
        DatasetError: as `read`, or a split has another name.
    """
    source = read(path)
    return replace(source, examples=splits.for_training(path, source.examples))


def read(path: Path) -> Source:
    """A folder with a `dataset_*.json`, a manifest, or a folder with one manifest in it.

    A manifest has a column `caption` or `captions`, and perhaps `split` and `label`. An image may
    have several rows, a caption each. Splits are called train, val and test where they are these;
    others keep their names.

    Raises:
        DatasetError: it is missing, or not as described, or a caption is no text.
    """
    if path.is_dir():
        if (source := captioned.load(path)) is not None:
            return source
        path = _manifest_in(path)
    elif not path.exists():
        raise DatasetError(f"expected a data set with captions, found nothing at {path}")
    elif path.suffix.lower() not in manifest.SUFFIXES:
        raise DatasetError(
            f"expected a folder or a manifest ({', '.join(sorted(manifest.SUFFIXES))}), "
            f"found {path}"
        )
    return joined(path, manifest.read(path))


def joined(path: Path, rows: Source) -> Source:
    """The images of a manifest's rows, as `read` describes them.

    Raises:
        DatasetError: no column has captions, or one is no text, or rows of one image differ.
    """
    if not has_captions(rows):
        raise DatasetError(
            f"{path}: expected a column named {' or '.join(_COLUMNS)}, "
            f"found {', '.join(rows.schema.names) or 'none but the paths'}"
        )
    examples = tuple(_joined(path, same) for same in _by_id(rows.examples))
    return Source(rows.root, examples, captioned.SCHEMA)


def has_captions(source: Source) -> bool:
    """Whether a manifest has a column for them."""
    return any(name in source.schema.names for name in _COLUMNS)


def manifests_in(folder: Path) -> list[Path]:
    """The manifests directly in a folder; augmented captions are none."""
    return [
        one
        for one in sorted(folder.iterdir())
        if one.suffix.lower() in manifest.SUFFIXES and not one.name.startswith((".", "textaug_"))
    ]


def _manifest_in(folder: Path) -> Path:
    manifests = manifests_in(folder)
    if len(manifests) != 1:
        names = ", ".join(path.name for path in [*captioned.json_files(folder), *manifests])
        raise DatasetError(
            f"{folder}: expected a dataset_*.json that lists images, or one manifest with captions "
            f"({', '.join(sorted(manifest.SUFFIXES))}), found {names or 'none'}; "
            "give the manifest itself"
        )
    return manifests[0]


def _by_id(examples: Sequence[Example]) -> list[list[Example]]:
    found: dict[str, list[Example]] = {}
    for example in examples:
        found.setdefault(example.id, []).append(example)
    return list(found.values())


def _joined(path: Path, same: Sequence[Example]) -> Example:
    """One example of the rows of one image: all their captions, and what else they agree on."""
    attributes: dict[str, Any] = {
        "captions": captioned.joined_captions([_texts(path, one) for one in same])
    }
    for name, plain in (("label", _text), ("split", splits.plain)):
        values = [plain(one.attributes.get(name)) for one in same]
        attributes[name] = captioned.only_one(f"{path}: {same[0].id}", name, values)
    if len({one.path for one in same}) > 1:
        raise DatasetError(
            f"{path}: {same[0].id}: expected one file, found {same[0].path} and {same[-1].path}; "
            "give each image its own id"
        )
    return replace(same[0], attributes=attributes)


def _texts(path: Path, example: Example) -> list[str]:
    found = _value(example.attributes)
    texts = found if isinstance(found, list) else [found]
    for caption in texts:
        if caption is not None and not isinstance(caption, str):
            raise DatasetError(
                f"{path}: {example.id}: expected captions as text, found {caption!r}"
            )
    return [plain for caption in texts if caption and (plain := " ".join(caption.split()))]


def _text(value: Any) -> str | None:
    """As text; a blank is none."""
    text = "" if value is None else str(value)
    return text if text.strip() else None


def _value(attributes: Mapping[str, Any]) -> Any:
    return next((found for name in _COLUMNS if (found := attributes.get(name)) is not None), None)


Captions = dict[str, tuple[str, ...]]

_EXPECTED = 'expected {"filename": …, "captions": [texts]}'


def load_augmented(path: Path) -> Captions:
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


def write_augmented(path: Path, captions: Mapping[str, Sequence[str]]) -> None:
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


def with_augmented(
    examples: Sequence[Example], captions: Mapping[str, Sequence[str]]
) -> list[Example]:
    """Examples with the captions that `load` found for them in place of their own.

    An image is found by its id, or by the end of it where the id has folders that the file lacks.
    One that is not found keeps its own captions.

    Raises:
        DatasetError: none is found, so that the file is of other images.
    """
    found = [_captions_of(example.id, captions) for example in examples]
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


def _captions_of(id_: str, captions: Mapping[str, Sequence[str]]) -> Sequence[str]:
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
