"""From the name of an engine to a model's towers on it."""

from __future__ import annotations

import importlib.util
from typing import Protocol

import numpy as np

from rsicd_embed.embedder.clip.backends import (
    BACKENDS,
    PRECISIONS,
    Backend,
    Precision,
)
from rsicd_embed.embedder.clip.parts import ModelParts
from rsicd_embed.errors import ModelError


class Towers(Protocol):
    """A CLIP's image and text tower. Vectors are float32 (b, dim), of unit length."""

    @property
    def devices(self) -> int:
        """How many share a batch; its size must be divisible by it."""
        ...

    @property
    def fixed_shapes(self) -> bool:
        """Whether each new batch size or length costs a compilation: few should be used."""
        ...

    def encode_images(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (b, side, side, 3), as `Preprocessor` gives them → vectors.

        Raises:
            ModelError: the batch does not fit the device.
        """
        ...

    def encode_texts(self, tokens: np.ndarray) -> np.ndarray:
        """int32 (b, t), as `Tokenizer` gives them → vectors; ModelError as above."""
        ...


# Least cosine between an engine's vectors and float32 NumPy's for which they are the same model's.
# Bfloat16 loses about 6e-5 on ViT-B/32; a wrong layer loses ten thousand times that.
AGREEMENT = 0.999


def towers(parts: ModelParts, backend: Backend, precision: Precision | None) -> Towers:
    """Puts a model's towers on an engine.

    Args:
        parts: the model.
        backend: the engine.
        precision: what it computes in; None for bfloat16 on TPUs and GPUs, float32 on CPUs.

    Raises:
        ModelError: the engine is not installed, does not know the precision, or gives vectors
            that differ from the model's by more than `AGREEMENT`.
    """
    if precision not in (None, *PRECISIONS):
        raise ModelError(f"expected precision {' or '.join(PRECISIONS)}, found {precision!r}")
    if backend == "jax":
        from rsicd_embed.embedder.clip import weights
        from rsicd_embed.embedder.clip.backends.on_jax import JaxTowers

        params = weights.params_from_hf(parts.config, parts.tensors)
        return JaxTowers(parts.config, params, parts.preprocessor, precision=precision)
    if backend == "openvino":
        return _openvino(parts, precision or "float32")
    if backend == "numpy":
        if precision == "bfloat16":
            raise ModelError("backend numpy computes in float32; take another for bfloat16")
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
            "pip install 'rsicd-embed[openvino]', or take --backend jax"
        )
    from rsicd_embed.embedder.clip.backends.on_openvino import OpenvinoTowers

    made = OpenvinoTowers(parts.config, parts.tensors, parts.preprocessor, precision=precision)
    agreement = agreement_of(made, _numpy(parts), parts)
    if not agreement >= AGREEMENT:  # not <, which NaN would pass
        raise ModelError(
            f"backend openvino in {precision} gives other vectors than this model: expected a "
            f"cosine of at least {AGREEMENT} to float32, found {agreement:.6f}; "
            "take --precision float32 or --backend jax"
        )
    return made


def agreement_of(one: Towers, other: Towers, parts: ModelParts) -> float:
    """Least cosine between two engines' vectors, for a picture of noise and some texts."""
    side = parts.config.image_size
    noise = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), np.uint8)
    tokens = parts.tokenizer(["", "boats in a harbour"])
    pairs = (
        (one.encode_images(noise), other.encode_images(noise)),
        (one.encode_texts(tokens), other.encode_texts(tokens)),
    )
    return float(min((a * b).sum(axis=1).min() for a, b in pairs))
