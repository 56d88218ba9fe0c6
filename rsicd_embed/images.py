"""Pictures in any file or object → RGB, upright, 8 bits a channel; or a clear reason why not."""

from __future__ import annotations

import io
import os
import re
import stat
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from rsicd_embed.errors import ImageError

ImageLike = Image.Image | Path | str | bytes

# Decoders of other formats are rarely used, and a way in for an attacker; they are not tried.
FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "PPM", "JPEG2000")
SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".tif", ".tiff", ".webp", ".gif", ".bmp"),
        *(".ppm", ".pgm", ".pnm", ".jp2", ".j2k"),
    }
)

# 178,956,970: where Pillow itself refuses to go on. A picture of that size takes 0.5 GB as RGB.
MAX_PIXELS = 2 * 89_478_485


def read_rgb(source: ImageLike) -> Image.Image:
    """An upright RGB picture from a path, the bytes of a file, or a Pillow image.

    EXIF orientation is applied. Alpha is dropped, palettes and CMYK are converted as Pillow does;
    16-bit grey keeps its high byte, as Pillow does for 16-bit RGB.

    Raises:
        ImageError: missing, empty, truncated, no picture, of a format not in FORMATS, of more than
            MAX_PIXELS pixels, or with none, or with float pixels.
    """
    data = source if isinstance(source, bytes | Image.Image) else read_bytes(Path(source))
    try:
        if isinstance(data, Image.Image):
            return _to_rgb(data)
        if not data:
            raise ImageError("empty file")
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(_too_large(f"{image.width}×{image.height}"))
            return _to_rgb(image)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        found = re.search(r"\d+", str(error))
        raise ImageError(_too_large(f"{int(found[0]):,}" if found else "more")) from error
    except UnidentifiedImageError as error:
        raise ImageError(f"not a picture of a known format ({', '.join(FORMATS)})") from error
    except MemoryError as error:
        raise ImageError("too large for this machine's memory; tile it first") from error
    except Exception as error:  # decoders report broken files with whatever they tripped over
        raise ImageError(f"broken picture: {_one_line(error)}") from error


def read_bytes(path: Path) -> bytes:
    """The content of a file, of one moment.

    Raises:
        ImageError: it cannot be read, or is being written to.
    """
    try:
        with path.open("rb") as file:
            before = os.fstat(file.fileno())
            data = file.read()
            after = os.fstat(file.fileno())
        if stat.S_ISREG(before.st_mode) and (
            (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns)
            or len(data) != after.st_size
        ):
            raise ImageError("changed while it was read; try again when it is written")
        return data
    except MemoryError as error:
        raise ImageError("too large for this machine's memory; tile it first") from error
    except (OSError, ValueError) as error:  # ValueError: a name with a null character
        reason = error.strerror if isinstance(error, OSError) else None
        raise ImageError(f"cannot be read: {reason or error}") from error


def _too_large(found: str) -> str:
    return f"expected at most {MAX_PIXELS:,} pixels, found {found}; tile it first"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _to_rgb(image: Image.Image) -> Image.Image:
    if not (image.width and image.height):
        raise ImageError("no pixels")
    image = ImageOps.exif_transpose(image)
    if image.mode == "RGB":
        return image
    if image.mode == "F":
        raise ImageError("expected integer pixels, found floats; scale them to 8 bits first")
    if image.mode.startswith("I"):
        high = np.clip(np.asarray(image), 0, 65535).astype(np.uint16) >> 8
        return Image.fromarray(high.astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")
