"""Tags of a folder of segments: copies of its manifest that keep the files they name."""

from __future__ import annotations

from pathlib import Path

from rsicd_embed import files
from rsicd_embed.stores import manifest
from rsicd_embed.stores.base import require_tag
from rsicd_embed.stores.manifest import Manifest

_PREFIX, _SUFFIX = "tag-", ".json"


def path_of(folder: Path, name: str) -> Path:
    """Where a tag is, or would be.

    Raises:
        StoreError: that is no name for a tag.
    """
    return folder / f"{_PREFIX}{require_tag(name)}{_SUFFIX}"


def names(folder: Path) -> list[str]:
    """The tags that there are, sorted."""
    found = [path.name for path in folder.glob(f"{_PREFIX}*{_SUFFIX}")]
    return sorted(name.removeprefix(_PREFIX).removesuffix(_SUFFIX) for name in found)


def kept(folder: Path, kind: str) -> dict[str, Manifest]:
    """The states that tags keep.

    Raises:
        StoreCorruptError: one cannot be read.
    """
    paths = {name: path_of(folder, name) for name in names(folder)}
    return {name: manifest.decode(path.read_bytes(), path, kind) for name, path in paths.items()}


def write(folder: Path, name: str, raw: bytes) -> None:
    """Keeps the state whose manifest is `raw`."""
    files.write_file(path_of(folder, name), lambda path: path.write_bytes(raw))
    files.sync_folder(folder)


def remove(folder: Path, name: str) -> None:
    """Lets go of a state; its files go with the next change."""
    path_of(folder, name).unlink()
    files.sync_folder(folder)
