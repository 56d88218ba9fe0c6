"""Transformer towers: the vision transformer, CLIP's causal text tower, and BERT.

Axes: b images or texts, t tokens, p patches, w width.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from rsicd_embed.embedder.clip.config import (
    LEGACY_EOS_TOKEN_ID,
    BertConfig,
    ClipConfig,
    TowerConfig,
)


def activate(name: str, x: Float[Array, "*b w"]) -> Float[Array, "*b w"]:
    """Applies a `config.Activation`."""
    if name == "quick_gelu":
        return x * jax.nn.sigmoid(1.702 * x)
    return jax.nn.gelu(x, approximate=name == "gelu_pytorch_tanh")


def attend(
    query: Float[Array, "b q w"],
    key: Float[Array, "b k w"],
    value: Float[Array, "b k w"],
    *,
    heads: int,
    causal: bool = False,
    seen: Bool[Array, "b k"] | None = None,
) -> Float[Array, "b q w"]:
    """Multi-head attention with the softmax in float32; see `Attention`."""
    batch, length, width = query.shape
    query, key, value = (x.reshape(batch, -1, heads, width // heads) for x in (query, key, value))
    scale = (width // heads) ** -0.5
    scores = jnp.einsum("bqhc,bkhc->bhqk", query * scale, key).astype(jnp.float32)
    if causal:
        scores = jnp.where(jnp.tri(length, dtype=bool), scores, -jnp.inf)
    if seen is not None:
        scores = jnp.where(seen[:, None, None, :], scores, -jnp.inf)
    weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    return jnp.einsum("bhqk,bkhc->bqhc", weights, value).reshape(batch, length, width)


class Attention(nnx.Module):
    """Multi-head attention, with the softmax always in float32."""

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
        query: Float[Array, "b q w"] | None = None,
    ) -> Float[Array, "b q w"]:
        """Applies attention.

        Args:
            x: features of each position.
            causal: attend only to the same and earlier positions.
            seen: True for positions to attend to, at least one per row; None for all.
            query: features that attend to `x`; None for `x` itself.
        """
        query = self.query(x if query is None else query)
        key, value = self.key(x), self.value(x)
        return self.out(attend(query, key, value, heads=self.heads, causal=causal, seen=seen))


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
        """Applies the block; `causal` as in `Attention`."""
        x = x + self.attention(self.norm1(x), causal=causal)
        return x + self.down(activate(self.activation, self.up(self.norm2(x))))


class PatchEmbed(nnx.Module):
    """The patch embedding as a matrix product.

    As a convolution it takes three times as long on a CPU (64 images of 224 px, patches of 32 px).
    """

    def __init__(
        self, side: int, width: int, *, bias: bool, dtype: DTypeLike, rngs: nnx.Rngs
    ) -> None:
        kernel = nnx.initializers.normal(0.02)(rngs.params(), (side, side, 3, width), jnp.float32)
        self.kernel = nnx.Param(kernel)
        self.bias = nnx.data(nnx.Param(jnp.zeros((width,), jnp.float32)) if bias else None)
        self.dtype = dtype

    def __call__(self, pixels: Float[Array, "b side side 3"]) -> Float[Array, "b p w"]:
        """Embeds the patches, row by row."""
        side, _, channels, width = self.kernel.shape
        batch, rows = pixels.shape[0], pixels.shape[1] // side
        cut = pixels.astype(self.dtype).reshape(batch, rows, side, rows, side, channels)
        flat = cut.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows * rows, -1)
        x = flat @ self.kernel[...].astype(self.dtype).reshape(-1, width)
        return x if self.bias is None else x + self.bias[...].astype(self.dtype)


class AttentionHead(nnx.Module):
    """SigLIP's pooling: a learnt query attends to all patches, then a perceptron."""

    def __init__(self, tower: TowerConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        block = Block(tower, dtype=dtype, rngs=rngs)
        self.activation, self.attention, self.norm = tower.activation, block.attention, block.norm2
        self.up, self.down = block.up, block.down
        self.probe = nnx.Param(nnx.initializers.normal(1.0)(rngs.params(), (tower.width,)))

    def __call__(self, x: Float[Array, "b p w"]) -> Float[Array, "b w"]:
        """Pools the features of patches."""
        probe = self.probe[...].astype(x.dtype)
        query = jnp.broadcast_to(probe, (x.shape[0], 1, x.shape[2]))
        y = self.attention(x, query=query)[:, 0]
        pooled: Array = y + self.down(activate(self.activation, self.up(self.norm(y))))
        return pooled


class VisionTransformer(nnx.Module):
    """A vision transformer (Dosovitskiy et al. 2020, arXiv:2010.11929).

    CLIP's has a class token, which is pooled, and an initial norm; SigLIP's an `AttentionHead`.
    """

    def __init__(
        self, config: ClipConfig, tower: TowerConfig, *, dtype: DTypeLike, rngs: nnx.Rngs
    ) -> None:
        init, width, siglip = nnx.initializers.normal(0.02), tower.width, config.siglip
        self.patch_embed = PatchEmbed(config.patch_size, width, bias=siglip, dtype=dtype, rngs=rngs)
        if not siglip:
            class_init = nnx.initializers.normal(width**-0.5)
            self.class_embed = nnx.Param(class_init(rngs.params(), (width,), jnp.float32))
        positions = config.patches + (not siglip)
        self.position_embed = nnx.Param(init(rngs.params(), (positions, width), jnp.float32))
        if not siglip:
            self.norm_pre = nnx.LayerNorm(width, epsilon=tower.eps, dtype=dtype, rngs=rngs)
        self.blocks = nnx.List([Block(tower, dtype=dtype, rngs=rngs) for _ in range(tower.layers)])
        self.norm_post = nnx.LayerNorm(width, epsilon=tower.eps, dtype=dtype, rngs=rngs)
        head = AttentionHead(tower, dtype=dtype, rngs=rngs) if siglip else None
        self.head: AttentionHead | None = nnx.data(head)

    def __call__(
        self, pixels: Float[Array, "b side side 3"], keep: Int[Array, "b p"] | None = None
    ) -> Float[Array, "b w"]:
        """Pooled features; `keep` selects the patches to use (FLIP, arXiv:2212.00794)."""
        x = self.patch_embed(pixels)
        positions = self.position_embed[...].astype(x.dtype)
        x = x + (positions if self.head is not None else positions[1:])
        if keep is not None:
            x = jnp.take_along_axis(x, keep[:, :, None], axis=1)
        if self.head is None:
            first = self.class_embed[...].astype(x.dtype) + positions[0]
            first = jnp.broadcast_to(first, (x.shape[0], 1, x.shape[2]))
            x = self.norm_pre(jnp.concatenate([first, x], axis=1))
        for block in self.blocks:
            x = block(x, causal=False)
        pooled: Array = (
            self.norm_post(x[:, 0]) if self.head is None else self.head(self.norm_post(x))
        )
        return pooled


class TextTower(nnx.Module):
    """A transformer: causal and pooled at the end token, or SigLIP's, pooled at the last token."""

    def __init__(
        self, config: ClipConfig, tower: TowerConfig, *, dtype: DTypeLike, rngs: nnx.Rngs
    ) -> None:
        init = nnx.initializers.normal(0.02)
        self.siglip, self.eos_token_id = config.siglip, config.eos_token_id
        self.token_embed = nnx.Embed(
            config.vocab_size, tower.width, embedding_init=init, dtype=dtype, rngs=rngs
        )
        self.position_embed = nnx.Param(
            init(rngs.params(), (config.context_length, tower.width), jnp.float32)
        )
        self.blocks = nnx.List([Block(tower, dtype=dtype, rngs=rngs) for _ in range(tower.layers)])
        self.norm_post = nnx.LayerNorm(tower.width, epsilon=tower.eps, dtype=dtype, rngs=rngs)

    def __call__(self, tokens: Int[Array, "b t"]) -> Float[Array, "b w"]:
        """Pooled features. CLIP ignores tokens after the end; SigLIP needs a full context."""
        x = self.token_embed(tokens)
        x = x + self.position_embed[: tokens.shape[1]].astype(x.dtype)
        for block in self.blocks:
            x = block(x, causal=not self.siglip)
        if self.siglip:
            end = jnp.full(tokens.shape[:1], tokens.shape[1] - 1)
        elif self.eos_token_id == LEGACY_EOS_TOKEN_ID:
            end = jnp.argmax(tokens, axis=1)
        else:
            end = jnp.argmax(tokens == self.eos_token_id, axis=1)
        # The norm is per position, so only the pooled position needs it.
        pooled: Array = self.norm_post(jnp.take_along_axis(x, end[:, None, None], axis=1)[:, 0])
        return pooled


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
        """Applies the layer; `seen` as in `Attention`."""
        x = self.attention_norm(x + self.attention(x, seen=seen))
        y: Array = self.output_norm(x + self.down(activate(self.activation, self.up(x))))
        return y


class BertTower(nnx.Module):
    """A BERT; see `BertConfig`."""

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
        self.pad_token_id, self.pooling = tower.pad_token_id, tower.pooling
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
        """Pooled features; padding has no effect."""
        seen = tokens != self.pad_token_id
        x = self.token_embed(tokens)
        x = self.norm_pre(x + self.position_embed[: tokens.shape[1]].astype(x.dtype))
        for layer in self.layers:
            x = layer(x, seen=seen)
        if self.pooling == "first":
            return x[:, 0]
        weights = seen.astype(jnp.float32)
        weights = weights / jnp.maximum(weights.sum(axis=1, keepdims=True), 1.0)
        pooled: Array = jnp.einsum("btw,bt->bw", x.astype(jnp.float32), weights)
        return pooled.astype(x.dtype)
