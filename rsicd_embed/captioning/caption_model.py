"""A captioner in flax nnx: a mapping network and a causal decoder in GPT-2's design.

Axes: b images, t tokens, p positions of the memory, w width, d dimension of vectors, v vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from rsicd_embed.captioning.caption_config import CaptionerConfig, DecoderConfig
from rsicd_embed.embedder.clip.backends.engine_choice import keep_libtpu_quiet

keep_libtpu_quiet()  # before JAX looks for devices


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Memory:
    """Keys and values of the positions so far, as float (b, heads, p, channels) for each block."""

    keys: tuple[jax.Array, ...]
    values: tuple[jax.Array, ...]

    @classmethod
    def empty(cls, config: DecoderConfig, rows: int, positions: int) -> Memory:
        """A memory for this many rows and positions."""
        shape = (rows, config.heads, positions, config.width // config.heads)
        blank = tuple(jnp.zeros(shape) for _ in range(config.layers))
        return cls(blank, blank)


@dataclass(frozen=True)
class Dropout:
    """Dropout with a rate and a random key; None instead of it for none."""

    rate: float
    key: jax.Array

    def __call__(self, x: jax.Array, place: int) -> jax.Array:
        """Drops values; each place in the model has a number of its own."""
        kept = jax.random.bernoulli(jax.random.fold_in(self.key, place), 1 - self.rate, x.shape)
        return jnp.where(kept, x / (1 - self.rate), 0.0)


def _dropped(x: jax.Array, dropout: Dropout | None, place: int) -> jax.Array:
    return x if dropout is None else dropout(x, place)


class MappingNetwork(nnx.Module):
    """A perceptron that maps a vector to the features of the prefix."""

    def __init__(self, config: CaptionerConfig, *, rngs: nnx.Rngs) -> None:
        self.prefix, self.width = config.prefix, config.decoder.width
        self.scale = config.vector_dim**0.5
        init = nnx.initializers.normal(0.02)
        self.up = nnx.Linear(config.vector_dim, config.mapping_width, rngs=rngs)
        self.down = nnx.Linear(
            config.mapping_width, self.prefix * self.width, kernel_init=init, rngs=rngs
        )

    def __call__(
        self, vectors: Float[Array, "b d"], dropout: Dropout | None = None
    ) -> Float[Array, "b t w"]:
        """Features of the prefix. Vectors are unit vectors, scaled here to unit variance."""
        hidden = _dropped(jnp.tanh(self.up(vectors * self.scale)), dropout, 0)
        return self.down(hidden).reshape(-1, self.prefix, self.width)


class DecoderBlock(nnx.Module):
    """A pre-norm block: causal attention and a perceptron, each with a residual."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs) -> None:
        init = nnx.initializers.normal(0.02)
        last = nnx.initializers.normal(0.02 * (2 * config.layers) ** -0.5)
        width, self.heads = config.width, config.heads
        self.norm1 = nnx.LayerNorm(width, epsilon=config.eps, rngs=rngs)
        self.attend = nnx.Linear(width, 3 * width, kernel_init=init, rngs=rngs)
        self.out = nnx.Linear(width, width, kernel_init=last, rngs=rngs)
        self.norm2 = nnx.LayerNorm(width, epsilon=config.eps, rngs=rngs)
        self.up = nnx.Linear(width, config.mlp_width, kernel_init=init, rngs=rngs)
        self.down = nnx.Linear(config.mlp_width, width, kernel_init=last, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "b t w"],
        past: tuple[jax.Array, jax.Array] | None,
        start: jax.Array | int,
        dropout: Dropout | None,
        place: int,
    ) -> tuple[Float[Array, "b t w"], tuple[jax.Array, jax.Array]]:
        """Applies the block to positions `start` and later; returns the keys and values too."""
        rows, length, width = x.shape
        parts = self.attend(self.norm1(x)).reshape(rows, length, 3, self.heads, -1)
        query, key, value = parts.transpose(2, 0, 3, 1, 4)
        if past is not None:
            key = jax.lax.dynamic_update_slice(past[0], key, (0, 0, start, 0))
            value = jax.lax.dynamic_update_slice(past[1], value, (0, 0, start, 0))
        visible = jnp.arange(key.shape[2]) <= start + jnp.arange(length)[:, None]
        scores = jnp.einsum("bhqc,bhkc->bhqk", query, key) * query.shape[-1] ** -0.5
        weights = jax.nn.softmax(jnp.where(visible, scores, -jnp.inf), axis=-1)
        mixed = jnp.einsum("bhqk,bhkc->bhqc", weights, value)
        mixed = mixed.transpose(0, 2, 1, 3).reshape(rows, length, width)
        x = x + _dropped(self.out(mixed), dropout, place)
        hidden = jax.nn.gelu(self.up(self.norm2(x)), approximate=True)
        return x + _dropped(self.down(hidden), dropout, place + 1), (key, value)


class Decoder(nnx.Module):
    """A causal decoder; its output shares the token embeddings."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs) -> None:
        init = nnx.initializers.normal(0.02)
        self.token_embed = nnx.Embed(
            config.vocab_size, config.width, embedding_init=init, rngs=rngs
        )
        self.position_embed = nnx.Param(init(rngs.params(), (config.positions, config.width)))
        self.blocks = nnx.List([DecoderBlock(config, rngs=rngs) for _ in range(config.layers)])
        self.norm_post = nnx.LayerNorm(config.width, epsilon=config.eps, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "b t w"],
        memory: Memory | None = None,
        start: jax.Array | int = 0,
        dropout: Dropout | None = None,
    ) -> tuple[Float[Array, "b t w"], Memory]:
        """Output features of the positions `start` and later, and the memory with them.

        Args:
            x: input features, such as the embeddings of tokens.
            memory: keys and values of earlier positions; None if there are none, and all are here.
            start: position of the first feature.
            dropout: for training.
        """
        positions = jax.lax.dynamic_slice_in_dim(self.position_embed[...], start, x.shape[1])
        x = _dropped(x + positions, dropout, 1)
        keys, values = [], []
        for number, block in enumerate(self.blocks):
            past = None if memory is None else (memory.keys[number], memory.values[number])
            x, (key, value) = block(x, past, start, dropout, 2 + 2 * number)
            keys.append(key)
            values.append(value)
        return self.norm_post(x), Memory(tuple(keys), tuple(values))

    def logits(self, features: Float[Array, "*b w"]) -> Float[Array, "*b v"]:
        """Logits of the next token from output features."""
        scores: Array = features @ self.token_embed.embedding[...].T
        return scores


class CaptionModel(nnx.Module):
    """A mapping network and a decoder."""

    def __init__(self, config: CaptionerConfig, *, rngs: nnx.Rngs) -> None:
        self.mapping = MappingNetwork(config, rngs=rngs)
        self.decoder = Decoder(config.decoder, rngs=rngs)

    def __call__(
        self,
        vectors: Float[Array, "b d"],
        tokens: Int[Array, "b t"],
        dropout: Dropout | None = None,
    ) -> Float[Array, "b t v"]:
        """Logits of each token of captions, given the earlier ones (teacher forcing)."""
        prefix = self.mapping(vectors, dropout)
        words = self.decoder.token_embed(tokens[:, :-1])
        features, _ = self.decoder(jnp.concatenate([prefix, words], axis=1), dropout=dropout)
        return self.decoder.logits(features[:, prefix.shape[1] - 1 :])
