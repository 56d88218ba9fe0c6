"""The interface of engines, and loading of a model's towers onto one."""

from __future__ import annotations

import importlib.util
import warnings
from typing import Protocol

import numpy as np

from rsicd_embed.embedder.clip.backends import (
    BACKENDS,
    PRECISIONS,
    Backend,
    EmbedderEngine,
    Precision,
)
from rsicd_embed.embedder.clip.backends.engine_choice import engines
from rsicd_embed.embedder.clip.model_parts import ModelParts
from rsicd_embed.embedder.clip.resnet_config import ResNetConfig
from rsicd_embed.errors import ModelError, one_line


class Towers(Protocol):
    """A CLIP's image and text tower on an engine. Vectors are float32 (b, dim) of unit length."""

    @property
    def engine(self) -> EmbedderEngine:
        """The engine, and the precision that it computes in."""
        ...

    @property
    def devices(self) -> int:
        """Number of devices that share a batch; divides the batch size."""
        ...

    @property
    def fixed_shapes(self) -> bool:
        """Whether every new batch size or text length needs compiling, so that few are best."""
        ...

    def encode_images(self, pixels: np.ndarray) -> np.ndarray:
        """Embeds preprocessed images: uint8 (b, side, side, 3) → vectors.

        Raises:
            ModelError: the batch does not fit into the device's memory.
        """
        ...

    def encode_texts(self, tokens: np.ndarray) -> np.ndarray:
        """Embeds tokens: int32 (b, t) → vectors.

        Raises:
            ModelError: the batch does not fit into the device's memory.
        """
        ...


# Minimum cosine between vectors of an engine and of NumPy in float32. On ViT-B/32, bfloat16 loses
# about 6e-5; a wrong layer loses ten thousand times as much.
AGREEMENT = 0.999


def towers(parts: ModelParts, backend: Backend, precision: Precision | None) -> Towers:
    """Loads a model's towers onto an engine.

    Args:
        parts: the model.
        backend: the engine, or "auto" for the first of `engines` that runs the model correctly.
        precision: compute dtype; None for that of `engines`, or of the given engine: bfloat16 for
            JAX on TPUs and GPUs, otherwise float32.

    Raises:
        ModelError: the engine is not installed, does not support the precision, or its vectors
            have a cosine below `AGREEMENT` to the model's.
    """
    if precision not in (None, *PRECISIONS):
        raise ModelError(f"expected precision {' or '.join(PRECISIONS)}, found {precision!r}")
    if backend == "auto":
        resnet = isinstance(parts.config.vision, ResNetConfig)
        *faster, last = engines(precision, resnet=resnet)
        for engine in faster:
            try:
                return towers(parts, engine.backend, engine.precision)
            except (ModelError, RuntimeError, ImportError) as error:  # OpenVINO's are RuntimeErrors
                warnings.warn(f"{engine} is not used: {one_line(error)}", stacklevel=2)
        return towers(parts, last.backend, last.precision)
    if backend == "jax":
        from rsicd_embed.embedder.clip import weights
        from rsicd_embed.embedder.clip.backends.on_jax import JaxTowers

        params = weights.params_from_hf(parts.config, parts.tensors)
        return JaxTowers(parts.config, params, parts.preprocessor, precision=precision)
    if backend == "openvino":
        return _openvino(parts, precision or "float32")
    if backend == "numpy":
        if precision == "bfloat16":
            raise ModelError("backend numpy computes in float32; use another one for bfloat16")
        return _numpy(parts)
    raise ModelError(
        f"expected backend {', '.join(BACKENDS[:-1])} or {BACKENDS[-1]}, found {backend!r}"
    )


def _numpy(parts: ModelParts) -> Towers:
    from rsicd_embed.embedder.clip.backends.on_numpy import NumpyTowers

    return NumpyTowers(parts.config, parts.tensors, parts.preprocessor)


def _openvino(parts: ModelParts, precision: Precision) -> Towers:
    if importlib.util.find_spec("openvino") is None:
        raise ModelError(
            "backend openvino is not installed; install it with: "
            "pip install 'rsicd-embed[openvino]', or use --backend jax"
        )
    from rsicd_embed.embedder.clip.backends.on_openvino import OpenvinoTowers

    loaded = OpenvinoTowers(parts.config, parts.tensors, parts.preprocessor, precision=precision)
    agreement = agreement_of(loaded, _numpy(parts), parts)
    if not agreement >= AGREEMENT:  # not <, which NaN would pass
        raise ModelError(
            f"backend openvino in {precision} computes wrong vectors for this model: expected a "
            f"cosine of at least {AGREEMENT} to float32, found {agreement:.6f}; "
            "use --precision float32 or --backend jax"
        )
    return loaded


def agreement_of(first: Towers, second: Towers, parts: ModelParts) -> float:
    """Minimum cosine between the vectors of two engines, for an image of noise and two texts."""
    side = parts.config.image_size
    noise = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), np.uint8)
    tokens = parts.tokenizer(["", "boats in a harbour"])
    pairs = (
        (first.encode_images(noise), second.encode_images(noise)),
        (first.encode_texts(tokens), second.encode_texts(tokens)),
    )
    return float(min((a * b).sum(axis=1).min() for a, b in pairs))
