"""A picture of any size → overlapping square patches, and their vectors, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from PIL import Image

from rsicd_embed.embedder.base import Embedder
from rsicd_embed.errors import FindError
from rsicd_embed.parallel import batched, ordered_map

# More would take minutes, and tell no more: 0.1 GB of boxes and scores is not what limits.
MAX_PATCHES = 100_000
MAX_OVERLAP = 0.9
_SMALLEST_SIDE = 32


def default_sides(width: int, height: int, model_side: int) -> tuple[int, ...]:
    """Two scales: a quarter of the shorter side and a half of it.

    A finest patch has at least 32 pixels, below which there is nothing to recognise, and at most
    twice those that the model sees, beyond which it would see less than there is.

    Example:
        >>> default_sides(600, 400, 128), default_sides(5400, 2700, 128), default_sides(20, 90, 128)
        ((100, 200), (256, 512), (20,))
    """
    short = min(width, height)
    finest = min(max(short // 4, _SMALLEST_SIDE), 2 * model_side)
    return tuple(side for side in (finest, 2 * finest) if side <= short) or (short,)


def cut(
    width: int, height: int, sides: Sequence[int], overlap: float, most: int = MAX_PATCHES
) -> np.ndarray:
    """Where the patches of a picture are.

    Args:
        width: of the picture, in pixels.
        height: likewise.
        sides: of the patches, in pixels; a scale each.
        overlap: the part of a patch, from 0 to `MAX_OVERLAP`, that its neighbour has too, at least:
            patches are spread evenly, the outermost at the picture's edges.
        most: patches that may come of it.

    Returns:
        int32 (n, 4): left, top, right, bottom; scale by scale, row by row.

    Raises:
        FindError: a side is not from 1 to the picture's shorter one, the overlap is not as above,
            or there would be more than `most`.
    """
    if not 0 <= overlap <= MAX_OVERLAP:
        raise FindError(f"expected an overlap from 0 to {MAX_OVERLAP:g}, found {overlap:g}")
    short = min(width, height)
    grids = []
    for side in dict.fromkeys(sides):
        if not 1 <= side <= short:
            raise FindError(
                f"expected a patch from 1 to {short} pixels, the picture's shorter side, "
                f"found {side}"
            )
        grids.append((side, _starts(width, side, overlap), _starts(height, side, overlap)))
    count = sum(len(lefts) * len(tops) for _, lefts, tops in grids)
    if count > most:
        raise FindError(
            f"expected at most {most:,} patches, found {count:,} in a picture of "
            f"{width}×{height}; take larger ones, or less overlap"
        )
    boxes = [np.zeros((0, 4), np.int32)]
    for side, lefts, tops in grids:
        top, left = (one.ravel() for one in np.meshgrid(tops, lefts, indexing="ij"))
        boxes.append(np.stack([left, top, left + side, top + side], axis=1).astype(np.int32))
    return np.concatenate(boxes)


def embed(
    image: Image.Image,
    boxes: np.ndarray,
    embedder: Embedder,
    *,
    batch_size: int | None = None,
    threads: int | None = None,
) -> Iterator[np.ndarray]:
    """Vectors of a picture's patches, in order.

    Patches are cut on threads while others are embedded; no more than three batches are held.

    Args:
        image: RGB.
        boxes: int (n, 4), as `cut` gives them.
        embedder: the model.
        batch_size: patches embedded at once; None for the model's own.
        threads: that cut; None for one a processor.

    Yields:
        float32 (m, dim), of at most `batch_size` patches.
    """
    size = batch_size or embedder.batch_size
    image.load()  # at once: threads share it from here on
    make = _preparer(image, embedder.preprocess)
    for some in batched(ordered_map(make, boxes, ahead=2 * size, threads=threads), size):
        yield embedder.embed_pixels(np.stack(some))


def _preparer(
    image: Image.Image, preprocess: Callable[[Image.Image], np.ndarray]
) -> Callable[[np.ndarray], np.ndarray]:
    def prepare(box: np.ndarray) -> np.ndarray:
        left, top, right, bottom = (int(one) for one in box)
        return preprocess(image.crop((left, top, right, bottom)))

    return prepare


def _starts(length: int, side: int, overlap: float) -> np.ndarray:
    """Where patches begin along one side of the picture, evenly, from one end to the other."""
    steps = int(np.ceil((length - side) / max(1.0, side * (1 - overlap))))
    return np.rint(np.linspace(0, length - side, steps + 1)).astype(np.int64)
