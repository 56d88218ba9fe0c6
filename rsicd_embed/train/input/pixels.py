"""Square images of a train split: in memory, in a file, or decoded on demand."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from rsicd_embed.datasets.base import Example
from rsicd_embed.embedder.preprocess import Preprocessor
from rsicd_embed.errors import ImageError, TrainError
from rsicd_embed.files import cache_folder, make_folder, storage_errors, sync_folder, write_file
from rsicd_embed.images import read_address, read_bytes, read_rgb
from rsicd_embed.parallel import ordered_map

Advance = Callable[[int], object]

_VERSION = 1  # of cache files; incremented when decoding or resizing changes
_AHEAD = 256


class Pixels(Protocol):
    """Images that can be indexed in any order."""

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray:
        """int (n,) → uint8 (n, side, side, 3)."""


@dataclass(frozen=True)
class Stored:
    """Images, and which of them are identical.

    Attributes:
        pixels: the images.
        same: int32 (n,); equal for image files with equal content.
        decoded: whether the images are already decoded.
    """

    pixels: Pixels
    same: np.ndarray
    decoded: bool


def store(
    examples: Sequence[Example], side: int, cache: str, *, shared: bool, advance: Advance
) -> Stored:
    """Prepares the centre squares of images, resized to `side`."""
    if cache == "auto":
        cache = _cache_with_room(len(examples) * side * side * 3, shared=shared)
    if cache == "none":
        digests = []
        for digest in ordered_map(lambda e: _digest(_bytes(e.path)), examples, ahead=_AHEAD):
            digests.append(digest)
            advance(1)
        same = _numbered(digests)
        return Stored(Decoded(tuple(e.path for e in examples), side), same, decoded=False)
    if cache == "disk" or shared:  # processes can share a file, but not an array
        return _on_disk(examples, side, advance)
    pixels = np.empty((len(examples), side, side, 3), np.uint8)
    return Stored(pixels, _fill(pixels, examples, advance), decoded=True)


def contents_digest(examples: Sequence[Example]) -> str:
    """A hash of the contents of image files, in their order; of nothing else.

    Raises:
        TrainError: an image cannot be read.
    """

    def digest(example: Example) -> bytes:
        try:
            return _digest(read_address(example.file))
        except ImageError as error:
            raise _unreadable(example.path, str(error)) from error

    sha = hashlib.sha256()
    for own in ordered_map(digest, examples, ahead=_AHEAD):
        sha.update(own)
    return sha.hexdigest()


def require_readable(examples: Sequence[Example]) -> None:
    """Decodes every image without keeping it."""
    for _ in ordered_map(partial(_pixels, side=1), [e.path for e in examples], ahead=_AHEAD):
        pass


@dataclass(frozen=True)
class Decoded:
    """Images that are decoded each time they are accessed."""

    paths: tuple[Path, ...]
    side: int

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray:
        """int (n,) → uint8 (n, side, side, 3)."""
        return np.stack([_pixels(self.paths[row], self.side) for row in rows])


class OnDisk:
    """Images in a memory-mapped file, which other processes open too."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pixels: np.ndarray = np.load(path, mmap_mode="r")

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray:
        """int (n,) → uint8 (n, side, side, 3)."""
        return np.asarray(self._pixels[rows])

    def __reduce__(self) -> tuple[type[OnDisk], tuple[Path]]:
        return OnDisk, (self._path,)


def _cache_with_room(size: int, *, shared: bool) -> str:
    """The first of memory, disk and none with room for this many bytes."""
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
        with storage_errors(f"cannot write decoded images to {folder}"):
            make_folder(folder)
            write_file(path, fill)
            sync_folder(folder)
    return Stored(OnDisk(path), np.load(same), decoded=True)


def _save(path: Path, array: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, array)


def _file_name(examples: Sequence[Example], side: int) -> str:
    """Name of the cache file; changes when an image changes."""
    sha = hashlib.sha256(f"{_VERSION} {side}".encode())
    for example in examples:
        try:
            stat = example.path.stat()
        except OSError as error:
            raise _unreadable(example.path, f"cannot be read: {error.strerror}") from error
        sha.update(json.dumps([example.uri, stat.st_size, stat.st_mtime_ns]).encode())
    return sha.hexdigest()[:32]


def _fill(pixels: np.ndarray, examples: Sequence[Example], advance: Advance) -> np.ndarray:
    """Decodes all images into `pixels`; returns `Stored.same`."""
    read = partial(_read, side=pixels.shape[1])
    digests = []
    for i, (image, digest) in enumerate(ordered_map(read, examples, ahead=_AHEAD)):
        pixels[i] = image
        digests.append(digest)
        advance(1)
    return _numbered(digests)


def _read(example: Example, side: int) -> tuple[np.ndarray, bytes]:
    data = _bytes(example.path)
    return _pixels(example.path, side, data), _digest(data)


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _numbered(digests: Sequence[bytes]) -> np.ndarray:
    numbers: dict[bytes, int] = {}
    return np.array([numbers.setdefault(digest, len(numbers)) for digest in digests], np.int32)


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


def _unreadable(path: Path, reason: str) -> TrainError:
    return TrainError(f"{path}: {reason}; repair or remove this image")
