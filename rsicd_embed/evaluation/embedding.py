"""Embedding of images and texts in batches, with progress."""

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
    """Embedded images.

    Attributes:
        examples: the images that could be read.
        vectors: float32 (n, dim), in their order.
        skipped: the other images, with reasons.
    """

    examples: tuple[Example, ...]
    vectors: np.ndarray
    skipped: tuple[Skipped, ...]


def pixels(embedder: Embedder, example: Example) -> np.ndarray:
    """uint8 (H, W, 3): an image, preprocessed for the embedder.

    Raises:
        DatasetError: it cannot be read.
    """
    loaded = _pixels_or_reason(embedder, example)
    if isinstance(loaded, str):
        raise DatasetError(f"{example.uri}: {loaded}; repair or remove this image")
    return loaded


def _pixels_or_reason(embedder: Embedder, example: Example) -> np.ndarray | str:
    try:
        return embedder.preprocess(read_rgb(example.path))
    except ImageError as error:
        return str(error)


def embed_examples(
    embedder: Embedder,
    examples: Sequence[Example],
    *,
    skip_unreadable: bool = False,
    progress: Progress = lambda done: None,
) -> Embedded:
    """Embeds images; decoding runs on threads, concurrently with the model.

    Raises:
        DatasetError: an image cannot be read and `skip_unreadable` is off, or none can be read.
    """
    read = partial(_pixels_or_reason if skip_unreadable else pixels, embedder)
    usable: list[Example] = []
    skipped: list[Skipped] = []
    vectors = [np.empty((0, embedder.dim), np.float32)]
    views = ordered_map(read, examples, ahead=2 * embedder.batch_size)
    for batch in batched(zip(examples, views, strict=True), embedder.batch_size):
        readable = [(example, view) for example, view in batch if isinstance(view, np.ndarray)]
        skipped += [Skipped(example.uri, view) for example, view in batch if isinstance(view, str)]
        usable += [example for example, _ in readable]
        if readable:
            vectors.append(embedder.embed_pixels(np.stack([view for _, view in readable])))
        progress(len(batch))
    if not usable:
        reason = f"; {skipped[0].uri}: {skipped[0].reason}" if skipped else ""
        raise DatasetError(f"expected images to evaluate on, found none{reason}")
    return Embedded(tuple(usable), np.concatenate(vectors), tuple(skipped))


def embed_texts(
    embedder: Embedder, texts: Sequence[str], progress: Progress = lambda done: None
) -> np.ndarray:
    """Embeds texts, float32 (n, dim).

    Each distinct text is embedded once, so that equal texts have bit-identical vectors.
    """
    places = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    vectors = [np.empty((0, embedder.dim), np.float32)]
    for batch in batched(places, _TEXTS_AT_ONCE):
        vectors.append(embedder.embed_texts(batch))
        progress(len(batch))
    return np.concatenate(vectors)[[places[text] for text in texts]]
