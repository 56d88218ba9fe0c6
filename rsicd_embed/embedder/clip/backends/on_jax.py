"""The towers in JAX: every local device, compiled once for each of a few shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from rsicd_embed.embedder.clip import weights
from rsicd_embed.embedder.clip.backends import Precision
from rsicd_embed.embedder.clip.config import ClipConfig
from rsicd_embed.embedder.clip.model import Clip, normalise
from rsicd_embed.embedder.clip.weights import Params
from rsicd_embed.embedder.preprocess import Preprocessor
from rsicd_embed.errors import ModelError
from rsicd_embed.files import cache_folder


def keep_compiled_programs() -> None:
    """Turns on JAX's compilation cache on disk, unless the user has set it up already.

    It lies in `$XDG_CACHE_HOME/rsicd-embed/xla`; JAX_COMPILATION_CACHE_DIR moves it, and
    JAX_ENABLE_COMPILATION_CACHE=0 turns it off.
    """
    settings: Any = jax.config
    if settings.jax_compilation_cache_dir is not None:
        return
    settings.update("jax_compilation_cache_dir", str(cache_folder() / "xla"))
    settings.update("jax_persistent_cache_min_compile_time_secs", 0.1)


@dataclass(frozen=True)
class Placement:
    """Where arrays go: split along their first axis, or whole on every device."""

    by_batch: NamedSharding
    everywhere: NamedSharding

    @property
    def devices(self) -> int:
        """Number of devices; a batch must be divisible by it."""
        return int(self.by_batch.mesh.size)


def place_on(devices: Sequence[Any]) -> Placement:
    """A mesh of one axis. Its type is Auto: programs are written for the whole batch."""
    mesh = Mesh(np.asarray(devices), ("data",), axis_types=(AxisType.Auto,))
    split, whole = PartitionSpec("data"), PartitionSpec()  # type: ignore[no-untyped-call]
    return Placement(NamedSharding(mesh, split), NamedSharding(mesh, whole))


def compute_dtype(precision: Precision | None) -> Any:
    """What is computed in: bfloat16 on TPUs and GPUs, float32 on CPUs, unless said."""
    if precision is None:
        return jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    return jnp.dtype(precision)


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
