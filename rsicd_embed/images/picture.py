"""Pictures in any file or object → RGB, upright, 8 bits a channel; or a clear reason why not."""

from __future__ import annotations

import io
import os
import re
import stat
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from rsicd_embed.errors import ImageError, one_line
from rsicd_embed.images import image_codecs, tiff, tiff_header
from rsicd_embed.images.bit_depth import Stretch, to_8_bits
from rsicd_embed.images.image_codecs import too_large, without_text

# Read by every installation, and the only ones that the server accepts. Decoders of other formats
# are rarely used, and a way in for an attacker; they are not tried.
FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "PPM", "JPEG2000")

# Read from files where the package that brings the decoder is installed: the extra `pictures`.
_PLUGINS = {"AVIF": "PIL._avif", "HEIF": "pillow_heif", "JXL": "pillow_jxl"}
_PLUGIN_SUFFIXES = {"AVIF": {".avif"}, "HEIF": {".heic", ".heif", ".hif"}, "JXL": {".jxl"}}


@cache
def has_plugin(kind: str) -> bool:
    """Whether "AVIF", "HEIF" or "JXL" can be read here; does not import the plugin."""
    try:
        return find_spec(_PLUGINS[kind]) is not None
    except ModuleNotFoundError:
        return False


@cache
def load_plugin(kind: str) -> None:
    """Registers the decoder of "AVIF", "HEIF" or "JXL" with Pillow."""
    if kind == "HEIF":
        import_module("pillow_heif").register_heif_opener()
    elif kind == "JXL":
        import_module("pillow_jxl")


def plugin_kind(data: bytes) -> str | None:
    """ "AVIF", "HEIF" or "JXL" for a file that begins like one."""
    if data[4:8] == b"ftyp":
        brands = data[8 : min(int.from_bytes(data[:4], "big"), 256)]
        if b"avif" in brands or b"avis" in brands:
            return "AVIF"
        return "HEIF" if any(brand in brands for brand in (b"heic", b"heix", b"mif1")) else None
    return "JXL" if data.startswith((b"\xff\n", b"\0\0\0\x0cJXL \r\n\x87\n")) else None


def _suffixes_with_plugin(*, installed: bool) -> set[str]:
    kinds = [kind for kind in _PLUGINS if has_plugin(kind) is installed]
    return set().union(*(_PLUGIN_SUFFIXES[kind] for kind in kinds))


# The suffixes of files that a folder's pictures are made of.
SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".tif", ".tiff", ".webp"),
        *(".gif", ".bmp", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
        *(".jp2", ".j2k", ".jpc", ".j2c", ".jpf", ".jpx"),
        *_suffixes_with_plugin(installed=True),
    }
)

# The suffixes of files that are read where the extra `pictures` is installed, which it is not.
PLUGIN_SUFFIXES = frozenset(_suffixes_with_plugin(installed=False))

# The suffixes of files that are pictures, but are not read.
UNREAD_SUFFIXES = PLUGIN_SUFFIXES | {
    *(".tga", ".psd", ".psb", ".ico", ".icns", ".svg", ".eps", ".pcx", ".dds", ".exr", ".hdr"),
    *(".xcf", ".qoi", ".sgi", ".ras", ".dib", ".emf", ".wmf", ".jls", ".jxr", ".wdp", ".jpm"),
    *(".fits", ".xbm", ".xpm", ".pam"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef"),  # cameras
    *(".ecw", ".sid", ".ntf", ".nitf", ".img", ".gti", ".bil", ".bip", ".bsq", ".vrt"),  # rasters
}


ImageLike = Image.Image | Path | str | bytes

# 178,956,970: where Pillow itself refuses to go on. A picture of that size takes 0.5 GB as RGB.
MAX_PIXELS = 2 * 89_478_485

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Picture:
    """A decoded picture.

    Attributes:
        image: upright, RGB, 8 bits per channel.
        stretch: how samples of more than 8 bits, or of signed or float type, were scaled; None
            where they had 8 bits or fewer and were taken as they are.
    """

    image: Image.Image
    stretch: Stretch | None = None


def read_rgb(source: ImageLike, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The image of `read_picture`."""
    return read_picture(source, max_pixels).image


def read_picture(source: ImageLike, max_pixels: int = MAX_PIXELS) -> Picture:
    """An upright RGB picture from a path, the bytes of a file, or a Pillow image.

    EXIF orientation is applied. Alpha is dropped, palettes and CMYK are converted to RGB. Samples
    of up to 8 bits keep their values; all others are scaled by the range that the picture uses
    (`bit_depth.to_8_bits`). Of a TIFF with several pages, the first that is neither an overview
    nor a mask is read, and of more than three bands three (`tiff.read`).

    Raises:
        ImageError: missing, empty, truncated, no picture, of a format or layout that is not read,
            of more than `max_pixels` pixels, or with none.
    """
    data = source if isinstance(source, bytes | Image.Image) else read_bytes(Path(source))
    try:
        if isinstance(data, Image.Image):
            return _from_pillow(data)
        if not data:
            raise ImageError("empty file")
        return _decode(data, max_pixels)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        pixels = re.search(r"\d+", str(error))
        size = f"{int(pixels[0]):,}" if pixels else "more"
        raise ImageError(too_large(max_pixels, size)) from error
    except UnidentifiedImageError as error:
        raise ImageError(f"not a picture of a known format ({', '.join(FORMATS)})") from error
    except MemoryError as error:
        raise ImageError("too large for this machine's memory; tile it first") from error
    except Exception as error:  # decoders report broken files with whatever they tripped over
        raise ImageError(f"broken picture: {one_line(error)}") from error


@dataclass(frozen=True)
class Header:
    """What a file's first bytes say of its picture.

    Attributes:
        format: one of `FORMATS`.
        width: pixels per row, before the picture is turned upright.
        height: rows.
    """

    format: str
    width: int
    height: int


def read_header(data: bytes) -> Header:
    """Format and size of a picture of one of `FORMATS`, before anything is decoded.

    Raises:
        ImageError: it is no such picture.
        PIL.Image.DecompressionBombError: it has more than `MAX_PIXELS`.
    """
    try:
        if tiff_header.is_tiff(data):
            directory = tiff_header.main_directory(data)
            return Header("TIFF", directory.width, directory.height)
        with Image.open(io.BytesIO(without_text(data)), formats=FORMATS) as image:
            return Header(str(image.format), image.width, image.height)
    except (ImageError, Image.DecompressionBombError):
        raise
    except Exception as error:
        raise ImageError(f"not a picture of a known format ({', '.join(FORMATS)})") from error


def read_bytes(path: Path) -> bytes:
    """The content of a file, of one moment.

    Raises:
        ImageError: it cannot be read, is no regular file, or is being written to.
    """
    try:
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # a pipe would be waited for
            raise ImageError("not a regular file")
        with path.open("rb") as file:
            before = os.fstat(file.fileno())
            data = file.read()
            after = os.fstat(file.fileno())
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or len(
            data
        ) != after.st_size:
            raise ImageError("changed while it was read; try again when it is written")
        return data
    except MemoryError as error:
        raise ImageError("too large for this machine's memory; tile it first") from error
    except (OSError, ValueError) as error:  # ValueError: a name with a null character
        reason = error.strerror if isinstance(error, OSError) else None
        raise ImageError(f"cannot be read: {reason or error}") from error


def _decode(data: bytes, max_pixels: int) -> Picture:
    if tiff_header.is_tiff(data):
        raster = tiff.read(data, max_pixels)
        image, stretch = _to_8_bits(raster.values, raster.bits, raster.valid)
        turn = _UPRIGHT.get(raster.orientation)
        return Picture(image if turn is None else image.transpose(turn), stretch)
    for read in (image_codecs.read_jpeg2000, image_codecs.read_ppm):
        values = read(data, max_pixels)
        if values is not None:
            return Picture(*_to_8_bits(values, bits=16))
    try:
        return _decode_with_pillow(data, max_pixels)
    except ValueError:
        plain = without_text(data)
        if len(plain) == len(data):
            raise
        return _decode_with_pillow(plain, max_pixels)


def _decode_with_pillow(data: bytes, max_pixels: int) -> Picture:
    formats: tuple[str, ...] = FORMATS
    kind = plugin_kind(data)
    if kind:
        if not has_plugin(kind):
            raise ImageError(f"{kind} is read with a plugin; pip install 'rsicd-embed[pictures]'")
        load_plugin(kind)
        formats = (kind,)
    with Image.open(io.BytesIO(data), formats=formats) as image:
        if image.width * image.height > max_pixels:
            raise ImageError(too_large(max_pixels, f"{image.width}×{image.height}"))
        if not image_codecs.is_deep_png(data):
            return _from_pillow(image)
        deep, stretch = _to_8_bits(image_codecs.read_png(data), bits=16)
        turn = _UPRIGHT.get(image.getexif().get(0x0112, 1))
        return Picture(deep if turn is None else deep.transpose(turn), stretch)


def _from_pillow(image: Image.Image) -> Picture:
    if not (image.width and image.height):
        raise ImageError("no pixels")
    image = ImageOps.exif_transpose(image)
    if image.mode == "RGB":
        return Picture(image)
    if image.mode.startswith(("I", "F")):
        return Picture(*_to_8_bits(np.asarray(image)[..., np.newaxis], bits=32))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return Picture(image.convert("RGB"))


def _to_8_bits(
    values: np.ndarray, bits: int, valid: np.ndarray | None = None
) -> tuple[Image.Image, Stretch | None]:
    """Samples of grey, RGB or CMYK, (height, width, 1, 3 or 4) → RGB, stretched if need be."""
    stretch = None
    if values.shape[2] == 4 and values.dtype.kind == "u":  # inks cover a share of the paper
        values = (values / (2**bits - 1) * 255).round().astype(np.uint8)
    elif bits > 8 or values.dtype.kind not in "ub":
        values, stretch = to_8_bits(values, valid)
    if values.shape[2] == 1:
        return Image.fromarray(np.ascontiguousarray(values[..., 0])).convert("RGB"), stretch
    mode = "CMYK" if values.shape[2] == 4 else "RGB"
    return Image.fromarray(np.ascontiguousarray(values), mode).convert("RGB"), stretch
