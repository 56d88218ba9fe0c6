"""CLIP and SigLIP in flax nnx: an image tower, a text tower, and a joint embedding.

See Radford et al. 2021 (arXiv:2103.00020) and Zhai et al. 2023 (arXiv:2303.15343). Vectors equal
those of transformers and open_clip, the references in the tests. Axes: b images or texts, t tokens,
p patches, d joint dimensions.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from rsicd_embed.embedder.clip.backends.engine_choice import keep_libtpu_quiet
from rsicd_embed.embedder.clip.config import BertConfig, ClipConfig
from rsicd_embed.embedder.clip.resnet import ResNet
from rsicd_embed.embedder.clip.resnet_config import ResNetConfig
from rsicd_embed.embedder.clip.transformer import (
    BertTower,
    TextTower,
    VisionTransformer,
    activate,
)
from rsicd_embed.embedder.preprocess import Preprocessor
from rsicd_embed.errors import ModelError

keep_libtpu_quiet()  # before JAX looks for devices

LOGIT_SCALE_INIT = math.log(1 / 0.07)
LOGIT_BIAS_INIT = -10.0  # SigLIP's


def normalise(pixels: jax.Array, preprocessor: Preprocessor) -> jax.Array:
    """Normalises uint8 (b, h, w, 3) on the device; equals `Preprocessor.normalise` to 1e-6."""
    mean, std = jnp.asarray(preprocessor.mean), jnp.asarray(preprocessor.std)
    return (pixels.astype(jnp.float32) * preprocessor.scale - mean) / std


class TwoLayerProjection(nnx.Module):
    """Two linear layers without biases, and a GELU between them."""

    def __init__(
        self, width: int, hidden: int, dim: int, *, dtype: DTypeLike, rngs: nnx.Rngs
    ) -> None:
        self.up = nnx.Linear(width, hidden, use_bias=False, dtype=dtype, rngs=rngs)
        self.down = nnx.Linear(hidden, dim, use_bias=False, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b w"]) -> Float[Array, "b d"]:
        """Projects pooled features."""
        y: Array = self.down(activate("gelu", self.up(x)))
        return y


class Clip(nnx.Module):
    """A CLIP model. Parameters are float32; `dtype` is the compute dtype."""

    def __init__(
        self, config: ClipConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> None:
        self.image: VisionTransformer | ResNet
        if isinstance(config.vision, ResNetConfig):
            self.image = ResNet(config.vision, config.image_size, dtype=dtype, rngs=rngs)
        else:
            self.image = VisionTransformer(config, config.vision, dtype=dtype, rngs=rngs)
        self.text: TextTower | BertTower
        if isinstance(config.text, BertConfig):
            self.text = BertTower(
                config.text,
                vocab_size=config.vocab_size,
                context_length=config.context_length,
                dtype=dtype,
                rngs=rngs,
            )
        else:
            self.text = TextTower(config, config.text, dtype=dtype, rngs=rngs)

        def projection(width: int, *, bias: bool) -> nnx.Linear:
            init = nnx.initializers.normal(width**-0.5)
            return nnx.Linear(
                width, config.dim, use_bias=bias, kernel_init=init, dtype=dtype, rngs=rngs
            )

        if not config.siglip:
            self.image_projection = projection(config.vision.width, bias=config.image_bias)
        self.text_projection: nnx.Linear | TwoLayerProjection
        hidden = config.text.projection_width if isinstance(config.text, BertConfig) else 0
        if hidden:
            self.text_projection = TwoLayerProjection(
                config.text.width, hidden, config.dim, dtype=dtype, rngs=rngs
            )
        else:
            self.text_projection = projection(config.text.width, bias=config.siglip)
        self.logit_scale = nnx.Param(jnp.asarray(LOGIT_SCALE_INIT, jnp.float32))
        if config.siglip:  # added to the scaled cosines before a sigmoid
            self.logit_bias = nnx.Param(jnp.asarray(LOGIT_BIAS_INIT, jnp.float32))

    def encode_image(
        self, pixels: Float[Array, "b side side 3"], keep: Int[Array, "b p"] | None = None
    ) -> Float[Array, "b d"]:
        """Embeds images as float32 unit vectors.

        Args:
            pixels: normalised by `normalise`.
            keep: indices of the patches that a ViT uses; None for all patches, or a ResNet.

        Raises:
            ModelError: `keep` is given for a ResNet.
        """
        if isinstance(self.image, VisionTransformer):
            features = self.image(pixels, keep)
        elif keep is None:
            features = self.image(pixels)
        else:
            raise ModelError("expected keep to be None for a ResNet, which has no patches")
        siglip = isinstance(self.image, VisionTransformer) and self.image.head is not None
        return _unit(features if siglip else self.image_projection(features))

    def encode_text(self, tokens: Int[Array, "b t"]) -> Float[Array, "b d"]:
        """Embeds int32 tokens with begin and end tokens, t ≤ context, as float32 unit vectors."""
        return _unit(self.text_projection(self.text(tokens)))


def _unit(x: Float[Array, "b d"]) -> Float[Array, "b d"]:
    x = x.astype(jnp.float32)
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
