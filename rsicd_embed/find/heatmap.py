"""Values of overlapping patches → one smooth map → colours over the picture."""

from __future__ import annotations

import numpy as np
from PIL import Image

# Longest side of a map. Its cells are smaller than any patch that tells something.
_CELLS = 256
# Colours from low to high, evenly spaced: dark violet, purple, red, orange, pale yellow.
_COLOURS = np.array(
    [
        (13, 8, 60),
        (84, 15, 109),
        (155, 38, 105),
        (213, 72, 66),
        (246, 128, 32),
        (250, 193, 50),
        (252, 253, 170),
    ],
    np.float32,
)
# A patch says most of its centre and least, but something, of its border.
_BORDER = 0.05
_OPACITY = (0.0, 0.65)  # where the value is 0, and from 0.6 on
_OPAQUE_FROM = 0.6


def smooth(boxes: np.ndarray, values: np.ndarray, width: int, height: int) -> np.ndarray:
    """The mean of the overlapping patches' values, each weighted by how near its centre is.

    Args:
        boxes: int (n, 4): left, top, right, bottom, in pixels; together they cover the picture.
        values: float (n,).
        width: of the picture, in pixels.
        height: likewise.

    Returns:
        float32 (rows, columns) of the picture's proportions, at most 256 a side; within the values'
        range.
    """
    scale = min(1.0, _CELLS / max(width, height))
    columns, rows = max(1, round(width * scale)), max(1, round(height * scale))
    total, weight = np.zeros((rows, columns)), np.zeros((rows, columns))
    stretch = np.array([columns / width, rows / height] * 2)
    for box, value in zip(boxes * stretch, values, strict=True):
        across, x = _tent(box[0], box[2], columns)
        down, y = _tent(box[1], box[3], rows)
        window = down[:, None] * across
        total[y, x] += window * value
        weight[y, x] += window
    found: np.ndarray = (total / weight).astype(np.float32)
    return found


def colours(values: np.ndarray) -> np.ndarray:
    """Values in [0, 1] (…) → uint8 (…, 3)."""
    place = np.clip(values, 0, 1) * (len(_COLOURS) - 1)
    stops = np.arange(len(_COLOURS))
    channels = [np.interp(place, stops, _COLOURS[:, i]) for i in range(3)]
    found: np.ndarray = np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
    return found


def layer(values: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """A map with values in [0, 1] as an RGBA picture of that (width, height), clear where it is 0.

    It is made larger before it is coloured, so that it is smooth.
    """
    grown = Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    large = np.clip(np.asarray(grown), 0, 1)
    opacity = np.interp(large, (0, _OPAQUE_FROM), _OPACITY)
    alpha = np.rint(255 * opacity).astype(np.uint8)
    return Image.fromarray(np.dstack([colours(large), alpha]), "RGBA")


def _tent(start: float, stop: float, length: int) -> tuple[np.ndarray, slice]:
    """Weights of the cells from `start` to `stop`, 1 in the middle, and which cells these are."""
    first = min(int(start), length - 1)
    last = max(first + 1, min(int(np.ceil(stop)), length))
    middle, half = (start + stop) / 2, max((stop - start) / 2, 0.5)
    away = np.abs(np.arange(first, last) + 0.5 - middle) / half
    return np.maximum(1 - away, _BORDER), slice(first, last)
