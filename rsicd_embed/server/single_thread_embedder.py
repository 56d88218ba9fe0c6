"""An embedder whose model runs on one thread, in turns: embedders need not be safe in many."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Executor

import numpy as np
from PIL import Image

from rsicd_embed.embedder.base import Embedder
from rsicd_embed.images import ImageLike


class OnThread:
    """An `Embedder` for other threads: each batch waits for its turn among those of the others."""

    def __init__(self, inner: Embedder, executor: Executor) -> None:
        self.name, self.dim, self.fingerprint = inner.name, inner.dim, inner.fingerprint
        self.batch_size = inner.batch_size
        self._inner, self._executor = inner, executor
        scale = getattr(inner, "logit_scale", None)
        if scale is not None:
            self.logit_scale = scale

    def preprocess(self, image: Image.Image) -> np.ndarray:
        """On the calling thread."""
        return self._inner.preprocess(image)

    def embed_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """In its turn."""
        return self._executor.submit(self._inner.embed_pixels, pixels).result()

    def embed_images(self, images: Iterable[ImageLike]) -> np.ndarray:
        """In its turn."""
        return self._executor.submit(self._inner.embed_images, images).result()

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """In its turn."""
        return self._executor.submit(self._inner.embed_texts, texts).result()
