"""Untrusted images: decode uploads, and read stored images only if they match their row.

Clients name rows, never files. A row must name a regular file by an absolute path, or a remote
object, and its SHA-256 must be that of the embedded image, so a link or a replaced file is never
shown.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
from pathlib import Path

from PIL import Image

from rsicd_embed.errors import ImageError, RequestError
from rsicd_embed.images import (
    FORMATS,
    SceneWindow,
    container_of,
    read_address,
    read_header,
    read_rgb,
)
from rsicd_embed.remote import is_remote
from rsicd_embed.server.engine import StoredFile
from rsicd_embed.server.schemas import Limits

_QUALITY = 85
# The last bytes of a file, for formats that mark their end.
_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82", "GIF": b";"}
_PADDING = b"\0\r\n\t "


def decode(data: bytes, most_pixels: int) -> Image.Image:
    """Decodes an upload to an upright RGB image.

    The size is checked in the header, before anything is decoded.

    Raises:
        RequestError: 413: too many pixels; 415: not an image of a known format; 422: a damaged
            file, or one with further data after the image.
    """
    if not data:
        raise RequestError(422, "expected an image, found an empty file")
    try:
        header = read_header(data)
    except Image.DecompressionBombError as error:
        raise RequestError(413, _too_large("more", most_pixels)) from error
    except ImageError as error:
        known = ", ".join(FORMATS)
        raise RequestError(415, f"expected an image of a known format ({known})") from error
    if header.width * header.height > most_pixels:
        size = f"{header.width}×{header.height}"
        raise RequestError(413, _too_large(size, most_pixels))
    try:
        picture = read_rgb(data, most_pixels)
    except ImageError as error:
        raise RequestError(422, f"the image cannot be read: {error}") from error
    _require_no_further_data(data, header.format)
    return picture


def _require_no_further_data(data: bytes, kind: str) -> None:
    end = _ENDS.get(kind)
    whole = end is None or data.rstrip(_PADDING).endswith(end)
    if kind == "WEBP":
        stated = int.from_bytes(data[4:8], "little") + 8
        whole = stated <= len(data) and not data[stated:].strip(_PADDING)
    if not whole:
        raise RequestError(
            422, f"expected a {kind} file that ends with its image, found more; save it again"
        )


def _too_large(size: str, most_pixels: int) -> str:
    return f"expected an image of at most {most_pixels:,} pixels, found {size}; make it smaller"


def read(file: StoredFile, most_bytes: int) -> bytes:
    """Reads a stored image's file.

    Raises:
        RequestError: 404: the row has no file, or the file is missing, not regular, too large, or
            changed; or it is not local and its hash is unknown.
    """
    if file.uri and SceneWindow.parse(file.uri):
        return _window(file.uri if is_remote(file.uri) else str(_local_path(file)), file.sha256)
    if file.uri and (is_remote(file.uri) or container_of(file.uri)):
        return _checked(file.uri, file.sha256, most_bytes)
    path = _local_path(file)
    try:
        # Non-blocking, in case the path is now a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:  # ValueError: a null character
        raise RequestError(404, "the image's file is gone, or cannot be read") from error
    try:
        data = _content(descriptor, most_bytes)
    finally:
        os.close(descriptor)
    if file.sha256:
        if hashlib.sha256(data).hexdigest() != file.sha256:
            raise RequestError(404, "the image's file has changed since it was embedded")
    elif path.resolve() != path:
        raise RequestError(404, "the image's path contains a link, and its hash is unknown")
    return data


def _checked(uri: str, sha256: str | None, most_bytes: int) -> bytes:
    """Reads a remote image, or one in a tar or a table, whose content has to match its hash."""
    if not sha256:
        raise RequestError(404, "the image's hash is unknown, so it is not downloaded")
    try:
        data = read_address(uri, most_bytes)
    except ImageError as error:
        raise RequestError(404, f"the image cannot be read: {error}") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise RequestError(404, "the image's file has changed since it was embedded")
    return data


def _window(address: str, sha256: str | None) -> bytes:
    """Reads a window of a scene as a PNG."""
    if not sha256:
        raise RequestError(404, "the image's hash is unknown, so its scene is not read")
    try:
        picture = read_rgb(address)
    except ImageError as error:
        raise RequestError(404, f"the image's scene cannot be read: {error}") from error
    if hashlib.sha256(picture.tobytes()).hexdigest() != sha256:
        raise RequestError(404, "the image's scene has changed since it was embedded")
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    return file.getvalue()


def _content(descriptor: int, most_bytes: int) -> bytes:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise RequestError(404, "the image's path is not a regular file")
    if status.st_size > most_bytes:
        raise RequestError(404, f"the image's file has more than {most_bytes:,} bytes")
    try:
        with open(descriptor, "rb", closefd=False) as opened:
            return opened.read(most_bytes)
    except OSError as error:
        raise RequestError(404, "the image's file cannot be read") from error


def _local_path(file: StoredFile) -> Path:
    if not file.uri:
        raise RequestError(404, "the store has no file for this image")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", file.uri):
        raise RequestError(404, "the image is not a file on this machine, and is not downloaded")
    path = Path(file.uri)
    if not path.is_absolute() or ".." in path.parts:
        raise RequestError(404, "expected an absolute path of the image in the store")
    return path


def stored_picture(file: StoredFile, limits: Limits) -> Image.Image:
    """Decodes a stored image for `find`.

    Raises:
        RequestError: 404: it cannot be read (see `read`) or decoded, or has too many pixels.
    """
    data = read(file, limits.file_bytes)
    try:
        return decode(data, limits.upload_pixels)
    except RequestError as error:
        raise RequestError(404, f"the stored image cannot be searched: {error}") from error


def thumbnail(data: bytes, side: int) -> bytes:
    """Converts an image to a JPEG whose longer side has at most `side` pixels.

    Raises:
        RequestError: 404: it cannot be decoded.
    """
    try:
        picture = read_rgb(data)
    except ImageError as error:
        raise RequestError(404, f"the image cannot be shown: {error}") from error
    if max(picture.size) > side:
        picture.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=None)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()
