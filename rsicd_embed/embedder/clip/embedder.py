"""`Embedder` for CLIP in JAX: fixed batch shapes, compiled once, normalised on the device."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from PIL import Image

from rsicd_embed.embedder.clip import weights
from rsicd_embed.embedder.clip.config import ClipConfig
from rsicd_embed.embedder.clip.devices import Precision, compute_dtype, place_on
from rsicd_embed.embedder.clip.model import Clip
from rsicd_embed.embedder.clip.parts import fingerprint
from rsicd_embed.embedder.clip.weights import Params
from rsicd_embed.embedder.images_to_pixels import read_pixels
from rsicd_embed.embedder.preprocess import Preprocessor
from rsicd_embed.embedder.tokenizer import Tokenizer
from rsicd_embed.errors import ModelError
from rsicd_embed.images import ImageLike
from rsicd_embed.parallel import batched


def normalise(pixels: jax.Array, how: Preprocessor) -> jax.Array:
    """uint8 (b, h, w, 3) → float32, on the device; `Preprocessor.normalise` to 1e-6."""
    mean, std = jnp.asarray(how.mean), jnp.asarray(how.std)
    return (pixels.astype(jnp.float32) * how.scale - mean) / std


# Jitted on the graph definition, so that embedders of one shape share their compiled programs.
@partial(jax.jit, static_argnums=(0, 1))
def _encode_image(
    graph: nnx.GraphDef[Clip], how: Preprocessor, params: Params, pixels: jax.Array
) -> jax.Array:
    return nnx.merge(graph, params).encode_image(normalise(pixels, how))


@partial(jax.jit, static_argnums=0)
def _encode_text(graph: nnx.GraphDef[Clip], params: Params, tokens: jax.Array) -> jax.Array:
    return nnx.merge(graph, params).encode_text(tokens)


class ClipEmbedder:
    """A CLIP model with its tokenizer and preprocessing. See `embedder.base.Embedder`."""

    def __init__(
        self,
        config: ClipConfig,
        params: Params,
        tokenizer: Tokenizer,
        preprocessor: Preprocessor,
        *,
        name: str,
        batch_size: int = 64,
        precision: Precision | None = None,
    ) -> None:
        """Puts the model on every local device; `precision` as in `devices.compute_dtype`."""
        self.name = name
        self.batch_size = batch_size
        self.config = config
        self.tokenizer = tokenizer
        self.preprocessor = preprocessor
        self._placement = place_on(jax.local_devices())
        model = weights.build(config, params, dtype=compute_dtype(precision))
        self._graph, held = nnx.split(model)
        self._params = jax.device_put(held, self._placement.everywhere)

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self.config.dim

    @cached_property
    def fingerprint(self) -> str:
        """Hashes of the weights, the preprocessing and the tokenizer."""
        tensors = weights.params_to_hf(self._params)
        return fingerprint(self.config, tensors, self.tokenizer, self.preprocessor)

    def preprocess(self, image: Image.Image) -> np.ndarray:
        """An upright RGB picture → uint8 (image_size, image_size, 3)."""
        return self.preprocessor(image)

    def embed_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """What `preprocess` gave, stacked: uint8 (n, H, W, 3) → float32 (n, dim)."""
        run = partial(_encode_image, self._graph, self.preprocessor, self._params)
        return self._batches(run, pixels)

    def embed_images(self, images: Iterable[ImageLike]) -> np.ndarray:
        """Pictures, paths or the bytes of files → float32 (n, dim), decoded on threads."""
        pixels = read_pixels(images, self.preprocess, ahead=2 * self.batch_size)
        vectors = [self.embed_pixels(np.stack(some)) for some in batched(pixels, self.batch_size)]
        return np.concatenate(vectors) if vectors else np.empty((0, self.dim), np.float32)

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Texts → float32 (n, dim)."""
        run = partial(_encode_text, self._graph, self._params)
        return self._batches(run, self.tokenizer(texts))

    def _batches(self, run: Any, inputs: np.ndarray) -> np.ndarray:
        """Runs batches of few shapes: full ones, then the rest padded to a power of four."""
        outputs = [np.empty((0, self.dim), np.float32)]
        devices = self._placement.devices
        largest = -(-self.batch_size // devices) * devices
        for start in range(0, len(inputs), largest):
            some = inputs[start : start + largest]
            size = devices
            while size < len(some):
                size *= 4
            size = min(size, largest)
            padding = [(0, size - len(some))] + [(0, 0)] * (inputs.ndim - 1)
            batch = jax.device_put(np.pad(some, padding), self._placement.by_batch)
            outputs.append(_on_device(run, batch)[: len(some)])
        return np.concatenate(outputs)


def _on_device(run: Any, batch: jax.Array) -> np.ndarray:
    try:
        return np.asarray(run(batch))
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        size = len(batch)
        raise ModelError(
            f"a batch of {size} does not fit the memory of {jax.devices()[0].device_kind}; "
            f"try a batch size of {max(1, size // 2)}"
        ) from error
