"""Examples and texts → vectors, in batches, with progress."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from rsicd_embed.datasets.base import Example, Skipped
from rsicd_embed.embedder.base import Embedder
from rsicd_embed.errors import DatasetError, ImageError
from rsicd_embed.images import read_rgb
from rsicd_embed.parallel import batched, ordered_map

Progress = Callable[[int], None]

_TEXTS_AT_ONCE = 1024


@dataclass(frozen=True)
class Embedded:
    """Images as vectors.

    Attributes:
        examples: those that could be read.
        vectors: float32 (n, dim), in their order.
        skipped: the others, and why.
    """

    examples: tuple[Example, ...]
    vectors: np.ndarray
    skipped: tuple[Skipped, ...]


def pixels(embedder: Embedder, example: Example) -> np.ndarray:
    """uint8 (H, W, 3), what the embedder makes of an image.

    Raises:
        DatasetError: it cannot be read.
    """
    try:
        return embedder.preprocess(read_rgb(example.path))
    except ImageError as error:
        raise DatasetError(f"{example.uri}: {error}; mend or leave out this image") from error


def embed_examples(
    embedder: Embedder,
    examples: Sequence[Example],
    *,
    skip_unreadable: bool = False,
    progress: Progress = lambda done: None,
) -> Embedded:
    """Decodes on threads while the model runs.

    Raises:
        DatasetError: an image cannot be read, and `skip_unreadable` is off; or none can.
    """
    read = partial(_pixels_or_reason if skip_unreadable else pixels, embedder)
    kept: list[Example] = []
    skipped: list[Skipped] = []
    vectors = [np.empty((0, embedder.dim), np.float32)]
    views = ordered_map(read, examples, ahead=2 * embedder.batch_size)
    for batch in batched(zip(examples, views, strict=True), embedder.batch_size):
        good = [(one, view) for one, view in batch if isinstance(view, np.ndarray)]
        skipped += [Skipped(one.uri, view) for one, view in batch if isinstance(view, str)]
        kept += [one for one, _ in good]
        if good:
            vectors.append(embedder.embed_pixels(np.stack([view for _, view in good])))
        progress(len(batch))
    if not kept:
        reason = f"; {skipped[0].uri}: {skipped[0].reason}" if skipped else ""
        raise DatasetError(f"expected images to evaluate on, found none{reason}")
    return Embedded(tuple(kept), np.concatenate(vectors), tuple(skipped))


def embed_texts(
    embedder: Embedder, texts: Sequence[str], progress: Progress = lambda done: None
) -> np.ndarray:
    """float32 (n, dim); equal texts give equal vectors, bit by bit, since each is embedded once."""
    places = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    vectors = [np.empty((0, embedder.dim), np.float32)]
    for some in batched(places, _TEXTS_AT_ONCE):
        vectors.append(embedder.embed_texts(some))
        progress(len(some))
    return np.concatenate(vectors)[[places[text] for text in texts]]


def _pixels_or_reason(embedder: Embedder, example: Example) -> np.ndarray | str:
    try:
        return embedder.preprocess(read_rgb(example.path))
    except ImageError as error:
        return str(error)
