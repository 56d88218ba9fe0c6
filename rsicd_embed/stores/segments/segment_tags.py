"""Tags of a folder of segments: manifests of before, which the newest one names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rsicd_embed import files
from rsicd_embed.errors import StoreCorruptError
from rsicd_embed.files import FileEntry
from rsicd_embed.stores.base import require_tag
from rsicd_embed.stores.segments import segment_manifest
from rsicd_embed.stores.segments.segment_manifest import Manifest

PREFIX = "tag-"
_SUFFIX = ".json"
_REMEDY = "let go of it, or restore its file from a backup"


def path_of(folder: Path, name: str) -> Path:
    """Where a tag is, or would be.

    Raises:
        StoreError: that is no name for a tag.
    """
    return folder / f"{PREFIX}{require_tag(name)}{_SUFFIX}"


def entries(newest: Manifest) -> dict[str, FileEntry]:
    """Name → file of the tags that there are, sorted."""
    names = {one.name.removeprefix(PREFIX).removesuffix(_SUFFIX): one for one in newest.tags}
    return dict(sorted(names.items()))


def read(folder: Path, name: str, entry: FileEntry, kind: str) -> Manifest:
    """The state that a tag keeps.

    Raises:
        StoreCorruptError: its file is gone, or is not what was written.
    """
    try:
        path = files.verify(folder, entry, _REMEDY)
        return segment_manifest.decode(path.read_bytes(), path, kind, name)
    except FileNotFoundError as error:
        raise StoreCorruptError(f"{error.filename} is gone; {_REMEDY}") from None


def added(folder: Path, name: str, newest: Manifest) -> Manifest:
    """Writes the newest state down under a name, which counts once what comes back is committed."""
    content = segment_manifest.encode(replace(newest, tag=name, tags=()))
    entry = files.write_file(path_of(folder, name), lambda path: path.write_bytes(content))
    return replace(newest, tags=(*newest.tags, entry))


def removed(name: str, newest: Manifest) -> Manifest:
    """The newest state without a tag, whose files go once that is committed."""
    gone = entries(newest)[name]
    return replace(newest, tags=tuple(one for one in newest.tags if one != gone))
