"""Folders of images, and single image files."""

from __future__ import annotations

import heapq
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa

from rsicd_embed.datasets.base import Example, Skipped, Source
from rsicd_embed.datasets.spooled_examples import collect
from rsicd_embed.errors import DatasetError
from rsicd_embed.images import PLUGIN_SUFFIXES, SUFFIXES, UNREAD_SUFFIXES

FSTAB = Path("/etc/fstab")
_NO_COLUMNS = pa.schema([])


def load(folder: Path, *, allow_empty: bool = False) -> Source:
    """Finds all images below a folder, sorted by relative path, which becomes the id.

    Hidden files are ignored. Links to folders are followed, but each folder is read only once:
    under its own path if it is below `folder`, else under the first link to it. Links to folders
    above `folder` are not followed.

    Folders that cannot be listed, broken links and names that are not UTF-8 are reported in
    `Source.skipped`; images in unsupported formats are counted in `Source.unread`.

    Args:
        folder: an existing folder.
        allow_empty: accept a folder without images.

    Raises:
        DatasetError: the folder has no images (unless `allow_empty` and nothing was skipped), or
            is the mount point of a disk that is not mounted.
    """
    contents = _Contents(folder)
    if not len(contents.images):
        _require_mounted(folder, contents)
        if contents.skipped or not allow_empty:
            raise DatasetError(
                f"expected images in {_shown(folder)}, found {contents.without_images()}; "
                f"image files end in {', '.join(sorted(SUFFIXES))}"
            )
        notes = [f"{_shown(folder)} has no images; the rows of its former images are removed"]
    else:
        notes = contents.notes()
    return Source(
        folder,
        contents.images,
        skipped=tuple(contents.skipped),
        unread=dict(contents.unread),
        notes=tuple(notes),
    )


def load_file(path: Path) -> Source:
    """A source of one image file, with its name as id.

    Raises:
        DatasetError: the name is not UTF-8.
    """
    if not _is_utf8(path):
        raise DatasetError(f"expected a UTF-8 file name, found {_shown(path)}; rename it")
    return Source(path, (Example(path.name, str(path)),))


def without_images(folder: Path) -> str:
    """Describes the contents of a folder without images, such as `nothing` or `9 .avif`."""
    return _Contents(folder).without_images()


class _Contents:
    """The files below a folder.

    Attributes:
        images: sorted by id.
        skipped: folders and files that could not be read.
        unread: number of image files in unsupported formats, by suffix.
        others: number of other files.
        repeated: paths of folders that were already read under another path.
    """

    def __init__(self, root: Path) -> None:
        self.skipped: list[Skipped] = []
        self.unread: Counter[str] = Counter()
        self.others = 0
        self.repeated: list[str] = []
        self._root = root
        # A link to a folder above the root would lead back to the root.
        self._seen = {_identity(parent) for parent in root.resolve().parents}
        self._links: list[Path] = []
        trees = [collect(self._walk(root), _NO_COLUMNS)]
        while self._links:
            links, self._links = sorted(self._links), []
            trees += [collect(self._walk(link, linked=True), _NO_COLUMNS) for link in links]
        self.images = trees[0]
        if len(trees) > 1:
            merged = heapq.merge(*trees, key=lambda example: example.id)
            self.images = collect(merged, _NO_COLUMNS)

    def without_images(self) -> str:
        """Describes the contents of a folder without images."""
        parts = [describe_unread(self.unread)] if self.unread else []
        if self.others:
            parts.append(f"{self.others:,} other file{'s' * (self.others > 1)}")
        text = " and ".join(parts) or "nothing"
        return f"{text}; {self.skipped[0].uri}: {self.skipped[0].reason}" if self.skipped else text

    def notes(self) -> list[str]:
        """Messages for the user about the walk."""
        if not self.repeated:
            return []
        return [
            f"skipped linked folders: {len(self.repeated):,}, such as "
            f"{_shown(self.repeated[0])}; they are read under another path, or contain "
            f"{_shown(self._root)}"
        ]

    def _walk(self, start: Path, *, linked: bool = False) -> Iterator[Example]:
        """Yields the images of a folder and its subfolders by id, and notes links to folders."""
        waiting: list[Iterator[tuple[Path, os.DirEntry[str]]]] = [self._entries(start, linked)]
        while waiting:
            path, entry = next(waiting[-1], (None, None))
            if path is None or entry is None:
                waiting.pop()
            elif not _is_folder(entry):
                if example := self._example(path, entry):
                    yield example
            elif not entry.name.startswith("."):
                if entry.is_symlink():
                    self._links.append(path)
                else:
                    waiting.append(self._entries(path, linked))

    def _entries(self, folder: Path, linked: bool) -> Iterator[tuple[Path, os.DirEntry[str]]]:
        """The entries of a folder, in the order of the ids below them."""
        identity = _identity(folder)
        if linked and identity in self._seen:
            self.repeated.append(str(folder))
            return
        self._seen.add(identity)
        try:
            with os.scandir(folder) as entries:
                listed = sorted(entries, key=lambda e: f"{e.name}/" if _is_folder(e) else e.name)
        except OSError as error:
            reason = f"cannot be listed: {error.strerror}"
            self.skipped.append(Skipped(_shown(folder), reason))
            return
        for entry in listed:
            yield folder / entry.name, entry

    def _example(self, path: Path, entry: os.DirEntry[str]) -> Example | None:
        """The example of an image; other files are counted."""
        suffix = path.suffix.lower()
        if entry.name.startswith("."):
            self.others += 1
        elif suffix in SUFFIXES:
            if _is_utf8(path):
                return Example(path.relative_to(self._root).as_posix(), str(path))
            self.skipped.append(Skipped(_shown(path), "expected a UTF-8 file name; rename it"))
        elif entry.is_symlink() and (reason := _why_broken(path)):
            self.skipped.append(Skipped(_shown(path), reason))
        elif suffix in UNREAD_SUFFIXES:
            self.unread[suffix] += 1
        else:
            self.others += 1
        return None


def _identity(folder: Path) -> tuple[int, int] | None:
    """Device and inode, which are equal for two paths of the same folder."""
    try:
        status = folder.stat()
    except OSError:
        return None  # listing it reports why
    return status.st_dev, status.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _why_broken(link: Path) -> str | None:
    """Explains why a link cannot be followed; None if it can."""
    try:
        link.stat()
    except OSError as error:
        return f"link to {_shown(link.readlink())} cannot be followed: {error.strerror}"
    return None


def _require_mounted(folder: Path, contents: _Contents) -> None:
    """Raises an error if an empty folder is the mount point of a disk that is not mounted."""
    if contents.others or contents.unread or contents.skipped:
        return
    try:
        table = FSTAB.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return
    rows = [line.split() for line in table.splitlines() if not line.lstrip().startswith("#")]
    points = [Path(row[1].replace("\\040", " ")) for row in rows if len(row) > 1]
    resolved = folder.resolve()
    for point in points:
        if point.is_absolute() and resolved.is_relative_to(point) and not os.path.ismount(point):
            raise DatasetError(
                f"expected images in {_shown(folder)}, found nothing, and the disk of {point} "
                f"({FSTAB}) is not mounted; mount it first"
            )


def _is_utf8(path: Path) -> bool:
    try:
        str(path.absolute()).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _shown(path: Path | str) -> str:
    """A printable path: bytes that are not UTF-8 are escaped, such as `\\xff`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def describe_unread(unread: Mapping[str, int]) -> str:
    """Formats counts by suffix, the most frequent first.

    Example:
        >>> describe_unread({".psd": 9, ".tga": 3})
        '9 .psd, 3 .tga'
    """
    ordered = sorted(unread.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {suffix}{_remedy(suffix)}" for suffix, count in ordered)


def _remedy(suffix: str) -> str:
    return " (install rsicd-embed[pictures])" if suffix in PLUGIN_SUFFIXES else ""
