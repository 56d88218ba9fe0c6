"""Decoders of deep PNG, PPM and JPEG 2000 files, which Pillow cuts to 8 bits, and header parsers.

The header parsers return the size that compressed data announces, so that nothing larger than
expected is decoded.
"""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass

import numpy as np

from rsicd_embed.errors import ImageError

_JPEG_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_CODESTREAM = b"\xff\x4f\xff\x51"  # JPEG 2000 start-of-codestream and size markers


@dataclass(frozen=True)
class Codestream:
    """The header of a JPEG 2000 image.

    Attributes:
        width: in pixels.
        height: in pixels.
        components: number of bands.
        bits: bits per sample of the deepest component.
        signed: whether any component is signed.
    """

    width: int
    height: int
    components: int
    bits: int
    signed: bool


def jpeg2000_header(data: bytes) -> Codestream | None:
    """Parses the header of a codestream, bare or in a JP2 file; None if absent or truncated."""
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
    """Width and height of a JPEG 2000 image; None if the header is absent or truncated."""
    header = jpeg2000_header(data)
    return (header.width, header.height) if header else None


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a JPEG frame of any process and precision; None if there is none."""
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


def webp_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a WebP canvas; None if the data are not WebP."""
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


def lerc_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a LERC 2 blob; None if the data are not LERC 2."""
    if data[:6] != b"Lerc2 " or len(data) < 22:
        return None
    (version,) = struct.unpack_from("<i", data, 6)
    height, width = struct.unpack_from("<ii", data, 14 if version >= 3 else 10)
    return width, height


_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG2000_STARTS = (b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n")
_SPACE = rb"(?:\s|#[^\n]*\n)+"
_PPM = re.compile(rb"P([36])" + _SPACE + rb"(\d+)" + _SPACE + rb"(\d+)" + _SPACE + rb"(\d+)\s")


def is_deep_png(data: bytes) -> bool:
    """Whether the data are a PNG with 16 bits per sample."""
    return data.startswith(_PNG) and data[24:25] == b"\x10"


def read_png(data: bytes) -> np.ndarray:
    """Decodes a PNG of acceptable size to (height, width, 1 or 3); alpha is dropped."""
    import imagecodecs

    values: np.ndarray = imagecodecs.png_decode(data)
    return _without_alpha(values)


def read_jpeg2000(data: bytes, max_pixels: int) -> np.ndarray | None:
    """Decodes a JPEG 2000 of more than 8 bits or 4 bands to (height, width, 1 or 3).

    Returns:
        The samples without alpha; None for other files.

    Raises:
        ImageError: it has more than `max_pixels` pixels.
    """
    if not data.startswith(_JPEG2000_STARTS):
        return None
    header = jpeg2000_header(data)
    if header is None or (header.bits <= 8 and not header.signed and header.components <= 4):
        return None
    if header.width * header.height * math.ceil(header.components / 4) > max_pixels:
        raise ImageError(too_large(max_pixels, f"{header.width}×{header.height}"))
    import imagecodecs

    values: np.ndarray = imagecodecs.jpeg2k_decode(data)
    return _without_alpha(values)


def read_ppm(data: bytes, max_pixels: int) -> np.ndarray | None:
    """Decodes a PPM whose maximum value exceeds 255 to (height, width, 3); None for other files.

    Raises:
        ImageError: it has more than `max_pixels` pixels, or is truncated.
    """
    header = _PPM.match(data)
    if header is None or not 255 < int(header[4]) < 65_536:
        return None
    kind, width, height = header[1], int(header[2]), int(header[3])
    if width * height > max_pixels:
        raise ImageError(too_large(max_pixels, f"{width}×{height}"))
    count = 3 * width * height
    if kind == b"6":
        values = np.frombuffer(
            data, ">u2", min(count, (len(data) - header.end()) // 2), header.end()
        )
    else:
        values = np.array(data[header.end() :].split()[:count], np.uint16)
    if values.size < count:
        raise ImageError("damaged image: image file is truncated")
    return values.reshape(height, width, 3).astype(np.uint16)


def too_large(max_pixels: int, size: str) -> str:
    """The error message for an image with too many pixels."""
    return f"expected at most {max_pixels:,} pixels, found {size}; tile it first"


def _without_alpha(values: np.ndarray) -> np.ndarray:
    values = values.reshape(*values.shape[:2], -1)
    return values[..., :3] if values.shape[2] >= 3 else values[..., :1]


_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_NO_PIXELS = {b"iCCP", b"tEXt", b"zTXt", b"iTXt"}


def without_text(data: bytes) -> bytes:
    """Removes text chunks and the colour profile from a PNG; other data are returned unchanged.

    Pillow rejects images whose text or profile exceeds 1 MB once decompressed.
    """
    if not data.startswith(_SIGNATURE):
        return data
    parts, start = [_SIGNATURE], len(_SIGNATURE)
    while start + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, start)
        end = start + 12 + length
        if kind not in _NO_PIXELS:
            parts.append(data[start:end])
        start = end
    return b"".join(parts)
