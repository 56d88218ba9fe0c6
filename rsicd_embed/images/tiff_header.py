"""Parser of TIFF directories, safe for untrusted files.

The tags of a directory may not occupy more bytes than the file has, directory chains are followed
at most once, and sizes are known before anything is decoded.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from rsicd_embed.errors import ImageError

_MAX_DIRECTORIES = 64
_MAX_TAGS = 4096
# Bytes per value by type, and `struct` formats of the integer types.
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_SIZES |= {16: 8, 17: 8, 18: 8}
_INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}

# Tags that describe how pixels are stored.
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
FILL_ORDER, STRIP_OFFSETS, ORIENTATION, SAMPLES = 266, 273, 274, 277
STRIP_ROWS, STRIP_BYTES, PLANAR, T4_OPTIONS, T6_OPTIONS = 278, 279, 284, 292, 293
PREDICTOR, COLOUR_MAP, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS = 317, 320, 322, 323, 324
TILE_BYTES, INK_SET, EXTRA_SAMPLES, SAMPLE_FORMAT = 325, 332, 338, 339
JPEG_TABLES, SUBSAMPLING, REFERENCE = 347, 530, 532
GDAL_METADATA, GDAL_NODATA, LERC_PARAMETERS = 42112, 42113, 50674
_OLD_JPEG = frozenset({512, 513, 514, 515, 519, 520, 521})
# Tags passed on to the decoder.
_PIXEL_TAGS = _OLD_JPEG | {
    *(WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER, STRIP_OFFSETS, SAMPLES),
    *(STRIP_ROWS, STRIP_BYTES, PLANAR, T4_OPTIONS, T6_OPTIONS, PREDICTOR, COLOUR_MAP),
    *(TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES, EXTRA_SAMPLES, SAMPLE_FORMAT),
    *(JPEG_TABLES, SUBSAMPLING, REFERENCE),
}  # fmt: skip
_SUBFILE_TYPE, _REDUCED, _MASK = 254, 1, 4


def is_tiff(data: bytes) -> bool:
    """Whether the data begin like a TIFF or BigTIFF of either byte order."""
    return data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@dataclass(frozen=True)
class _Entry:
    type: int
    count: int
    value: bytes  # as stored
    raw: bytes  # the directory's own bytes


@dataclass(frozen=True)
class Directory:
    """The tags of one image in a TIFF."""

    data: bytes
    order: str  # "<" or ">", as in `struct`
    big: bool
    entries: dict[int, _Entry]

    def integers(self, tag: int, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """The values of a tag; the default if it is absent or not of an integer type."""
        entry = self.entries.get(tag)
        if entry is None or entry.type not in _INTEGERS or not entry.count:
            return default
        return struct.unpack(f"{self.order}{entry.count}{_INTEGERS[entry.type]}", entry.value)

    def integer(self, tag: int, default: int) -> int:
        """The first value of a tag, or the default."""
        return self.integers(tag, (default,))[0]

    def text(self, tag: int) -> str:
        """The text of a tag; empty if absent."""
        entry = self.entries.get(tag)
        return entry.value.rstrip(b"\0 ").decode("latin-1") if entry else ""

    @cached_property
    def width(self) -> int:
        """Width in pixels."""
        return self.integer(WIDTH, 0)

    @cached_property
    def height(self) -> int:
        """Height in pixels."""
        return self.integer(HEIGHT, 0)

    def alone(self) -> bytes:
        """The file with only this directory, reduced to the tags that decoding needs."""
        raw = {tag: entry.raw for tag, entry in self.entries.items() if tag in _PIXEL_TAGS}
        body = b"".join(raw[tag] for tag in sorted(raw))
        count = struct.pack(self.order + ("Q" if self.big else "H"), len(raw))
        start = len(self.data) + len(self.data) % 2
        head = 8 if self.big else 4
        offset = struct.pack(self.order + ("Q" if self.big else "I"), start)
        padding = b"\0" * (len(self.data) % 2)
        parts = (self.data[:head], offset, self.data[head + len(offset) :], padding, count, body)
        return b"".join((*parts, b"\0" * 8))


def main_directory(data: bytes) -> Directory:
    """The first image of a file that is neither an overview nor a mask.

    Raises:
        ImageError: the file has no image, or is damaged.
    """
    return picture_and_mask(data)[0]


def picture_and_mask(data: bytes) -> tuple[Directory, Directory | None]:
    """The main image, and the mask of its valid pixels that GDAL writes directly after it.

    Raises:
        ImageError: the file has no image, or is damaged.
    """
    first = picture = None
    for directory in _directories(data):
        first = first or directory
        kind = directory.integer(_SUBFILE_TYPE, 0)
        if picture:
            size = directory.width, directory.height
            is_its_mask = kind & _MASK and size == (picture.width, picture.height)
            return picture, directory if is_its_mask else None
        if not kind & (_REDUCED | _MASK):
            picture = directory
    if first is None:
        raise ImageError("damaged image: this TIFF has no directory of pixels")
    return picture or first, None


def _directories(data: bytes) -> Iterator[Directory]:
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    offset_format = order + ("Q" if big else "I")
    seen: set[int] = set()
    place = 8 if big else 4
    try:
        while len(seen) < _MAX_DIRECTORIES:
            (start,) = struct.unpack_from(offset_format, data, place)
            if not start or start in seen:
                return
            if start >= len(data):
                raise struct.error(f"no directory at {start}")
            seen.add(start)
            directory, place = _directory(data, start, order, big)
            yield directory
    except (struct.error, ImageError) as error:
        if len(seen) > 1:  # the main image may be intact although the rest of the chain is not
            return
        if isinstance(error, ImageError):
            raise
        raise ImageError("damaged image: the TIFF's directory is cut off") from error


def _directory(data: bytes, start: int, order: str, big: bool) -> tuple[Directory, int]:
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, start)
    if count > _MAX_TAGS:
        raise ImageError(f"damaged image: expected at most {_MAX_TAGS} TIFF tags, found {count}")
    size, inline = (20, 8) if big else (12, 4)
    first = start + (8 if big else 2)
    entries: dict[int, _Entry] = {}
    total = 0
    for place in range(first, first + count * size, size):
        tag, kind, values = struct.unpack_from(order + ("HHQ" if big else "HHI"), data, place)
        length = _SIZES.get(kind, 0) * values
        begin = place + size - inline
        if length > inline:
            (begin,) = struct.unpack_from(order + ("Q" if big else "I"), data, begin)
        if not length or begin + length > len(data) or tag in entries:
            continue  # as in libtiff: bad tags may be unnecessary, and the first of a tag wins
        total += length
        if total > len(data):
            raise ImageError("damaged image: its TIFF tags overlap")
        entries[tag] = _Entry(
            kind, values, data[begin : begin + length], data[place : place + size]
        )
    return Directory(data, order, big, entries), first + count * size
