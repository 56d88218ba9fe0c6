"""Cut an image into overlapping square patches and embed them in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from rsicd_embed.embedder.base import Embedder
from rsicd_embed.errors import FindError
from rsicd_embed.parallel import batched, ordered_map

# More would take minutes without showing more; memory is not the limit (0.1 GB).
MAX_PATCHES = 100_000
MAX_OVERLAP = 0.9
_SMALLEST_SIDE = 32


def default_sides(width: int, height: int, model_side: int) -> tuple[int, ...]:
    """Returns two scales: a quarter and a half of the shorter side.

    The finer patches have at least 32 pixels, below which nothing is recognisable, and at most
    twice the model's input, beyond which detail is lost.

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
    """Computes the boxes of an image's patches.

    Patches are evenly spaced, the outermost at the image's edges.

    Args:
        width: width of the image, in pixels.
        height: height of the image, in pixels.
        sides: sides of the patches, in pixels, one per scale.
        overlap: the least overlap of neighbouring patches, as a fraction of their side, from 0 to
            `MAX_OVERLAP`.
        most: maximum number of patches.

    Returns:
        int32 (n, 4): left, top, right, bottom; scale by scale, row by row.

    Raises:
        FindError: a side is not between 1 and the image's shorter side, the overlap is out of
            range, or there would be more than `most` patches.
    """
    if not 0 <= overlap <= MAX_OVERLAP:
        raise FindError(f"expected an overlap from 0 to {MAX_OVERLAP:g}, found {overlap:g}")
    short = min(width, height)
    grids = []
    for side in dict.fromkeys(sides):
        if not 1 <= side <= short:
            raise FindError(
                f"expected a patch from 1 to {short} pixels, the image's shorter side, found {side}"
            )
        grids.append((side, _starts(width, side, overlap), _starts(height, side, overlap)))
    count = sum(len(lefts) * len(tops) for _, lefts, tops in grids)
    if count > most:
        raise FindError(
            f"expected at most {most:,} patches, found {count:,} in an image of "
            f"{width}×{height}; use larger patches or less overlap"
        )
    boxes = [np.zeros((0, 4), np.int32)]
    for side, lefts, tops in grids:
        top, left = (axis.ravel() for axis in np.meshgrid(tops, lefts, indexing="ij"))
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
    """Embeds an image's patches in order.

    Threads cut patches while others are embedded; at most three batches are in memory.

    Args:
        image: the RGB image.
        boxes: int (n, 4), as returned by `cut`.
        embedder: the model.
        batch_size: patches per batch; None for the model's batch size.
        threads: threads that cut patches; None for one per processor.

    Yields:
        float32 (m, dim): the vectors of at most `batch_size` patches.
    """
    size = batch_size or embedder.batch_size
    image.load()  # threads share the decoded image

    def prepare(box: np.ndarray) -> np.ndarray:
        left, top, right, bottom = map(int, box)
        return embedder.preprocess(image.crop((left, top, right, bottom)))

    for pixels in batched(ordered_map(prepare, boxes, ahead=2 * size, threads=threads), size):
        yield embedder.embed_pixels(np.stack(pixels))


def _starts(length: int, side: int, overlap: float) -> np.ndarray:
    """Left or top edges of patches along one axis, evenly spaced from end to end."""
    steps = int(np.ceil((length - side) / max(1.0, side * (1 - overlap))))
    return np.rint(np.linspace(0, length - side, steps + 1)).astype(np.int64)
