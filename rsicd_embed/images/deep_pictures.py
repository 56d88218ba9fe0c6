"""PNG, PPM and JPEG 2000 files of more than 8 bits, of which Pillow keeps only 8."""

from __future__ import annotations

import math
import re

import numpy as np

from rsicd_embed.errors import ImageError
from rsicd_embed.images import segment_size

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG2000_STARTS = (b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n")
_SPACE = rb"(?:\s|#[^\n]*\n)+"
_PPM = re.compile(rb"P([36])" + _SPACE + rb"(\d+)" + _SPACE + rb"(\d+)" + _SPACE + rb"(\d+)\s")


def is_deep_png(data: bytes) -> bool:
    """Whether a file is a PNG with 16 bits per sample."""
    return data.startswith(_PNG) and data[24:25] == b"\x10"


def read_png(data: bytes) -> np.ndarray:
    """(height, width, 1 or 3) of a PNG whose size is known to be acceptable; alpha is dropped."""
    import imagecodecs

    values: np.ndarray = imagecodecs.png_decode(data)
    return _without_alpha(values)


def read_jpeg2000(data: bytes, max_pixels: int) -> np.ndarray | None:
    """(height, width, 1 or 3) of a JPEG 2000 of more than 8 bits or 4 bands; None for others.

    Raises:
        ImageError: of more pixels than `max_pixels`.
    """
    if not data.startswith(_JPEG2000_STARTS):
        return None
    header = segment_size.jpeg2000(data)
    if header is None or (header.bits <= 8 and not header.signed and header.components <= 4):
        return None
    if header.width * header.height * math.ceil(header.components / 4) > max_pixels:
        raise ImageError(too_large(max_pixels, f"{header.width}×{header.height}"))
    import imagecodecs

    values: np.ndarray = imagecodecs.jpeg2k_decode(data)
    return _without_alpha(values)


def read_ppm(data: bytes, max_pixels: int) -> np.ndarray | None:
    """(height, width, 3) of a PPM whose largest value is above 255; None for other files.

    Raises:
        ImageError: of more pixels than `max_pixels`, or truncated.
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
        raise ImageError("broken picture: image file is truncated")
    return values.reshape(height, width, 3).astype(np.uint16)


def too_large(max_pixels: int, found: str) -> str:
    """Why a picture of too many pixels is refused."""
    return f"expected at most {max_pixels:,} pixels, found {found}; tile it first"


def _without_alpha(values: np.ndarray) -> np.ndarray:
    values = values.reshape(*values.shape[:2], -1)
    return values[..., :3] if values.shape[2] >= 3 else values[..., :1]
