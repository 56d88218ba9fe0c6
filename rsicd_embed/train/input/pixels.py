"""Images of a train split as squares of bytes: in memory, in a file, or decoded when asked for."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from rsicd_embed.datasets.base import Example
from rsicd_embed.embedder.preprocess import Preprocessor
from rsicd_embed.errors import ImageError, TrainError
from rsicd_embed.files import cache_folder, make_folder, storage_errors, sync_folder, write_file
from rsicd_embed.images import read_bytes, read_rgb
from rsicd_embed.parallel import ordered_map

Advance = Callable[[int], object]

_VERSION = 1  # of what a file holds: grows when decoding or resizing changes
_AHEAD = 256


class Pixels(Protocol):
    """Images that can be asked for in any order."""

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray:
        """int (n,) → uint8 (n, side, side, 3)."""


@dataclass(frozen=True)
class Stored:
    """Pixels, and which images are the same.

    Attributes:
        pixels: of each image.
        same: int32 (n,); equal for image files of equal content.
        decoded: whether pixels need no decoding any more.
    """

    pixels: Pixels
    same: np.ndarray
    decoded: bool


def store(
    examples: Sequence[Example], side: int, cache: str, *, shared: bool, advance: Advance
) -> Stored:
    """Makes ready the centre squares of images, resized to `side`.

    Args:
        examples: the images.
        side: height and width in pixels.
        cache: memory, disk, none, or auto: see `DataConfig`.
        shared: whether other processes will ask for pixels.
        advance: called with the number of images just read.

    Raises:
        TrainError: an image cannot be read.
        StoreError: there is no room for the file.
    """
    if cache == "auto":
        cache = _roomy(len(examples) * side * side * 3, shared=shared)
    if cache == "none":
        read = ordered_map(_digest, examples, ahead=_AHEAD)
        same = _numbered(list(_told(read, advance)))
        return Stored(Decoded(tuple(e.path for e in examples), side), same, decoded=False)
    if cache == "disk" or shared:  # processes share a file's pages, but not an array
        return _on_disk(examples, side, advance)
    pixels = np.empty((len(examples), side, side, 3), np.uint8)
    return Stored(pixels, _fill(pixels, examples, advance), decoded=True)


def require_readable(examples: Sequence[Example]) -> None:
    """Decodes every image, and forgets it.

    Raises:
        TrainError: an image cannot be read.
    """
    for _ in ordered_map(partial(_pixels, side=1), [e.path for e in examples], ahead=_AHEAD):
        pass


@dataclass(frozen=True)
class Decoded:
    """Images that are decoded each time they are asked for."""

    paths: tuple[Path, ...]
    side: int

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray:
        """int (n,) → uint8 (n, side, side, 3)."""
        return np.stack([_pixels(self.paths[row], self.side) for row in rows])


class OnDisk:
    """Images in a file, of which other processes open the same pages."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pixels: np.ndarray = np.load(path, mmap_mode="r")

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray:
        """int (n,) → uint8 (n, side, side, 3)."""
        return np.asarray(self._pixels[rows])

    def __reduce__(self) -> tuple[type[OnDisk], tuple[Path]]:
        return OnDisk, (self._path,)


def _roomy(size: int, *, shared: bool) -> str:
    """The first of memory, disk and none that has room for so many bytes."""
    if not shared and size <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4:
        return "memory"
    folder = cache_folder()
    while not folder.exists():
        folder = folder.parent
    return "disk" if size <= shutil.disk_usage(folder).free // 2 else "none"


def _on_disk(examples: Sequence[Example], side: int, advance: Advance) -> Stored:
    name = _file_name(examples, side)
    folder = cache_folder() / "pixels"
    path, same = folder / f"{name}.npy", folder / f"{name}.same.npy"

    def fill(aside: Path) -> None:
        shape = (len(examples), side, side, 3)
        pixels = np.lib.format.open_memmap(aside, mode="w+", dtype=np.uint8, shape=shape)
        numbers = _fill(pixels, examples, advance)
        pixels.flush()
        write_file(same, partial(_save, array=numbers))

    if not (path.exists() and same.exists()):
        with storage_errors(f"cannot keep decoded images in {folder}"):
            make_folder(folder)
            write_file(path, fill)
            sync_folder(folder)
    return Stored(OnDisk(path), np.load(same), decoded=True)


def _save(path: Path, array: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, array)


def _file_name(examples: Sequence[Example], side: int) -> str:
    """Another one once an image has changed."""
    sha = hashlib.sha256(f"{_VERSION} {side}".encode())
    for example in examples:
        try:
            found = example.path.stat()
        except OSError as error:
            raise _unreadable(example.path, f"cannot be read: {error.strerror}") from error
        sha.update(json.dumps([example.uri, found.st_size, found.st_mtime_ns]).encode())
    return sha.hexdigest()[:32]


def _fill(pixels: np.ndarray, examples: Sequence[Example], advance: Advance) -> np.ndarray:
    """Writes all pixels; returns which images are the same."""
    read = partial(_read, side=pixels.shape[1])
    digests = []
    for i, (one, digest) in enumerate(ordered_map(read, examples, ahead=_AHEAD)):
        pixels[i] = one
        digests.append(digest)
        advance(1)
    return _numbered(digests)


def _told(read: Iterator[bytes], advance: Advance) -> Iterator[bytes]:
    for one in read:
        yield one
        advance(1)


def _read(example: Example, side: int) -> tuple[np.ndarray, bytes]:
    data = _bytes(example.path)
    return _pixels(example.path, side, data), _hash(data)


def _digest(example: Example) -> bytes:
    return _hash(_bytes(example.path))


def _hash(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _numbered(digests: Sequence[bytes]) -> np.ndarray:
    known: dict[bytes, int] = {}
    return np.array([known.setdefault(digest, len(known)) for digest in digests], np.int32)


def _bytes(path: Path) -> bytes:
    try:
        return read_bytes(path)
    except ImageError as error:
        raise _unreadable(path, str(error)) from error


def _pixels(path: Path, side: int, data: bytes | None = None) -> np.ndarray:
    try:
        image = read_rgb(_bytes(path) if data is None else data)
    except ImageError as error:
        raise _unreadable(path, str(error)) from error
    return Preprocessor(side, (side, side))(image)


def _unreadable(path: Path, why: str) -> TrainError:
    return TrainError(f"{path}: {why}; mend or leave out this image")
