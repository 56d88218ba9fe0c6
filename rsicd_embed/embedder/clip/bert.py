"""A BERT as the text tower. Shapes: b texts, t tokens, w width."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from rsicd_embed.embedder.clip.config import BertConfig
from rsicd_embed.embedder.clip.transformer import Attention, activate


class BertLayer(nnx.Module):
    """A post-norm transformer block: attention and a two-layer perceptron, each with a residual."""

    def __init__(self, tower: BertConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        init = nnx.initializers.normal(0.02)

        def linear(inputs: int, outputs: int) -> nnx.Linear:
            return nnx.Linear(inputs, outputs, kernel_init=init, dtype=dtype, rngs=rngs)

        def norm() -> nnx.LayerNorm:
            return nnx.LayerNorm(tower.width, epsilon=tower.eps, dtype=dtype, rngs=rngs)

        self.activation = tower.activation
        self.attention = Attention(tower, dtype=dtype, rngs=rngs)
        self.attention_norm = norm()
        self.up = linear(tower.width, tower.mlp_width)
        self.down = linear(tower.mlp_width, tower.width)
        self.output_norm = norm()

    def __call__(
        self, x: Float[Array, "b t w"], *, seen: Bool[Array, "b t"]
    ) -> Float[Array, "b t w"]:
        """One layer; `seen` as in `Attention`."""
        x = self.attention_norm(x + self.attention(x, seen=seen))
        y: Array = self.output_norm(x + self.down(activate(self.activation, self.up(x))))
        return y


class BertTower(nnx.Module):
    """Devlin et al. 2018 (arXiv:1810.04805), pooled by the mean over the text's tokens."""

    def __init__(
        self,
        tower: BertConfig,
        *,
        vocab_size: int,
        context_length: int,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        init = nnx.initializers.normal(0.02)
        self.pad_token_id = tower.pad_token_id
        self.token_embed = nnx.Embed(
            vocab_size, tower.width, embedding_init=init, dtype=dtype, rngs=rngs
        )
        self.position_embed = nnx.Param(
            init(rngs.params(), (context_length, tower.width), jnp.float32)
        )
        self.norm_pre = nnx.LayerNorm(tower.width, epsilon=tower.eps, dtype=dtype, rngs=rngs)
        self.layers = nnx.List(
            [BertLayer(tower, dtype=dtype, rngs=rngs) for _ in range(tower.layers)]
        )

    def __call__(self, tokens: Int[Array, "b t"]) -> Float[Array, "b w"]:
        """Pooled features; padding changes nothing."""
        seen = tokens != self.pad_token_id
        x = self.token_embed(tokens)
        x = self.norm_pre(x + self.position_embed[: tokens.shape[1]].astype(x.dtype))
        for layer in self.layers:
            x = layer(x, seen=seen)
        weights = seen.astype(jnp.float32)
        weights = weights / jnp.maximum(weights.sum(axis=1, keepdims=True), 1.0)
        pooled: Array = jnp.einsum("btw,bt->bw", x.astype(jnp.float32), weights)
        return pooled.astype(x.dtype)
