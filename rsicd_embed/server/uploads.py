"""Pictures from anyone → RGB: small enough, of a known format, whole, and nothing but a picture."""

from __future__ import annotations

from PIL import Image

from rsicd_embed.errors import ImageError, RequestError
from rsicd_embed.images import FORMATS, read_header, read_rgb

# What a file ends with. The other formats have no mark of their end.
_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82", "GIF": b";"}
_PADDING = b"\0\r\n\t "


def decode(data: bytes, most_pixels: int) -> Image.Image:
    """The upright RGB picture in a file's bytes.

    Its size is read from the header, before anything is decoded.

    Raises:
        RequestError: 413: too many pixels; 415: not a picture of a known format; 422: broken, or
            with something else behind the picture (a file of two kinds).
    """
    if not data:
        raise RequestError(422, "expected a picture, found an empty file")
    try:
        header = read_header(data)
    except Image.DecompressionBombError as error:
        raise RequestError(413, _too_large("more", most_pixels)) from error
    except ImageError as error:
        known = ", ".join(FORMATS)
        raise RequestError(415, f"expected a picture of a known format ({known})") from error
    if header.width * header.height > most_pixels:
        size = f"{header.width}×{header.height}"
        raise RequestError(413, _too_large(size, most_pixels))
    try:
        picture = read_rgb(data, most_pixels)
    except ImageError as error:
        raise RequestError(422, f"the picture cannot be read: {error}") from error
    _require_nothing_behind(data, header.format)
    return picture


def _require_nothing_behind(data: bytes, kind: str) -> None:
    end = _ENDS.get(kind)
    whole = end is None or data.rstrip(_PADDING).endswith(end)
    if kind == "WEBP":
        stated = int.from_bytes(data[4:8], "little") + 8
        whole = stated <= len(data) and not data[stated:].strip(_PADDING)
    if not whole:
        raise RequestError(
            422, f"expected a {kind} file that ends with its picture, found more; save it anew"
        )


def _too_large(found: str, most_pixels: int) -> str:
    return f"expected a picture of at most {most_pixels:,} pixels, found {found}; make it smaller"
