"""The towers in JAX: every local device, compiled once for each of a few shapes."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import numpy as np
from flax import nnx

from rsicd_embed.embedder.clip import weights
from rsicd_embed.embedder.clip.backends.compiled import keep_compiled_programs
from rsicd_embed.embedder.clip.backends.engine_names import Precision
from rsicd_embed.embedder.clip.config import ClipConfig
from rsicd_embed.embedder.clip.devices import compute_dtype, place_on
from rsicd_embed.embedder.clip.model import Clip, normalise
from rsicd_embed.embedder.clip.weights import Params
from rsicd_embed.embedder.preprocess import Preprocessor
from rsicd_embed.errors import ModelError


# Jitted on the graph definition, so that towers of one shape share their compiled programs.
@partial(jax.jit, static_argnums=(0, 1))
def _encode_image(
    graph: nnx.GraphDef[Clip], how: Preprocessor, params: Params, pixels: jax.Array
) -> jax.Array:
    return nnx.merge(graph, params).encode_image(normalise(pixels, how))


@partial(jax.jit, static_argnums=0)
def _encode_text(graph: nnx.GraphDef[Clip], params: Params, tokens: jax.Array) -> jax.Array:
    return nnx.merge(graph, params).encode_text(tokens)


class JaxTowers:
    """See `base.Towers`."""

    fixed_shapes = True

    def __init__(
        self,
        config: ClipConfig,
        params: Params,
        how: Preprocessor,
        *,
        precision: Precision | None = None,
    ) -> None:
        """Puts the model on every local device; `precision` as in `devices.compute_dtype`."""
        keep_compiled_programs()
        self._placement = place_on(jax.local_devices())
        model = weights.build(config, params, dtype=compute_dtype(precision))
        graph, held = nnx.split(model)
        held = jax.device_put(held, self._placement.everywhere)
        self._image = partial(_encode_image, graph, how, held)
        self._text = partial(_encode_text, graph, held)

    @property
    def devices(self) -> int:
        """How many share a batch."""
        return self._placement.devices

    def encode_images(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (b, side, side, 3) → float32 (b, dim)."""
        return self._run(self._image, pixels)

    def encode_texts(self, tokens: np.ndarray) -> np.ndarray:
        """int32 (b, t) → float32 (b, dim)."""
        return self._run(self._text, tokens)

    def _run(self, program: Any, inputs: np.ndarray) -> np.ndarray:
        try:
            return np.asarray(program(jax.device_put(inputs, self._placement.by_batch)))
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            size = len(inputs)
            raise ModelError(
                f"a batch of {size} does not fit the memory of {jax.devices()[0].device_kind}; "
                f"try a batch size of {max(1, size // 2)}"
            ) from error
