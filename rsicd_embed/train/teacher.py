"""A teacher's vectors of a train split: made once, kept in the run's folder."""

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
from rsicd_embed.train.distillation import IMAGES, TEXTS
from rsicd_embed.train.input import pixels
from rsicd_embed.train.input.augment import VIEWS, random_view, view_keys
from rsicd_embed.train.input.batches import Batch
from rsicd_embed.train.input.caption_draws import Captions
from rsicd_embed.train.input.captioned_images import stored_side

_AT_ONCE = 256
_DEFAULT_SCALE = 100.0  # where an embedder does not say: CLIP's, after training


@dataclass(frozen=True)
class Teacher:
    """What a teacher makes of the views of each image and of each caption.

    Attributes:
        images: float16 (views, n, d).
        texts: float16 (captions, d), by `Captions.same`.
        scale: what its similarities are multiplied by.
    """

    images: np.ndarray
    texts: np.ndarray
    scale: float

    @property
    def dim(self) -> int:
        """Length of its vectors."""
        return int(self.texts.shape[1])

    def arrays(self, batch: Batch, epoch: int, own: np.ndarray) -> dict[str, np.ndarray]:
        """What a step takes besides the batch's own arrays; another view in each epoch."""
        rows = batch.rows[own]
        views = (rows + epoch) % len(self.images)
        return {
            VIEWS: np.stack([rows, views], axis=1).astype(np.int32),
            IMAGES: self.images[views, rows].astype(np.float32),
            TEXTS: self.texts[batch.groups[own, 0]].astype(np.float32),
        }


def teach(
    embedder: Embedder,
    examples: Sequence[Example],
    captions: Captions,
    config: TrainConfig,
    folder: Path,
    advance: pixels.Advance = lambda done: None,
) -> Teacher:
    """Embeds views and captions, or finds them in `folder`; a view is a file, kept when it is done.

    Args:
        embedder: the teacher.
        examples: the train split.
        captions: its captions.
        config: of the run; the views are those that the student will see.
        folder: where the vectors are kept.
        advance: called with the number of views just embedded, or found.

    Raises:
        TrainError: an image cannot be read.
        StoreError: the vectors cannot be written.
    """
    key = [embedder.fingerprint, config.seed, repr(config.augment), [e.uri for e in examples]]
    name = hashlib.sha256(json.dumps([*key, captions.texts]).encode()).hexdigest()[:16]
    own = folder / name
    views = config.teacher.views
    paths = [own / f"view-{view}.npy" for view in range(views)]
    texts = own / "texts.npy"
    with storage_errors(f"cannot keep the teacher's vectors in {own}"):
        own.mkdir(parents=True, exist_ok=True)
        if not texts.exists():
            _keep(texts, _embed_texts(embedder, captions))
        missing = [path for path in paths if not path.exists()]
        if len(missing) < views:
            advance(len(examples) * (views - len(missing)))
        if missing:
            see = _seeing(embedder, examples, config)
            for path in missing:
                _keep(path, see(paths.index(path), advance))
        sync_folder(own)
    images = np.stack([np.load(path) for path in paths])
    scale = float(getattr(embedder, "logit_scale", _DEFAULT_SCALE))
    return Teacher(images, np.load(texts), scale)


def _embed_texts(embedder: Embedder, captions: Captions) -> np.ndarray:
    _, first = np.unique(captions.same, return_index=True)
    return embedder.embed_texts([captions.texts[i] for i in first])


def _seeing(
    embedder: Embedder, examples: Sequence[Example], config: TrainConfig
) -> Callable[[int, pixels.Advance], np.ndarray]:
    size = embedder.preprocess(Image.new("RGB", (64, 64))).shape[0]
    side = stored_side(size, config.augment)
    stored = pixels.store(examples, side, config.data.cache, shared=False, advance=lambda n: None)
    make = jax.jit(partial(_views, size=size, config=config))

    def see(view: int, advance: pixels.Advance) -> np.ndarray:
        vectors = []
        for some in batched(range(len(examples)), _AT_ONCE):
            rows = np.asarray(some, np.int32)
            numbers = np.stack([rows, np.full_like(rows, view)], axis=1)
            seen = np.asarray(make(numbers, stored.pixels[rows]))
            vectors.append(embedder.embed_pixels(seen))
            advance(len(rows))
        return np.concatenate(vectors)

    return see


def _views(numbers: jax.Array, images: jax.Array, *, size: int, config: TrainConfig) -> jax.Array:
    if images.shape[1] == size:
        return images

    def one(key: jax.Array, image: jax.Array) -> jax.Array:
        return random_view(key, image[None], size, config.augment)[0]

    views: jax.Array = jax.vmap(one)(view_keys(config.seed, numbers), images)
    return jnp.round(views).astype(jnp.uint8)


def _keep(path: Path, vectors: np.ndarray) -> None:
    def save(aside: Path) -> None:
        with aside.open("wb") as file:
            np.save(file, vectors.astype(np.float16))

    write_file(path, save)
