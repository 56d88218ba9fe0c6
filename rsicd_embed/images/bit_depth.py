"""Samples of any type → 8 bits, by the range that a picture really uses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Chosen by measurement, which docs/sources.md records.
PERCENTILES = (0.1, 99.9)
_LEAST_SHARE = 1 / 8

# What a summary says of it.
STRETCH_RULE = (
    "0 to 255 is the range that each image uses (0.1th to 99.9th percentile of all its bands), or "
    "the customary range around it (such as 0 to 1, 255, 1023 or 65535) if it fills an eighth of it"
)

_ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class Stretch:
    """The linear mapping of a picture's samples to 8 bits.

    Attributes:
        low: this value and everything below it becomes 0.
        high: this value and everything above it becomes 255.
    """

    low: float
    high: float


def to_8_bits(values: np.ndarray, valid: np.ndarray | None = None) -> tuple[np.ndarray, Stretch]:
    """Scales samples to 0…255, the same way for all bands.

    The range that a picture uses is that from the 0.1th to the 99.9th percentile of its valid
    samples, or from the least to the largest where those two are equal. A picture that fills at
    least an eighth of a customary range keeps its brightness, because that range is used instead:
    the smallest of 0…1 (floats), 0…255, 0…511, … 0…65535 and so on that reaches its 99.9th
    percentile.

    Args:
        values: (height, width, bands) of integers or floats.
        valid: (height, width, bands) of booleans; samples that hold data. All, if None. NaN and
            infinity never count.

    Returns:
        uint8 (height, width, bands), in which invalid samples are 0; and the range.
    """
    if values.dtype.kind == "f":
        finite = np.isfinite(values)
        if not finite.all():
            valid = finite if valid is None else valid & finite
    stretch = _range(values if valid is None else values[valid])
    scaled = _scale(values, stretch)
    if valid is not None:
        scaled[~valid] = 0
    return scaled, stretch


def _range(samples: np.ndarray) -> Stretch:
    if not samples.size:
        return Stretch(0.0, 0.0)
    low, high = _percentiles(samples)
    if low == high:
        low, high = float(samples.min()), float(samples.max())
    limit = _customary_limit(samples.dtype, high)
    if low >= 0 and (high - low >= limit * _LEAST_SHARE or low == high):
        return Stretch(0.0, limit)
    return Stretch(low, high)


def _customary_limit(dtype: np.dtype, largest: float) -> float:
    if dtype.kind == "f" and largest <= 1:
        return 1.0
    bits = 8
    while 2**bits - 1 < largest:
        bits += 1
    return 2.0**bits - 1


def _percentiles(samples: np.ndarray) -> tuple[float, float]:
    """The values at `PERCENTILES`: samples that occur, no averages of two."""
    ranks = [int(q / 100 * (samples.size - 1)) for q in PERCENTILES]
    if samples.dtype.itemsize <= 2 and samples.dtype.kind in "ui":  # counting beats sorting
        offset = int(np.iinfo(samples.dtype).min)
        counts = np.bincount(samples.ravel().astype(np.int32) - offset)
        low, high = np.searchsorted(np.cumsum(counts), ranks, side="right") + offset
    else:
        ordered = np.partition(samples.ravel(), ranks)
        low, high = ordered[ranks[0]], ordered[ranks[1]]
    return float(low), float(high)


def _scale(values: np.ndarray, stretch: Stretch) -> np.ndarray:
    span = (stretch.high / 2 - stretch.low / 2) or 1.0  # halves, lest the difference overflow

    def scale(part: np.ndarray) -> np.ndarray:
        # In double precision, for integers of 32 and 64 bits; NaN becomes 0.
        unit = (part.astype(np.float64) / 2 - stretch.low / 2) / span
        return np.rint(255 * np.clip(np.nan_to_num(unit, nan=0.0), 0, 1)).astype(np.uint8)

    if values.dtype.itemsize <= 2 and values.dtype.kind in "ui":
        info = np.iinfo(values.dtype)
        table = scale(np.arange(info.min, info.max + 1, dtype=np.int32))
        # A negative value counts from the table's end.
        return np.roll(table, info.min)[values] if info.min else table[values]
    scaled = np.empty(values.shape, np.uint8)
    for top in range(0, len(values), _ROWS_AT_ONCE):  # bounds the memory of the doubles
        scaled[top : top + _ROWS_AT_ONCE] = scale(values[top : top + _ROWS_AT_ONCE])
    return scaled
