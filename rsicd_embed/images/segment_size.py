"""The size that compressed data announces, so that nothing larger than expected is decoded."""

from __future__ import annotations

import struct
from dataclasses import dataclass

_JPEG_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_CODESTREAM = b"\xff\x4f\xff\x51"  # of JPEG 2000: its start, and the marker of the sizes


@dataclass(frozen=True)
class Codestream:
    """The header of a JPEG 2000 image.

    Attributes:
        width: pixels per row.
        height: rows.
        components: number of bands.
        bits: of the deepest component.
        signed: whether a component is.
    """

    width: int
    height: int
    components: int
    bits: int
    signed: bool


def jpeg2000(data: bytes) -> Codestream | None:
    """The header of a codestream, alone or in a JP2 file; None where it is not found or cut off."""
    start = data.find(_CODESTREAM)
    try:
        right, bottom, left, top = struct.unpack_from(">4I", data, start + 8)
        (components,) = struct.unpack_from(">H", data, start + 40)
    except struct.error:
        return None
    depths = data[start + 42 : start + 42 + 3 * components : 3]
    if start < 0 or not 0 < components == len(depths):
        return None
    bits = max(depth & 0x7F for depth in depths) + 1
    signed = any(depth & 0x80 for depth in depths)
    return Codestream(right - left, bottom - top, components, bits, signed)


def jpeg2000_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a JPEG 2000 image."""
    header = jpeg2000(data)
    return (header.width, header.height) if header else None


def jpeg(data: bytes) -> tuple[int, int] | None:
    """Width and height of a JPEG's frame, of any process and precision."""
    place = 2
    while place + 9 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:  # padding
            place += 1
        elif marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, place + 5)
            return width, height
        else:
            place += 2 + struct.unpack_from(">H", data, place + 2)[0]
    return None


def webp(data: bytes) -> tuple[int, int] | None:
    """Width and height of a WebP's canvas."""
    kind = data[12:16]
    if data[:4] != b"RIFF" or len(data) < 30:
        return None
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[place : place + 3], "little") for place in (24, 27))
        return 1 + width, 1 + height
    if kind == b"VP8L":
        packed = int.from_bytes(data[21:25], "little")
        return 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def lerc(data: bytes) -> tuple[int, int] | None:
    """Width and height of a LERC 2 blob."""
    if data[:6] != b"Lerc2 " or len(data) < 22:
        return None
    (version,) = struct.unpack_from("<i", data, 6)
    height, width = struct.unpack_from("<ii", data, 14 if version >= 3 else 10)
    return width, height
