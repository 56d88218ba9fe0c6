"""The ResNet image tower. Axes: b images, h and v sides of a map, c channels, w width."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from rsicd_embed.embedder.clip.resnet_config import STRIDE, Convolution, Residual, ResNetConfig
from rsicd_embed.embedder.clip.transformer import attend

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


def _pooled(convolution: nnx.Conv, shape: Convolution, x: Array) -> Array:
    """Applies a convolution after its average pool."""
    y: Array = convolution(average_pool(x, shape.pool))
    return y


def average_pool(x: Float[Array, "b h v c"], side: int) -> Float[Array, "b h2 v2 c"]:
    """Averages squares; `x` itself for a side of 1."""
    if side == 1:
        return x
    batch, high, wide, channels = x.shape
    return x.reshape(batch, high // side, side, wide // side, side, channels).mean(axis=(2, 4))


class AttentionPool(nnx.Module):
    """CLIP's pooling of a map: its mean attends to itself and to every position."""

    def __init__(
        self, tower: ResNetConfig, positions: int, *, dtype: DTypeLike, rngs: nnx.Rngs
    ) -> None:
        width, init = tower.width, nnx.initializers.normal(tower.width**-0.5)
        self.heads = tower.attention_heads
        self.position_embed = nnx.Param(init(rngs.params(), (positions + 1, width), jnp.float32))
        self.query, self.key, self.value = (
            nnx.Linear(width, width, kernel_init=init, dtype=dtype, rngs=rngs) for _ in range(3)
        )

    def __call__(self, x: Float[Array, "b h v c"]) -> Float[Array, "b c"]:
        """Pooled features, before the projection."""
        batch, _, _, channels = x.shape
        x = x.reshape(batch, -1, channels)
        mean = x.astype(jnp.float32).mean(axis=1, keepdims=True).astype(x.dtype)
        x = jnp.concatenate([mean, x], axis=1) + self.position_embed[...].astype(x.dtype)
        query, key, value = self.query(x[:, :1]), self.key(x), self.value(x)
        return attend(query, key, value, heads=self.heads)[:, 0]


class ResidualBlock(nnx.Module):
    """Convolutions with ReLUs between them, a residual connection, and a final ReLU.

    It is initialised to its shortcut, since without norms the sums over many blocks would grow
    (Zhang et al. 2019, arXiv:1901.09321).
    """

    def __init__(self, block: Residual, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.block = block
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
        y = _pooled(last, self.block.convolutions[-1], y)
        if self.block.shortcut is not None and self.shortcut is not None:
            x = _pooled(self.shortcut, self.block.shortcut, x)
        return jax.nn.relu(y + x)


class ResNet(nnx.Module):
    """A ResNet with batch norms folded into convolutions; see `ResNetConfig`."""

    def __init__(
        self, tower: ResNetConfig, image_size: int, *, dtype: DTypeLike, rngs: nnx.Rngs
    ) -> None:
        self.dtype = dtype
        stem = [_convolution(shape, _HE, dtype, rngs) for shape in tower.stem]
        self.stem: nnx.Conv | nnx.List[nnx.Conv] = stem[0] if len(stem) == 1 else nnx.List(stem)
        pool = None
        if tower.attention_heads:
            pool = AttentionPool(tower, (image_size // STRIDE) ** 2, dtype=dtype, rngs=rngs)
        self.attention_pool: AttentionPool | None = nnx.data(pool)
        self.stages = nnx.List(
            [
                nnx.List([ResidualBlock(block, dtype=dtype, rngs=rngs) for block in blocks])
                for blocks in tower.stages()
            ]
        )

    def __call__(self, pixels: Float[Array, "b side side 3"]) -> Float[Array, "b w"]:
        """Pooled features of normalised pixels."""
        x = pixels.astype(self.dtype)
        for convolution in [self.stem] if isinstance(self.stem, nnx.Conv) else self.stem:
            x = jax.nn.relu(convolution(x))
        if self.attention_pool is not None:
            x = average_pool(x, 2)
        else:
            around = ((0, 0), (1, 1), (1, 1), (0, 0))
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), around)
        for blocks in self.stages:
            for block in blocks:
                x = block(x)
        if self.attention_pool is not None:
            return self.attention_pool(x)
        # Summed in float32, since a map may have hundreds of positions.
        return jnp.mean(x.astype(jnp.float32), axis=(1, 2)).astype(self.dtype)
