"""Images in any form → an embedder's pixels, decoded on threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from PIL import Image

from rsicd_embed.embedder.base import require_images
from rsicd_embed.errors import ImageError
from rsicd_embed.images import ImageLike, read_rgb
from rsicd_embed.parallel import ordered_map


def read_pixels(
    images: Iterable[ImageLike], preprocess: Callable[[Image.Image], np.ndarray], *, ahead: int
) -> Iterator[np.ndarray]:
    """What `preprocess` makes of each image, in order; at most `ahead` of them wait.

    Raises:
        ImageError: one of them cannot be read; its name and position are told.
        ArgumentError: a single image instead of several.
    """
    require_images(images)

    def read(item: tuple[int, ImageLike]) -> np.ndarray:
        position, image = item
        try:
            return preprocess(read_rgb(image))
        except ImageError as error:
            what = image if not isinstance(image, bytes | Image.Image) else "image"
            raise ImageError(f"{what} (number {position}): {error}") from error

    return ordered_map(read, enumerate(images), ahead=ahead)
