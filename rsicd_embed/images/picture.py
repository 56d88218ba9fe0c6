"""Reads images of any supported format as upright 8-bit RGB."""

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

from rsicd_embed.errors import ImageError, RemoteError, one_line
from rsicd_embed.images import image_codecs, tiff, tiff_header
from rsicd_embed.images.archived_images import TableCell, TarMember
from rsicd_embed.images.bit_depth import Stretch, to_8_bits
from rsicd_embed.images.image_codecs import too_large, without_text
from rsicd_embed.images.scene_windows import SceneWindow
from rsicd_embed.remote import address_of, fetch, is_remote

# Formats that every installation reads, and the only ones that the server accepts. Other decoders
# are rarely needed and widen the attack surface.
FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "PPM", "JPEG2000")

# Formats whose decoder is a package of the extra `pictures`.
_PLUGINS = {"AVIF": "PIL._avif", "HEIF": "pillow_heif", "JXL": "pillow_jxl"}
_PLUGIN_SUFFIXES = {"AVIF": {".avif"}, "HEIF": {".heic", ".heif", ".hif"}, "JXL": {".jxl"}}


@cache
def has_plugin(kind: str) -> bool:
    """Whether the plug-in for "AVIF", "HEIF" or "JXL" is installed; it is not imported."""
    try:
        return find_spec(_PLUGINS[kind]) is not None
    except ModuleNotFoundError:
        return False


@cache
def load_plugin(kind: str) -> None:
    """Registers the decoder for "AVIF", "HEIF" or "JXL" with Pillow."""
    if kind == "HEIF":
        import_module("pillow_heif").register_heif_opener()
    elif kind == "JXL":
        import_module("pillow_jxl")


def plugin_kind(data: bytes) -> str | None:
    """The format of data that begin like AVIF, HEIF or JPEG XL: "AVIF", "HEIF" or "JXL"."""
    if data[4:8] == b"ftyp":
        brands = data[8 : min(int.from_bytes(data[:4], "big"), 256)]
        if b"avif" in brands or b"avis" in brands:
            return "AVIF"
        return "HEIF" if any(brand in brands for brand in (b"heic", b"heix", b"mif1")) else None
    return "JXL" if data.startswith((b"\xff\n", b"\0\0\0\x0cJXL \r\n\x87\n")) else None


def _suffixes_with_plugin(*, installed: bool) -> set[str]:
    kinds = [kind for kind in _PLUGINS if has_plugin(kind) is installed]
    return set().union(*(_PLUGIN_SUFFIXES[kind] for kind in kinds))


# Suffixes of the files that are read as images from a folder.
SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".tif", ".tiff", ".webp"),
        *(".gif", ".bmp", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
        *(".jp2", ".j2k", ".jpc", ".j2c", ".jpf", ".jpx"),
        *_suffixes_with_plugin(installed=True),
    }
)

# Suffixes of files that could be read if the extra `pictures` were installed.
PLUGIN_SUFFIXES = frozenset(_suffixes_with_plugin(installed=False))

# Suffixes of image files that are not read.
UNREAD_SUFFIXES = PLUGIN_SUFFIXES | {
    *(".tga", ".psd", ".psb", ".ico", ".icns", ".svg", ".eps", ".pcx", ".dds", ".exr", ".hdr"),
    *(".xcf", ".qoi", ".sgi", ".ras", ".dib", ".emf", ".wmf", ".jls", ".jxr", ".wdp", ".jpm"),
    *(".fits", ".xbm", ".xpm", ".pam"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef"),  # cameras
    *(".ecw", ".sid", ".ntf", ".nitf", ".img", ".gti", ".bil", ".bip", ".bsq", ".vrt"),  # rasters
}


ImageLike = Image.Image | Path | str | bytes
"""An image: a Pillow image, a path or address, or the bytes of an image file."""

# 178,956,970, Pillow's own limit. An image of that size takes 0.5 GB as RGB.
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
_AS_STORED = _UPRIGHT | {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Picture:
    """A decoded image.

    Attributes:
        image: upright 8-bit RGB.
        stretch: how samples of more than 8 bits, or of signed or float type, were scaled; None
            for samples of up to 8 bits, which keep their values.
        nodata: share of pixels without data, for a window of a scene.
        orientation: that of the file, as in EXIF; 1 is upright.
    """

    image: Image.Image
    stretch: Stretch | None = None
    nodata: float = 0.0
    orientation: int = 1


def as_stored(image: Image.Image, orientation: int) -> Image.Image:
    """Turns an upright image to the orientation of its file, as in `Picture.orientation`."""
    turn = _AS_STORED.get(orientation)
    return image if turn is None else image.transpose(turn)


def read_rgb(source: ImageLike, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Like `read_picture`, but returns only the RGB image."""
    return read_picture(source, max_pixels).image


def read_picture(source: ImageLike, max_pixels: int = MAX_PIXELS) -> Picture:
    """Reads an image as upright 8-bit RGB.

    EXIF orientation is applied, alpha is dropped, and palettes and CMYK are converted to RGB.
    Samples of up to 8 bits keep their values; others are scaled by the range that the image uses
    (`bit_depth.to_8_bits`). TIFFs with several pages or bands are handled by `tiff.read`.

    Args:
        source: a path, an address (see `read_address`, `SceneWindow`), the bytes of a file, or a
            Pillow image.
        max_pixels: largest accepted number of pixels.

    Raises:
        ImageError: the file is missing, damaged, of an unsupported format or layout, larger than
            `max_pixels`, or has no pixels.
    """
    if isinstance(source, str | Path) and (window := SceneWindow.parse(str(source))):
        width, height = window.size or window.box[2:]
        if width * height > max_pixels:
            raise ImageError(too_large(max_pixels, f"{width}×{height}"))
        picture, nodata = window.read()
        return Picture(picture, nodata=nodata)
    data = source if isinstance(source, bytes | Image.Image) else read_address(source)
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
        raise ImageError(f"not an image of a known format ({', '.join(FORMATS)})") from error
    except MemoryError as error:
        raise ImageError("too large for this machine's memory; tile it first") from error
    except Exception as error:  # decoders raise all kinds of exceptions for broken files
        raise ImageError(f"damaged image: {one_line(error)}") from error


@dataclass(frozen=True)
class Header:
    """Format and size of an image, read without decoding it.

    Attributes:
        format: one of `FORMATS`.
        width: in pixels, before the image is turned upright.
        height: in pixels.
    """

    format: str
    width: int
    height: int


def read_header(data: bytes) -> Header:
    """Reads the format and size of an image of one of `FORMATS` without decoding it.

    Raises:
        ImageError: the data are not such an image.
        PIL.Image.DecompressionBombError: the image has more than `MAX_PIXELS` pixels.
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
        raise ImageError(f"not an image of a known format ({', '.join(FORMATS)})") from error


def read_address(address: str | Path, most_bytes: int | None = None) -> bytes:
    """Reads an image file from wherever it is.

    Args:
        address: a path, a URL of an object store or the web, or the address of an image inside a
            tar or a Parquet table (see `archived_images`).
        most_bytes: largest accepted size of a remote file.

    Raises:
        ImageError: it cannot be read.
    """
    text = address_of(address)
    try:
        if member := TarMember.parse(text):
            if most_bytes is not None and member.size > most_bytes:
                raise ImageError(f"has more than {most_bytes:,} bytes")
            return member.read()
        if cell := TableCell.parse(text):
            return cell.read()
        if is_remote(text):
            content = fetch(text, most_bytes=most_bytes)
            return content.data if content else b""
    except RemoteError as error:
        raise ImageError(str(error)) from error
    return read_bytes(Path(address))


def read_bytes(path: Path) -> bytes:
    """Reads a file, and checks that it did not change in the meantime.

    Raises:
        ImageError: the file cannot be read, is not a regular file, or is being written.
    """
    try:
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # reading a pipe would block
            raise ImageError("not a regular file")
        with path.open("rb") as file:
            before = os.fstat(file.fileno())
            data = file.read()
            after = os.fstat(file.fileno())
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or len(
            data
        ) != after.st_size:
            raise ImageError("changed while it was read; try again once it is complete")
        return data
    except MemoryError as error:
        raise ImageError("too large for this machine's memory; tile it first") from error
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        reason = error.strerror if isinstance(error, OSError) else None
        raise ImageError(f"cannot be read: {reason or error}") from error


def _decode(data: bytes, max_pixels: int) -> Picture:
    if tiff_header.is_tiff(data):
        raster = tiff.read(data, max_pixels)
        image, stretch = _to_8_bits(raster.values, raster.bits, raster.valid)
        return _upright(image, stretch, raster.orientation)
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
            raise ImageError(f"{kind} needs a plug-in; pip install 'rsicd-embed[pictures]'")
        load_plugin(kind)
        formats = (kind,)
    with Image.open(io.BytesIO(data), formats=formats) as image:
        if image.width * image.height > max_pixels:
            raise ImageError(too_large(max_pixels, f"{image.width}×{image.height}"))
        if not image_codecs.is_deep_png(data):
            return _from_pillow(image)
        deep, stretch = _to_8_bits(image_codecs.read_png(data), bits=16)
        return _upright(deep, stretch, image.getexif().get(_ORIENTATION, 1))


def _upright(image: Image.Image, stretch: Stretch | None, orientation: int) -> Picture:
    turn = _UPRIGHT.get(orientation)
    upright = image if turn is None else image.transpose(turn)
    return Picture(upright, stretch, orientation=orientation)


def _from_pillow(image: Image.Image) -> Picture:
    if not (image.width and image.height):
        raise ImageError("no pixels")
    orientation = image.getexif().get(_ORIENTATION, 1)
    image = ImageOps.exif_transpose(image)
    stretch = None
    if image.mode.startswith(("I", "F")):
        image, stretch = _to_8_bits(np.asarray(image)[..., np.newaxis], bits=32)
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode != "RGB":
        image = image.convert("RGB")
    return Picture(image, stretch, orientation=orientation)


def _to_8_bits(
    values: np.ndarray, bits: int, valid: np.ndarray | None = None
) -> tuple[Image.Image, Stretch | None]:
    """Converts grey, RGB or CMYK samples (height, width, 1, 3 or 4) to RGB, scaled if needed."""
    stretch = None
    if values.shape[2] == 4 and values.dtype.kind == "u":  # inks: fractions of full coverage
        values = (values / (2**bits - 1) * 255).round().astype(np.uint8)
    elif bits > 8 or values.dtype.kind not in "ub":
        values, stretch = to_8_bits(values, valid)
    if values.shape[2] == 1:
        return Image.fromarray(np.ascontiguousarray(values[..., 0])).convert("RGB"), stretch
    mode = "CMYK" if values.shape[2] == 4 else "RGB"
    return Image.fromarray(np.ascontiguousarray(values), mode).convert("RGB"), stretch
