"""TIFF and BigTIFF files → samples: every layout of integers and floats, or the reason why not.

tifffile unpacks the samples and imagecodecs decompresses them; neither prints anything. What they
get is checked before (`tiff_header`), and segments are decoded one by one, so that memory is
bounded by the size of the picture.
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

# Of a picture with as many pixels as allowed, the bytes per pixel that may be decoded: those of the
# bands that are used, or of a whole segment.
_MAX_BYTES_PER_PIXEL = 12
_MOST_BANDS = 5  # CMYK and alpha
_MAX_TILE_PIXELS = 4096 * 4096

# tifffile logs what it corrects; without a handler, Python would print that to stderr.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

_LERC, _JPEGS = 34887, (6, 7)
# Codecs of whole images announce a size of their own, which need not be the segment's.
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
_SAMPLE_FORMATS = (1, 2, 3, 4)  # unsigned, signed, float, and void, which is read as unsigned
_SEPARATE = 2  # planar configuration
_COLOURS = ("Red", "Green", "Blue")
_COLOUR_OF_BAND = re.compile(
    r'<Item name="COLORINTERP" sample="(\d+)" role="colorinterp">(Red|Green|Blue)</Item>'
)


@dataclass(frozen=True)
class Raster:
    """The main picture of a TIFF.

    Attributes:
        values: (height, width, bands): 1 band of grey, 3 of red, green and blue, or 4 of CMYK, of
            which a larger value is darker.
        bits: of a sample; 8 where it had fewer.
        valid: samples that are neither nodata nor transparent, of `values`' shape; None for all.
        orientation: as in EXIF, 1 for upright.
    """

    values: np.ndarray
    bits: int
    valid: np.ndarray | None
    orientation: int


def read(data: bytes, max_pixels: int) -> Raster:
    """The main picture of a TIFF: the first page that is neither an overview nor a mask.

    Of several bands, red, green and blue are those that GDAL's metadata name so, or else the first
    three; a file with fewer than three bands besides transparency is grey.

    Raises:
        ImageError: damaged, too large, or of a layout that is not read; which one is named.
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
    """The number of samples per pixel, once all that bounds the memory is known to be sound."""
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
        raise ImageError(f"TIFF compression {name} is not read; convert the file")
    if len(set(bits)) > 1 or len(set(kinds)) > 1:
        raise ImageError("TIFF bands of different types are not read; convert the file")
    if kinds[0] not in _SAMPLE_FORMATS:
        raise ImageError("TIFF samples of complex numbers are not read; convert the file")
    if tags.TILE_WIDTH in directory.entries and not (
        0 < tile <= max(width * height, _MAX_TILE_PIXELS)
    ):
        raise ImageError(f"broken picture: TIFF tiles of {tile:,} pixels")
    return samples


def _default_samples(directory: Directory) -> int:
    """Old-style JPEG may leave the number of samples out."""
    return 3 if directory.integer(tags.COMPRESSION, 1) == 6 else 1


def _photometric(directory: Directory, samples: int) -> int:
    default = _YCBCR if directory.integer(tags.COMPRESSION, 1) == 6 else _BLACK_IS_ZERO
    photometric = directory.integer(tags.PHOTOMETRIC, default)
    if photometric == _CMYK and (samples < 4 or directory.integer(tags.INK_SET, 1) != 1):
        raise ImageError("TIFF inks other than CMYK are not read; convert the file to RGB")
    if photometric in (_RGB, *_CONVERTED) and samples < 3:
        raise ImageError(f"broken picture: expected 3 bands of colour, found {samples}")
    if photometric > _YCBCR and photometric not in _CONVERTED:
        name = _UNREAD_COLOURS.get(photometric, f"photometric interpretation {photometric}")
        raise ImageError(f"TIFF colours of {name} are not read; convert the file to RGB")
    return photometric


def _bands(directory: Directory, photometric: int, coloured: list[int]) -> list[int]:
    """Which bands to use, of those that are no transparency."""
    if not coloured:
        raise ImageError("broken picture: all of its TIFF bands are transparency")
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
    """(height, width, bands) of the given bands, in native byte order."""
    import tifffile

    with tifffile.TiffFile(io.BytesIO(directory.alone())) as file:
        page = file.pages.first
        if page.dtype is None:
            bits = directory.integer(tags.BITS, 1)
            raise ImageError(f"TIFF samples of {bits} bits are not read; convert the file")
        if page.is_subsampled and page.compression not in _JPEGS:
            raise ImageError(
                "TIFF colours with fewer samples than brightness (subsampled YCbCr) are read in "
                "JPEG compression only; convert the file to RGB"
            )
        separate = page.planarconfig == _SEPARATE and samples > 1
        values = np.zeros((directory.height, directory.width, len(bands)), page.dtype)
        is_jpeg = page.compression in _JPEGS
        if is_jpeg and separate:  # each plane is a JPEG of grey, whatever they make together
            page.photometric = tifffile.PHOTOMETRIC.MINISBLACK
        options = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader} if is_jpeg else {}
        empty = True
        for index, segment in _segments(directory, page):
            try:
                decoded, place, _ = page.decode(segment, index, **options)
            except tifffile.TiffFileError as error:
                raise ImageError("broken picture: a TIFF segment is cut off") from error
            plane, _, top, left, _ = place
            if decoded is None or (separate and plane not in bands):
                continue
            empty = False
            rows, columns = decoded.shape[1:3]
            target = values[top : top + rows, left : left + columns]
            part = decoded[0, : target.shape[0], : target.shape[1]]
            if part.shape[2] != (1 if separate else samples):
                raise ImageError("broken picture: a TIFF segment has another number of bands")
            if separate:
                target[..., bands.index(plane)] = part[..., 0]
            else:
                for position, band in enumerate(bands):
                    target[..., position] = part[..., band]
    if empty:
        raise ImageError("broken picture: none of its pixels were written")
    return values


def _segments(directory: Directory, page: TiffPage) -> Iterator[tuple[int, bytes | None]]:
    """The number and the compressed bytes of each strip or tile; None for those never written."""
    count = math.prod(page.chunked)
    offsets, sizes = page.dataoffsets[:count], page.databytecounts[:count]
    if not len(offsets) == len(sizes) == count:
        raise ImageError(
            f"broken picture: expected {count} TIFF segments, found {min(len(offsets), len(sizes))}"
        )
    announced = _SIZE_OF.get(int(page.compression))
    itemsize = np.dtype(page.dtype).itemsize
    expected = page.chunks[-3:] if page.ndim > 2 else page.chunks
    for index, (offset, size) in enumerate(zip(offsets, sizes, strict=True)):
        if not size:
            yield index, None
            continue
        if offset + size > len(directory.data) and page.compression != 1:
            raise ImageError("broken picture: image file is truncated")
        segment = directory.data[offset : offset + size]
        if page.compression == _LERC:
            segment = _unwrapped(directory, segment, math.prod(page.chunks) * itemsize)
        found = announced(segment) if announced else None
        if announced and (found is None or math.prod(found) > 4 * math.prod(expected)):
            raise ImageError("broken picture: a TIFF segment announces another size")
        yield index, segment


def _unwrapped(directory: Directory, segment: bytes, size: int) -> bytes:
    """A LERC blob without the second compression that GDAL may add to it."""
    wrapper = (*directory.integers(tags.LERC_PARAMETERS), 0, 0)[1]
    limit = 2 * size + 65_536
    if wrapper == 1:
        return zlib.decompressobj().decompress(segment, limit)
    if wrapper == 2:
        import imagecodecs

        return bytes(imagecodecs.zstd_decode(segment, out=limit))
    return segment


def _without_background(values: np.ndarray, alpha: np.ndarray, bits: int) -> np.ndarray:
    """Colours before they were multiplied by their opacity."""
    if values.dtype.kind not in "uf":
        return values
    full = 2.0**bits - 1 if values.dtype.kind == "u" else 1.0
    opacity = np.where(alpha > 0, alpha.astype(np.float64), full) / full
    return np.minimum(values / opacity, full).astype(values.dtype)


def _brightness(values: np.ndarray, bits: int, *, inverted: bool) -> tuple[np.ndarray, int]:
    """Samples of which larger is brighter, and their bits: 8 where they had 8 or fewer."""
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
        raise ImageError(f"TIFF colours of {_CONVERTED[photometric]} are read in 8 bits only")
    if photometric == _YCBCR:
        image = Image.fromarray(values, "YCbCr")
    else:
        if photometric == _ICCLAB:  # which is as CIELab, but unsigned
            values = values ^ np.array([0, 128, 128], np.uint8)
        height, width = values.shape[:2]
        image = Image.frombytes("LAB", (width, height), values.tobytes())
    return np.asarray(image.convert("RGB"))


def _through_palette(directory: Directory, values: np.ndarray, bits: int) -> np.ndarray:
    colours = np.asarray(directory.integers(tags.COLOUR_MAP), np.uint16)
    if colours.size != 3 * 2**bits:
        raise ImageError("broken picture: the TIFF's palette is missing or cut off")
    # Some writers fill it with values of 8 bits instead of 16.
    table = (colours >> 8 if colours.max() > 255 else colours).astype(np.uint8)
    return table.reshape(3, -1).T[values[..., 0].astype(np.intp)]


def _valid(directory: Directory, values: np.ndarray, transparency: np.ndarray) -> np.ndarray | None:
    """Samples that hold data: opaque, and other than GDAL's nodata value."""
    valid = None
    if transparency.size:
        valid = np.broadcast_to(transparency > 0, values.shape)
    try:
        nodata = float(directory.text(tags.GDAL_NODATA).replace(",", "."))
    except ValueError:
        return valid
    if math.isnan(nodata):  # which never counts
        return valid
    data: np.ndarray = values != (np.float32(nodata) if values.dtype == np.float32 else nodata)
    return data if valid is None else valid & data
