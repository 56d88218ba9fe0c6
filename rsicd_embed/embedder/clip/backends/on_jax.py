"""The JAX engine: uses all local devices, and compiles once per input shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from rsicd_embed.embedder.clip import weights
from rsicd_embed.embedder.clip.backends import EmbedderEngine, Precision
from rsicd_embed.embedder.clip.config import ClipConfig
from rsicd_embed.embedder.clip.model import Clip, normalise
from rsicd_embed.embedder.clip.weights import Params
from rsicd_embed.embedder.preprocess import Preprocessor
from rsicd_embed.errors import ModelError, StoreError
from rsicd_embed.files import cache_folder


def keep_compiled_programs() -> None:
    """Enables JAX's compilation cache on disk, unless the user has configured one.

    The cache is in `$XDG_CACHE_HOME/rsicd-embed/xla`. JAX_COMPILATION_CACHE_DIR moves it, and
    JAX_ENABLE_COMPILATION_CACHE=0 disables it.
    """
    settings: Any = jax.config
    if settings.jax_compilation_cache_dir is not None:
        return
    try:
        folder = cache_folder()
    except StoreError:  # compile each time
        return
    settings.update("jax_compilation_cache_dir", str(folder / "xla"))
    settings.update("jax_persistent_cache_min_compile_time_secs", 0.1)


@dataclass(frozen=True)
class Placement:
    """Shardings of arrays: split along the first axis, or replicated on every device."""

    by_batch: NamedSharding
    everywhere: NamedSharding

    @property
    def devices(self) -> int:
        """Number of devices; divides the batch size."""
        return int(self.by_batch.mesh.size)


def place_on(devices: Sequence[Any]) -> Placement:
    """A placement on a one-axis mesh of type Auto, so that programs see the whole batch."""
    mesh = Mesh(np.asarray(devices), ("data",), axis_types=(AxisType.Auto,))
    split, whole = PartitionSpec("data"), PartitionSpec()  # type: ignore[no-untyped-call]
    return Placement(NamedSharding(mesh, split), NamedSharding(mesh, whole))


def compute_dtype(precision: Precision | None) -> Any:
    """The compute dtype; by default bfloat16 on TPUs and GPUs and float32 on CPUs."""
    if precision is None:
        return jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    return jnp.dtype(precision)


# Jitted on the graph definition, so that models of the same shape share compiled programs.
@partial(jax.jit, static_argnums=(0, 1))
def _encode_image(
    graph: nnx.GraphDef[Clip], preprocessor: Preprocessor, params: Params, pixels: jax.Array
) -> jax.Array:
    return nnx.merge(graph, params).encode_image(normalise(pixels, preprocessor))


@partial(jax.jit, static_argnums=0)
def _encode_text(graph: nnx.GraphDef[Clip], params: Params, tokens: jax.Array) -> jax.Array:
    return nnx.merge(graph, params).encode_text(tokens)


class JaxTowers:
    """See `towers.Towers`."""

    fixed_shapes = True

    def __init__(
        self,
        config: ClipConfig,
        params: Params,
        preprocessor: Preprocessor,
        *,
        precision: Precision | None = None,
    ) -> None:
        """Copies the model to every local device; `precision` as in `compute_dtype`."""
        keep_compiled_programs()
        self._placement = place_on(jax.local_devices())
        dtype = compute_dtype(precision)
        self.engine = EmbedderEngine("jax", cast(Precision, jnp.dtype(dtype).name))
        model = weights.build(config, params, dtype=dtype)
        graph, state = nnx.split(model)
        state = jax.device_put(state, self._placement.everywhere)
        self._image = partial(_encode_image, graph, preprocessor, state)
        self._text = partial(_encode_text, graph, state)

    @property
    def devices(self) -> int:
        """Number of devices that share a batch."""
        return self._placement.devices

    def encode_images(self, pixels: np.ndarray) -> np.ndarray:
        """Embeds images: uint8 (b, side, side, 3) → float32 (b, dim)."""
        return self._run(self._image, pixels)

    def encode_texts(self, tokens: np.ndarray) -> np.ndarray:
        """Embeds tokens: int32 (b, t) → float32 (b, dim)."""
        return self._run(self._text, tokens)

    def _run(self, program: Any, inputs: np.ndarray) -> np.ndarray:
        try:
            return np.asarray(program(jax.device_put(inputs, self._placement.by_batch)))
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            size = len(inputs)
            raise ModelError(
                f"a batch of {size} does not fit into the memory of "
                f"{jax.devices()[0].device_kind}; try a batch size of {max(1, size // 2)}"
            ) from error
