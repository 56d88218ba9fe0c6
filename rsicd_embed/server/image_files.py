"""The file of a stored picture: read only where it is what the store's row says.

Clients name rows, never files. What a row names must be an absolute path of a regular file, and
its content that which was embedded (its SHA-256); so neither a link nor a file that was put in its
place shows anything else.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
from pathlib import Path

from PIL import Image, ImageOps

from rsicd_embed.errors import ImageError, RequestError
from rsicd_embed.images import FORMATS, read_header, read_rgb
from rsicd_embed.server.engine import File
from rsicd_embed.server.schemas import Limits

_QUALITY = 85
_LEAST_SIDE = 16


def read(file: File, most_bytes: int) -> bytes:
    """The bytes that were embedded.

    Raises:
        RequestError: 404 and why: no file is known, it is not on this machine, it is gone, no
            regular file, too large, or another than it was.
    """
    path = _local_path(file)
    try:
        # Without waiting, should it have become a pipe.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:  # ValueError: a null character
        raise RequestError(404, "the picture's file is gone, or cannot be read") from error
    try:
        data = _content(handle, most_bytes)
    finally:
        os.close(handle)
    if file.sha256:
        if hashlib.sha256(data).hexdigest() != file.sha256:
            raise RequestError(404, "the picture's file has changed since it was embedded")
    elif path.resolve() != path:
        raise RequestError(404, "the picture's path goes through a link, and its hash is not known")
    return data


def _content(handle: int, most_bytes: int) -> bytes:
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode):
        raise RequestError(404, "what is in the place of the picture is no regular file")
    if found.st_size > most_bytes:
        raise RequestError(404, f"the picture's file has more than {most_bytes:,} bytes")
    try:
        with open(handle, "rb", closefd=False) as opened:
            return opened.read(most_bytes)
    except OSError as error:
        raise RequestError(404, "the picture's file cannot be read") from error


def picture(file: File, limits: Limits) -> Image.Image:
    """The picture itself, to be searched.

    Raises:
        RequestError: 404 and why: as `read` does, or it cannot be decoded, or has more pixels than
            one that is brought may have.
    """
    data = read(file, limits.file_bytes)
    try:
        return decode(data, limits.upload_pixels)
    except RequestError as error:
        raise RequestError(404, f"the stored picture cannot be searched: {error}") from error


def thumbnail(data: bytes, side: int) -> bytes:
    """A picture as a JPEG whose longer side has at most so many pixels.

    Raises:
        RequestError: 404: it cannot be decoded.
    """
    try:
        picture = read_rgb(data)
    except ImageError as error:
        raise RequestError(404, f"the picture cannot be shown: {error}") from error
    if max(picture.size) > side:
        box = (max(side, _LEAST_SIDE),) * 2
        picture = ImageOps.contain(picture, box, Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


def _local_path(file: File) -> Path:
    if not file.uri:
        raise RequestError(404, "the store knows no file of this picture")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", file.uri):
        raise RequestError(404, "the picture is not a file on this machine; it is not fetched")
    path = Path(file.uri)
    if not path.is_absolute() or ".." in path.parts:
        raise RequestError(404, "expected an absolute path of the picture in the store")
    return path


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
