"""A teacher's vectors of a train split, computed once and kept in the run's folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from rsicd_embed.datasets.base import Example
from rsicd_embed.embedder.base import Embedder
from rsicd_embed.files import storage_errors, sync_folder, write_file
from rsicd_embed.parallel import batched
from rsicd_embed.train.config import TrainConfig
from rsicd_embed.train.input import pixels
from rsicd_embed.train.input.augment import VIEWS, random_view, view_keys
from rsicd_embed.train.input.caption_draws import Captions
from rsicd_embed.train.input.captioned_images import Batch, stored_side
from rsicd_embed.train.objective import TEACHER_IMAGES, TEACHER_TEXTS

_BATCH_SIZE = 256
_DEFAULT_SCALE = 100.0  # for embedders without a logit_scale: that of a trained CLIP


@dataclass(frozen=True)
class Teacher:
    """A teacher's vectors.

    Attributes:
        images: float16 (views, n, d).
        texts: float16 (captions, d), indexed by `Captions.same`.
        scale: factor of its similarities.
    """

    images: np.ndarray
    texts: np.ndarray
    scale: float

    @property
    def dim(self) -> int:
        """Dimension of its vectors."""
        return int(self.texts.shape[1])

    def arrays(self, batch: Batch, epoch: int, own: np.ndarray) -> dict[str, np.ndarray]:
        """Arrays that a step needs besides those of the batch; each epoch uses the next view."""
        rows = batch.rows[own]
        views = (rows + epoch) % len(self.images)
        return {
            VIEWS: np.stack([rows, views], axis=1).astype(np.int32),
            TEACHER_IMAGES: self.images[views, rows].astype(np.float32),
            TEACHER_TEXTS: self.texts[batch.groups[own, 0]].astype(np.float32),
        }


def teach(
    embedder: Embedder,
    examples: Sequence[Example],
    captions: Captions,
    config: TrainConfig,
    folder: Path,
    advance: pixels.Advance = lambda done: None,
) -> Teacher:
    """Embeds views and captions, or loads them from `folder`; each finished view is saved there.

    Args:
        embedder: the teacher.
        examples: the train split.
        captions: its captions.
        config: settings of the run; the student will see the same views.
        folder: folder of the vectors.
        advance: called with the number of views just embedded or loaded.

    Raises:
        TrainError: an image cannot be read.
        StoreError: the vectors cannot be written.
    """
    contents = pixels.contents_digest(examples)
    key = [embedder.fingerprint, config.seed, repr(config.augment), contents]
    name = hashlib.sha256(json.dumps([*key, captions.texts]).encode()).hexdigest()[:16]
    own = folder / name
    views = config.teacher.views
    paths = [own / f"view-{view}.npy" for view in range(views)]
    texts = own / "texts.npy"
    with storage_errors(f"cannot write the teacher's vectors to {own}"):
        own.mkdir(parents=True, exist_ok=True)
        if not texts.exists():
            _save(texts, _embed_texts(embedder, captions))
        missing = [path for path in paths if not path.exists()]
        if len(missing) < views:
            advance(len(examples) * (views - len(missing)))
        if missing:
            embed = _view_embedder(embedder, examples, config)
            for path in missing:
                _save(path, embed(paths.index(path), advance))
        sync_folder(own)
    images = np.stack([np.load(path) for path in paths])
    scale = float(getattr(embedder, "logit_scale", _DEFAULT_SCALE))
    return Teacher(images, np.load(texts), scale)


def _embed_texts(embedder: Embedder, captions: Captions) -> np.ndarray:
    _, first = np.unique(captions.same, return_index=True)
    return embedder.embed_texts([captions.texts[i] for i in first])


def _view_embedder(
    embedder: Embedder, examples: Sequence[Example], config: TrainConfig
) -> Callable[[int, pixels.Advance], np.ndarray]:
    """Returns a function that embeds the view with a given number of every image."""
    size = embedder.preprocess(Image.new("RGB", (64, 64))).shape[0]
    side = stored_side(size, config.augment)
    stored = pixels.store(examples, side, config.data.cache, shared=False, advance=lambda n: None)
    views = jax.jit(partial(_views, size=size, config=config))

    def embed(view: int, advance: pixels.Advance) -> np.ndarray:
        vectors = []
        for batch in batched(range(len(examples)), _BATCH_SIZE):
            rows = np.asarray(batch, np.int32)
            numbers = np.stack([rows, np.full_like(rows, view)], axis=1)
            vectors.append(embedder.embed_pixels(np.asarray(views(numbers, stored.pixels[rows]))))
            advance(len(rows))
        return np.concatenate(vectors)

    return embed


def _views(numbers: jax.Array, images: jax.Array, *, size: int, config: TrainConfig) -> jax.Array:
    if images.shape[1] == size:
        return images

    def view(key: jax.Array, image: jax.Array) -> jax.Array:
        return random_view(key, image[None], size, config.augment)[0]

    views: jax.Array = jax.vmap(view)(view_keys(config.seed, numbers), images)
    return jnp.round(views).astype(jnp.uint8)


def _save(path: Path, vectors: np.ndarray) -> None:
    def save(aside: Path) -> None:
        with aside.open("wb") as file:
            np.save(file, vectors.astype(np.float16))

    write_file(path, save)
