"""TIFF and BigTIFF decoder for every layout of integers and floats.

tifffile unpacks samples and imagecodecs decompresses them. Their input is checked first
(`tiff_header`), and segments are decoded one by one, so memory is bounded by the image's size.
"""

from __future__ import annotations

import io
import logging
import math
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from rsicd_embed.errors import ImageError
from rsicd_embed.images import image_codecs
from rsicd_embed.images import tiff_header as tags
from rsicd_embed.images.image_codecs import too_large
from rsicd_embed.images.tiff_header import Directory, picture_and_mask

if TYPE_CHECKING:
    from tifffile import TiffPage

# Limits the decoded bytes of an image, and of a single segment, relative to the allowed pixels.
_MAX_BYTES_PER_PIXEL = 12
_MOST_BANDS = 5  # CMYK and alpha
_MAX_TILE_PIXELS = 4096 * 4096

# tifffile logs corrections; without a handler Python would print them to stderr.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

_LERC, _JPEGS = 34887, (6, 7)
# Image codecs announce a size of their own, which may differ from the segment's.
_SIZE_OF: dict[int, Callable[[bytes], tuple[int, int] | None]] = {
    **dict.fromkeys(_JPEGS, image_codecs.jpeg_size),
    **dict.fromkeys((33003, 33005, 34712), image_codecs.jpeg2000_size),
    50001: image_codecs.webp_size,
    _LERC: image_codecs.lerc_size,
}
_COMPRESSIONS = {1, 2, 3, 4, 5, 8, 32946, 32773, 34925, 34926, 50000, *_SIZE_OF}
_UNREAD_COMPRESSIONS = {
    32766: "NeXT", 32809: "ThunderScan", 32908: "PixarFilm", 32909: "PixarLog", 33004: "JPEG 2000",
    34676: "SGI LogLuv", 34677: "SGI LogLuv 24", 34892: "lossy JPEG of DNG", 34933: "PNG",
    22610: "JPEG XR", 34934: "JPEG XR", 50002: "JPEG XL", 52546: "JPEG XL",
}  # fmt: skip
_LERC_WRAPPERS = {0: "none", 1: "deflate", 2: "zstd"}

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _MASK, _CMYK, _YCBCR = range(7)
_CIELAB, _ICCLAB = 8, 9
_CONVERTED = {_YCBCR: "YCbCr", _CIELAB: "CIELab", _ICCLAB: "ICCLab"}
_UNREAD_COLOURS = {10: "ITULab", 32803: "a colour filter array", 32844: "LogL", 32845: "LogLuv"}
_UNREAD_COLOURS |= {34892: "LinearRaw"}
_ASSOCIATED, _UNASSOCIATED = _ALPHAS = (1, 2)
_SAMPLE_FORMATS = (1, 2, 3, 4)  # unsigned, signed, float, void (read as unsigned)
_SEPARATE = 2  # planar configuration
_COLOURS = ("Red", "Green", "Blue")
_COLOUR_OF_BAND = re.compile(
    r'<Item name="COLORINTERP" sample="(\d+)" role="colorinterp">(Red|Green|Blue)</Item>'
)


@dataclass(frozen=True)
class Raster:
    """The main image of a TIFF.

    Attributes:
        values: (height, width, bands): one grey band, three of red, green and blue, or four of
            CMYK, in which larger values are darker.
        bits: bits per sample; at least 8, as shallower samples are expanded.
        valid: bool like `values`, False for nodata and transparent samples; None if all are valid.
        orientation: as in EXIF; 1 is upright.
    """

    values: np.ndarray
    bits: int
    valid: np.ndarray | None
    orientation: int


def read(data: bytes, max_pixels: int) -> Raster:
    """Decodes the main image of a TIFF: the first page that is neither an overview nor a mask.

    Red, green and blue are the bands that GDAL's metadata label so, or else the first three. A file
    with fewer than three bands besides transparency is grey.

    Raises:
        ImageError: the file is damaged, too large, or has an unsupported layout.
    """
    directory, mask = picture_and_mask(data)
    samples = _require_readable(directory, max_pixels)
    photometric = _photometric(directory, samples)
    extra = directory.integers(tags.EXTRA_SAMPLES)[:samples]
    alpha = {samples - len(extra) + i: kind for i, kind in enumerate(extra) if kind in _ALPHAS}
    bands = _bands(directory, photometric, [i for i in range(samples) if i not in alpha])
    decoded = _decode(directory, samples, [*bands, *alpha][: len(bands) + 1])
    values, transparency = decoded[..., : len(bands)], decoded[..., len(bands) :]
    bits = directory.integer(tags.BITS, 8 if directory.integer(tags.COMPRESSION, 1) == 6 else 1)
    if _ASSOCIATED in list(alpha.values())[:1]:
        values = _without_background(values, transparency, bits)
    if mask and _require_readable(mask, max_pixels) == 1:
        transparency = _decode(mask, 1, [0])
    valid = _valid(directory, values, transparency)
    if photometric == _PALETTE:
        values, bits, valid = _through_palette(directory, values, bits), 8, None
    elif photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _MASK):
        values, bits = _brightness(values, bits, inverted=photometric == _WHITE_IS_ZERO)
    elif photometric in _CONVERTED and directory.integer(tags.COMPRESSION, 1) not in _JPEGS:
        values = _converted(values, bits, photometric)
    return Raster(values, bits, valid, directory.integer(tags.ORIENTATION, 1))


def _require_readable(directory: Directory, max_pixels: int) -> int:
    """Checks everything that bounds memory, and returns the number of samples per pixel."""
    width, height = directory.width, directory.height
    if not (width > 0 and height > 0):
        raise ImageError("no pixels")
    samples = directory.integer(tags.SAMPLES, _default_samples(directory))
    bits = directory.integers(tags.BITS, (1,))[:samples]
    kinds = directory.integers(tags.SAMPLE_FORMAT, (1,))[:samples]
    if width * height > max_pixels:
        raise ImageError(too_large(max_pixels, f"{width}×{height}"))
    tile = directory.integer(tags.TILE_WIDTH, 0) * directory.integer(tags.TILE_HEIGHT, 0)
    strip = width * min(directory.integer(tags.STRIP_ROWS, height), height)
    in_segment = samples if directory.integer(tags.PLANAR, 1) != _SEPARATE else 1
    decoded = max(width * height * min(samples, _MOST_BANDS), (tile or strip) * in_segment)
    size = decoded * math.ceil(max(bits, default=1) / 8)
    if size > _MAX_BYTES_PER_PIXEL * max_pixels:
        raise ImageError(
            f"expected at most {_MAX_BYTES_PER_PIXEL * max_pixels:,} bytes of pixels, "
            f"found {size:,}; tile it first"
        )
    compression = directory.integer(tags.COMPRESSION, 1)
    if compression not in _COMPRESSIONS:
        name = _UNREAD_COMPRESSIONS.get(compression, f"number {compression}")
        raise ImageError(f"TIFF compression {name} is not supported; convert the file")
    if len(set(bits)) > 1 or len(set(kinds)) > 1:
        raise ImageError("TIFF bands of different types are not supported; convert the file")
    if kinds[0] not in _SAMPLE_FORMATS:
        raise ImageError("TIFF samples of complex numbers are not supported; convert the file")
    if tags.TILE_WIDTH in directory.entries and not (
        0 < tile <= max(width * height, _MAX_TILE_PIXELS)
    ):
        raise ImageError(f"damaged image: TIFF tiles of {tile:,} pixels")
    return samples


def _default_samples(directory: Directory) -> int:
    """Samples per pixel where the tag is absent, which old-style JPEG allows."""
    return 3 if directory.integer(tags.COMPRESSION, 1) == 6 else 1


def _photometric(directory: Directory, samples: int) -> int:
    default = _YCBCR if directory.integer(tags.COMPRESSION, 1) == 6 else _BLACK_IS_ZERO
    photometric = directory.integer(tags.PHOTOMETRIC, default)
    if photometric == _CMYK and (samples < 4 or directory.integer(tags.INK_SET, 1) != 1):
        raise ImageError("TIFF inks other than CMYK are not supported; convert the file to RGB")
    if photometric in (_RGB, *_CONVERTED) and samples < 3:
        raise ImageError(f"damaged image: expected 3 bands of colour, found {samples}")
    if photometric > _YCBCR and photometric not in _CONVERTED:
        name = _UNREAD_COLOURS.get(photometric, f"photometric interpretation {photometric}")
        raise ImageError(f"TIFF colours of {name} are not supported; convert the file to RGB")
    return photometric


def _bands(directory: Directory, photometric: int, coloured: list[int]) -> list[int]:
    """Selects the bands to use from `coloured`, the bands other than transparency."""
    if not coloured:
        raise ImageError("damaged image: all of its TIFF bands are transparency")
    if photometric == _CMYK:
        return coloured[:4]
    if photometric == _PALETTE or len(coloured) < 3:
        return coloured[:1]
    named = _COLOUR_OF_BAND.findall(directory.text(tags.GDAL_METADATA))
    band_of = {colour: int(band) for band, colour in named if int(band) in coloured}
    if band_of.keys() == set(_COLOURS):
        return [band_of[colour] for colour in _COLOURS]
    return coloured[:3]


def _decode(directory: Directory, samples: int, bands: Sequence[int]) -> np.ndarray:
    """Decodes the given bands to (height, width, bands) in native byte order."""
    import tifffile

    with tifffile.TiffFile(io.BytesIO(directory.alone())) as file:
        page = file.pages.first
        if page.dtype is None:
            bits = directory.integer(tags.BITS, 1)
            raise ImageError(f"TIFF samples of {bits} bits are not supported; convert the file")
        if page.is_subsampled and page.compression not in _JPEGS:
            raise ImageError(
                "TIFF colours with fewer samples than brightness (subsampled YCbCr) are supported "
                "only in JPEG compression; convert the file to RGB"
            )
        separate = page.planarconfig == _SEPARATE and samples > 1
        values = np.zeros((directory.height, directory.width, len(bands)), page.dtype)
        is_jpeg = page.compression in _JPEGS
        if is_jpeg and separate:  # each plane is a grey JPEG
            page.photometric = tifffile.PHOTOMETRIC.MINISBLACK
        options = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader} if is_jpeg else {}
        empty = True
        for index, segment in _segments(directory, page):
            try:
                decoded, place, _ = page.decode(segment, index, **options)
            except tifffile.TiffFileError as error:
                raise ImageError("damaged image: a TIFF segment is cut off") from error
            plane, _, top, left, _ = place
            if decoded is None or (separate and plane not in bands):
                continue
            empty = False
            rows, columns = decoded.shape[1:3]
            target = values[top : top + rows, left : left + columns]
            part = decoded[0, : target.shape[0], : target.shape[1]]
            if part.shape[2] != (1 if separate else samples):
                raise ImageError("damaged image: a TIFF segment has another number of bands")
            if separate:
                target[..., bands.index(plane)] = part[..., 0]
            else:
                for position, band in enumerate(bands):
                    target[..., position] = part[..., band]
    if empty:
        raise ImageError("damaged image: none of its pixels were written")
    return values


def _segments(directory: Directory, page: TiffPage) -> Iterator[tuple[int, bytes | None]]:
    """Yields the number and compressed bytes of each strip or tile; None if never written."""
    count = math.prod(page.chunked)
    offsets, sizes = page.dataoffsets[:count], page.databytecounts[:count]
    if not len(offsets) == len(sizes) == count:
        raise ImageError(
            f"damaged image: expected {count} TIFF segments, found {min(len(offsets), len(sizes))}"
        )
    announced = _SIZE_OF.get(int(page.compression))
    itemsize = np.dtype(page.dtype).itemsize
    expected = page.chunks[-3:] if page.ndim > 2 else page.chunks
    for index, (offset, size) in enumerate(zip(offsets, sizes, strict=True)):
        if not size:
            yield index, None
            continue
        if offset + size > len(directory.data) and page.compression != 1:
            raise ImageError("damaged image: image file is truncated")
        segment = directory.data[offset : offset + size]
        if page.compression == _LERC:
            segment = _unwrapped(directory, segment, math.prod(page.chunks) * itemsize)
        size_read = announced(segment) if announced else None
        if announced and (size_read is None or math.prod(size_read) > 4 * math.prod(expected)):
            raise ImageError("damaged image: a TIFF segment announces another size")
        yield index, segment


def _unwrapped(directory: Directory, segment: bytes, size: int) -> bytes:
    """Removes the second compression that GDAL may apply to a LERC blob."""
    wrapper = (*directory.integers(tags.LERC_PARAMETERS), 0, 0)[1]
    limit = 2 * size + 65_536
    if wrapper == 1:
        return zlib.decompressobj().decompress(segment, limit)
    if wrapper == 2:
        import imagecodecs

        return bytes(imagecodecs.zstd_decode(segment, out=limit))
    return segment


def _without_background(values: np.ndarray, alpha: np.ndarray, bits: int) -> np.ndarray:
    """Undoes the multiplication of colours by their opacity."""
    if values.dtype.kind not in "uf":
        return values
    full = 2.0**bits - 1 if values.dtype.kind == "u" else 1.0
    opacity = np.where(alpha > 0, alpha.astype(np.float64), full) / full
    return np.minimum(values / opacity, full).astype(values.dtype)


def _brightness(values: np.ndarray, bits: int, *, inverted: bool) -> tuple[np.ndarray, int]:
    """Returns samples in which larger values are brighter, and their bits (at least 8)."""
    if values.dtype.kind in "ub" and bits <= 8:
        table = np.rint(np.linspace(0, 255, 2**bits)).astype(np.uint8)
        if bits == 8 and not inverted:
            return values, bits
        return (table[::-1] if inverted else table)[values.view(np.uint8)], 8
    if inverted:
        values = 2**bits - 1 - values if values.dtype.kind == "u" else -1 - values
    return values, bits


def _converted(values: np.ndarray, bits: int, photometric: int) -> np.ndarray:
    if bits != 8 or values.dtype.kind != "u":
        raise ImageError(
            f"TIFF colours of {_CONVERTED[photometric]} are supported only in 8 bits; "
            "convert the file"
        )
    if photometric == _YCBCR:
        image = Image.fromarray(values, "YCbCr")
    else:
        if photometric == _ICCLAB:  # like CIELab, but unsigned
            values = values ^ np.array([0, 128, 128], np.uint8)
        height, width = values.shape[:2]
        image = Image.frombytes("LAB", (width, height), values.tobytes())
    return np.asarray(image.convert("RGB"))


def _through_palette(directory: Directory, values: np.ndarray, bits: int) -> np.ndarray:
    colours = np.asarray(directory.integers(tags.COLOUR_MAP), np.uint16)
    if colours.size != 3 * 2**bits:
        raise ImageError("damaged image: the TIFF's palette is missing or cut off")
    # Some writers use 8-bit instead of 16-bit values.
    table = (colours >> 8 if colours.max() > 255 else colours).astype(np.uint8)
    return table.reshape(3, -1).T[values[..., 0].astype(np.intp)]


def _valid(directory: Directory, values: np.ndarray, transparency: np.ndarray) -> np.ndarray | None:
    """The samples with data: opaque, and different from GDAL's nodata value."""
    valid = None
    if transparency.size:
        valid = np.broadcast_to(transparency > 0, values.shape)
    try:
        nodata = float(directory.text(tags.GDAL_NODATA).replace(",", "."))
    except ValueError:
        return valid
    if math.isnan(nodata):  # NaN is never valid anyway
        return valid
    data: np.ndarray = values != (np.float32(nodata) if values.dtype == np.float32 else nodata)
    return data if valid is None else valid & data
