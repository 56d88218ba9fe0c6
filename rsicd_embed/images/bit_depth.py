"""Scaling of samples of any type to 8 bits, by the range that an image uses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from rsicd_embed.errors import ImageError

# Chosen by measurement; see docs/pictures.md.
PERCENTILES = (0.1, 99.9)
_LEAST_SHARE = 1 / 5

# A description for users.
STRETCH_RULE = (
    "0 to 255 is the range that each image uses (0.1th to 99.9th percentile of all its bands), or "
    "the customary range around it (such as 0 to 1, 255, 1023 or 65535) if it fills a fifth of it"
)

_ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class Stretch:
    """The linear mapping of an image's samples to 8 bits.

    Attributes:
        low: values up to this become 0.
        high: values from this up become 255.
    """

    low: float
    high: float


def to_8_bits(values: np.ndarray, valid: np.ndarray | None = None) -> tuple[np.ndarray, Stretch]:
    """Scales samples to 0…255, with one mapping for all bands.

    An image's range spans the 0.1th to the 99.9th percentile of its valid samples, or the minimum
    to the maximum if those percentiles are equal. If it fills at least a fifth of a customary
    range, the customary range is used instead, which preserves the brightness. The customary
    range is the smallest of 0…1 (floats), 0…255, 0…511, …, 0…65535 and so on that includes the
    99.9th percentile.

    Args:
        values: integers or floats (height, width, bands).
        valid: bool (height, width, bands), True for samples with data; all samples if None. NaN
            and infinity are never valid.

    Returns:
        uint8 (height, width, bands), with invalid samples 0, and the mapping.

    Raises:
        ImageError: no sample is valid.
    """
    if values.dtype.kind == "f":
        finite = np.isfinite(values)
        if not finite.all():
            valid = finite if valid is None else valid & finite
    samples = values if valid is None else values[valid]
    if not samples.size:
        raise ImageError("no pixel has data: all are nodata, transparent or not a number")
    stretch = _range(samples)
    result = scaled(values, stretch)
    if valid is not None:
        result[~valid] = 0
    return result, stretch


def _range(samples: np.ndarray) -> Stretch:
    low, high = _percentiles(samples)
    if low == high:
        low, high = samples.min().item(), samples.max().item()
    limit = _customary_limit(samples.dtype, high)
    if low >= 0 and (high - low >= limit * _LEAST_SHARE or low == high):
        return Stretch(0, limit)
    return Stretch(low, high)


def _customary_limit(dtype: np.dtype, largest: float) -> float:
    if dtype.kind == "f" and largest <= 1:
        return 1
    return next((2**bits - 1 for bits in range(8, 65) if 2**bits > largest), math.inf)


def _percentiles(samples: np.ndarray) -> tuple[float, float]:
    """The values at `PERCENTILES`: actual samples, not averages of two."""
    ranks = [int(q / 100 * (samples.size - 1)) for q in PERCENTILES]
    if _is_short(samples):  # counting is faster than sorting
        least = int(np.iinfo(samples.dtype).min)
        counts = np.bincount(samples.ravel().astype(np.int32) - least)
        low, high = np.searchsorted(np.cumsum(counts), ranks, side="right") + least
    else:
        ordered = np.partition(samples.ravel(), ranks)
        low, high = ordered[ranks]
    return low.item(), high.item()


def _is_short(samples: np.ndarray) -> bool:
    return samples.dtype.kind in "ui" and samples.dtype.itemsize <= 2


def scaled(values: np.ndarray, stretch: Stretch) -> np.ndarray:
    """Applies a mapping to samples of any shape; NaN becomes 0. Returns uint8."""
    if _is_short(values):
        looked_up: np.ndarray = _table(values.dtype, stretch).take(values)  # faster than indexing
        return looked_up
    result = np.empty(values.shape, np.uint8)
    for top in range(0, len(values), _ROWS_AT_ONCE):  # limits the memory used by float64 copies
        unit = _unit(values[top : top + _ROWS_AT_ONCE], stretch)
        result[top : top + _ROWS_AT_ONCE] = np.rint(255 * unit)
    return result


@lru_cache(maxsize=8)
def _table(dtype: np.dtype, stretch: Stretch) -> np.ndarray:
    """The mapping of all values of a short integer type; negative ones index from the end."""
    info = np.iinfo(dtype)
    return np.roll(scaled(np.arange(info.min, info.max + 1, dtype=np.int32), stretch), info.min)


def _unit(values: np.ndarray, stretch: Stretch) -> np.ndarray:
    """Samples as a fraction of the range, 0 to 1; NaN becomes 0."""
    if values.dtype.kind == "f":
        # Halved so that the difference cannot overflow.
        span = (stretch.high / 2 - stretch.low / 2) or 1
        share = (values.astype(np.float64) / 2 - stretch.low / 2) / span
        unit: np.ndarray = np.clip(np.nan_to_num(share, nan=0), 0, 1)
        return unit
    # The difference is computed modulo 2⁶⁴, since float64 cannot represent all large integers.
    low, high = int(stretch.low), int(stretch.high)
    above = np.clip(values, low, high).astype(np.uint64) - np.uint64(low % 2**64)
    shares: np.ndarray = above / ((high - low) or 1)
    return shares
