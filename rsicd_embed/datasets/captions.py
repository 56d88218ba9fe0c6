"""Images with captions from any source that has them: what models are trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rsicd_embed.datasets import captioned, manifest, splits
from rsicd_embed.datasets.base import Example, Source
from rsicd_embed.errors import DatasetError

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
    for text in texts:
        if text is not None and not isinstance(text, str):
            raise DatasetError(f"{path}: {example.id}: expected captions as text, found {text!r}")
    return [plain for text in texts if text and (plain := " ".join(text.split()))]


def _text(value: Any) -> str | None:
    """As text; a blank is none."""
    text = "" if value is None else str(value)
    return text if text.strip() else None


def _value(attributes: Mapping[str, Any]) -> Any:
    return next((found for name in _COLUMNS if (found := attributes.get(name)) is not None), None)
