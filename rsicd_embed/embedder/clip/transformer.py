"""The pre-norm transformer that a ViT and the text tower are made of.

Shapes: b images or texts, t tokens, w width.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from rsicd_embed.embedder.clip.config import BertConfig, TowerConfig


def activate(name: str, x: Float[Array, "b t w"]) -> Float[Array, "b t w"]:
    """CLIP's `quick_gelu`, or the exact `gelu`."""
    if name == "quick_gelu":
        return x * jax.nn.sigmoid(1.702 * x)
    return jax.nn.gelu(x, approximate=False)


class Attention(nnx.Module):
    """Multi-head self-attention; softmax in float32 whatever the compute dtype."""

    def __init__(
        self, tower: TowerConfig | BertConfig, *, dtype: DTypeLike, rngs: nnx.Rngs
    ) -> None:
        inner = nnx.initializers.normal(tower.width**-0.5 * (2 * tower.layers) ** -0.5)
        outer = nnx.initializers.normal(tower.width**-0.5)

        def linear(init: jax.nn.initializers.Initializer) -> nnx.Linear:
            return nnx.Linear(tower.width, tower.width, kernel_init=init, dtype=dtype, rngs=rngs)

        self.heads = tower.heads
        self.query, self.key, self.value = linear(inner), linear(inner), linear(inner)
        self.out = linear(outer)

    def __call__(
        self,
        x: Float[Array, "b t w"],
        *,
        causal: bool = False,
        seen: Bool[Array, "b t"] | None = None,
    ) -> Float[Array, "b t w"]:
        """Mixes positions.

        Args:
            x: features of each position.
            causal: whether each position sees only itself and those before it.
            seen: the positions that are seen, at least one of each row; None for all.
        """
        batch, length, width = x.shape
        query, key, value = (
            project(x).reshape(batch, length, self.heads, width // self.heads)
            for project in (self.query, self.key, self.value)
        )
        scale = (width // self.heads) ** -0.5
        scores = jnp.einsum("bqhc,bkhc->bhqk", query * scale, key).astype(jnp.float32)
        if causal:
            scores = jnp.where(jnp.tri(length, dtype=bool), scores, -jnp.inf)
        if seen is not None:
            scores = jnp.where(seen[:, None, None, :], scores, -jnp.inf)
        weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
        mixed = jnp.einsum("bhqk,bkhc->bqhc", weights, value)
        return self.out(mixed.reshape(batch, length, width))


class Block(nnx.Module):
    """A pre-norm transformer block: attention and a two-layer perceptron, each with a residual."""

    def __init__(self, tower: TowerConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        width, hidden = tower.width, tower.mlp_width
        self.activation = tower.activation
        self.norm1 = nnx.LayerNorm(width, epsilon=tower.eps, dtype=dtype, rngs=rngs)
        self.attention = Attention(tower, dtype=dtype, rngs=rngs)
        self.norm2 = nnx.LayerNorm(width, epsilon=tower.eps, dtype=dtype, rngs=rngs)
        up = nnx.initializers.normal((2 * width) ** -0.5)
        down = nnx.initializers.normal(width**-0.5 * (2 * tower.layers) ** -0.5)
        self.up = nnx.Linear(width, hidden, kernel_init=up, dtype=dtype, rngs=rngs)
        self.down = nnx.Linear(hidden, width, kernel_init=down, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b t w"], *, causal: bool) -> Float[Array, "b t w"]:
        """One layer; `causal` as in `Attention`."""
        x = x + self.attention(self.norm1(x), causal=causal)
        return x + self.down(activate(self.activation, self.up(self.norm2(x))))
