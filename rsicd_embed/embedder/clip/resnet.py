"""The ResNet image tower. Axes: b images, h and v sides of a map, c channels, w width."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from rsicd_embed.embedder.clip.resnet_config import Convolution, Residual, ResNetConfig

# For kernels before a ReLU: preserves the variance of activations (He et al. 2015,
# arXiv:1502.01852).
_HE = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")


def _convolution(
    shape: Convolution, init: jax.nn.initializers.Initializer, dtype: DTypeLike, rngs: nnx.Rngs
) -> nnx.Conv:
    return nnx.Conv(
        shape.inputs,
        shape.outputs,
        (shape.side, shape.side),
        strides=shape.stride,
        padding=shape.padding,
        kernel_init=init,
        dtype=dtype,
        rngs=rngs,
    )


class ResidualBlock(nnx.Module):
    """Convolutions with ReLUs between them, a residual connection, and a final ReLU.

    It is initialised to its shortcut, since without norms the sums over many blocks would grow
    (Zhang et al. 2019, arXiv:1901.09321).
    """

    def __init__(self, block: Residual, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        *inner, last = block.convolutions
        self.convolutions = nnx.List(
            [
                *[_convolution(shape, _HE, dtype, rngs) for shape in inner],
                _convolution(last, nnx.initializers.zeros, dtype, rngs),
            ]
        )
        self.shortcut = nnx.data(
            None if block.shortcut is None else _convolution(block.shortcut, _HE, dtype, rngs)
        )

    def __call__(self, x: Float[Array, "b h v c"]) -> Float[Array, "b h2 v2 c2"]:
        """Applies the block, which halves height and width if its stride is 2."""
        *inner, last = self.convolutions
        y = x
        for convolution in inner:
            y = jax.nn.relu(convolution(y))
        return jax.nn.relu(last(y) + (x if self.shortcut is None else self.shortcut(x)))


class ResNet(nnx.Module):
    """A ResNet (He et al. 2015, arXiv:1512.03385) with batch norms folded into convolutions."""

    def __init__(self, tower: ResNetConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.dtype = dtype
        self.stem = _convolution(tower.stem, _HE, dtype, rngs)
        self.stages = nnx.List(
            [
                nnx.List([ResidualBlock(block, dtype=dtype, rngs=rngs) for block in blocks])
                for blocks in tower.stages()
            ]
        )

    def __call__(self, pixels: Float[Array, "b side side 3"]) -> Float[Array, "b w"]:
        """Average-pooled features of normalised pixels."""
        x = jax.nn.relu(self.stem(pixels.astype(self.dtype)))
        around = ((0, 0), (1, 1), (1, 1), (0, 0))
        x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), around)
        for blocks in self.stages:
            for block in blocks:
                x = block(x)
        # Summed in float32, since a map may have hundreds of positions.
        return jnp.mean(x.astype(jnp.float32), axis=(1, 2)).astype(self.dtype)
