"""Vectors of views of the training images, computed once and kept in a folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from rsicd_embed.datasets.base import Example
from rsicd_embed.embedder.base import Embedder
from rsicd_embed.errors import ImageError, TrainError
from rsicd_embed.files import storage_errors, sync_folder, write_file
from rsicd_embed.images import read_rgb
from rsicd_embed.parallel import batched, ordered_map
from rsicd_embed.train.input.pixels import contents_digest

_LEAST_AREA = 0.7  # of a random crop
_FLIP = Image.Transpose.FLIP_LEFT_RIGHT
_TURNS = (None, Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)


def view_vectors(
    embedder: Embedder,
    examples: Sequence[Example],
    views: int,
    folder: Path,
    advance: Callable[[int], object] = lambda done: None,
) -> np.ndarray:
    """Embeds views of images, or loads them from `folder`; each finished view is saved there.

    The views of an image do not depend on the run, so that runs can share a folder.

    Args:
        embedder: makes the vectors.
        examples: the images.
        views: number of views; the first is the whole image.
        folder: folder of the vectors.
        advance: called with the number of views just embedded.

    Returns:
        float32 (views, n, d).

    Raises:
        TrainError: an image cannot be read.
        StoreError: the vectors cannot be written.
    """
    own = folder / vectors_key(embedder.fingerprint, examples)
    vectors = []
    with storage_errors(f"cannot write vectors to {own}"):
        own.mkdir(parents=True, exist_ok=True)
        for number in range(views):
            path = own / f"view-{number}.npy"
            if not path.exists():
                _save(path, _embed(embedder, examples, number, advance))
                sync_folder(own)
            vectors.append(np.load(path))
    return np.stack(vectors)


def vectors_key(fingerprint: str, examples: Sequence[Example]) -> str:
    """Name of the folder of the vectors of these images by a model; depends on their contents.

    Raises:
        TrainError: an image cannot be read.
    """
    contents = contents_digest(examples)
    return hashlib.sha256(f"{fingerprint} {contents}".encode()).hexdigest()[:16]


def view(image: Image.Image, number: int, position: int) -> Image.Image:
    """A view of the image at this position: view 0 is the image itself."""
    if number == 0:
        return image
    rng = np.random.default_rng([number, position])
    symmetry, side = int(rng.integers(8)), float(np.sqrt(rng.uniform(_LEAST_AREA, 1.0)))
    width, height = max(1, round(image.width * side)), max(1, round(image.height * side))
    left = int(rng.integers(image.width - width + 1))
    top = int(rng.integers(image.height - height + 1))
    image = image.crop((left, top, left + width, top + height))
    if symmetry & 1:
        image = image.transpose(_FLIP)
    turn = _TURNS[symmetry >> 1]
    return image if turn is None else image.transpose(turn)


def _embed(
    embedder: Embedder,
    examples: Sequence[Example],
    number: int,
    advance: Callable[[int], object],
) -> np.ndarray:
    def pixels(position: int) -> np.ndarray:
        example = examples[position]
        try:
            return embedder.preprocess(view(read_rgb(example.path), number, position))
        except ImageError as error:
            raise TrainError(f"{example.uri}: {error}; repair or remove this image") from error

    size = embedder.batch_size
    vectors = [np.empty((0, embedder.dim), np.float32)]
    for batch in batched(ordered_map(pixels, range(len(examples)), ahead=2 * size), size):
        vectors.append(embedder.embed_pixels(np.stack(batch)))
        advance(len(batch))
    return np.concatenate(vectors)


def _save(path: Path, vectors: np.ndarray) -> None:
    def save(aside: Path) -> None:
        with aside.open("wb") as file:
            np.save(file, vectors)

    write_file(path, save)
