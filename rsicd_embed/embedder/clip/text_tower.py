"""The text tower. Shapes: b texts, t tokens, w width."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from rsicd_embed.embedder.clip.config import LEGACY_EOS_TOKEN_ID, ClipConfig, TowerConfig
from rsicd_embed.embedder.clip.transformer import Block


class TextTower(nnx.Module):
    """A causal transformer, pooled at the end-of-text token."""

    def __init__(
        self, config: ClipConfig, tower: TowerConfig, *, dtype: DTypeLike, rngs: nnx.Rngs
    ) -> None:
        init = nnx.initializers.normal(0.02)
        self.eos_token_id = config.eos_token_id
        self.token_embed = nnx.Embed(
            config.vocab_size, tower.width, embedding_init=init, dtype=dtype, rngs=rngs
        )
        self.position_embed = nnx.Param(
            init(rngs.params(), (config.context_length, tower.width), jnp.float32)
        )
        self.blocks = nnx.List([Block(tower, dtype=dtype, rngs=rngs) for _ in range(tower.layers)])
        self.norm_post = nnx.LayerNorm(tower.width, epsilon=tower.eps, dtype=dtype, rngs=rngs)

    def __call__(self, tokens: Int[Array, "b t"]) -> Float[Array, "b w"]:
        """Pooled features; what follows the end token changes nothing, as attention is causal."""
        x = self.token_embed(tokens)
        x = x + self.position_embed[: tokens.shape[1]].astype(x.dtype)
        for block in self.blocks:
            x = block(x, causal=True)
        if self.eos_token_id == LEGACY_EOS_TOKEN_ID:
            end = jnp.argmax(tokens, axis=1)
        else:
            end = jnp.argmax(tokens == self.eos_token_id, axis=1)
        # Norms are per position, so only the pooled one needs it.
        pooled: Array = self.norm_post(jnp.take_along_axis(x, end[:, None, None], axis=1)[:, 0])
        return pooled
