"""Decoding of captions: greedy, beam search and nucleus sampling, with a memory of keys and values.

Axes: b images, k beams, r rows (b or b × k), t tokens, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from rsicd_embed.captioning.caption_config import CaptionerConfig, Decoding
from rsicd_embed.captioning.caption_model import CaptionModel, Memory

_NEVER = -1e9  # finite, so that NaN in a model's own logits can be detected


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DecodedTokens:
    """Captions of a batch.

    Attributes:
        tokens: int32 (b, t); the end of the caption at the place of its end and after it.
        log_probability: float32 (b,), mean log-probability of the words and the end; NaN for a
            captioner whose logits are not finite.
    """

    tokens: jax.Array
    log_probability: jax.Array


Decode = Callable[[Any, jax.Array, jax.Array], DecodedTokens]


@cache
def decoder(
    config: CaptionerConfig, decoding: Decoding, end: int, unwanted: tuple[int, ...]
) -> Decode:
    """Returns a function of parameters, vectors (b, d) and random keys (b,); compiled once a size.

    Args:
        config: shape of the captioner.
        decoding: how captions are decoded.
        end: token that ends a caption.
        unwanted: tokens that captions never have.
    """
    graph = nnx.graphdef(nnx.eval_shape(lambda: CaptionModel(config, rngs=nnx.Rngs(0))))
    run = _beam_search if decoding.method == "beam" and decoding.beams > 1 else _one_by_one
    steps = decoding.steps(config)

    @jax.jit
    def decode(params: Any, vectors: jax.Array, keys: jax.Array) -> DecodedTokens:
        return run(_Captions(nnx.merge(graph, params), config, decoding, end, unwanted, steps),
                   vectors, keys)  # fmt: skip

    return decode


@dataclass(frozen=True)
class _Captions:
    """Base class of all decoding methods."""

    model: CaptionModel
    config: CaptionerConfig
    decoding: Decoding
    end: int
    unwanted: tuple[int, ...]
    steps: int

    def start(self, vectors: jax.Array) -> tuple[jax.Array, Memory]:
        """The last feature of the prefix (b, 1, w), and the memory of those before it."""
        prefix = self.model.mapping(vectors)
        positions = self.config.prefix + self.steps - 1
        memory = Memory.empty(self.config.decoder, len(vectors), positions)
        if self.config.prefix > 1:
            _, memory = self.model.decoder(prefix[:, :-1], memory)
        return prefix[:, -1:], memory

    def next(self, x: jax.Array, memory: Memory, done: jax.Array) -> tuple[jax.Array, Memory]:
        """Logits (r, v) of the token after the features (r, 1, w) of token number `done`."""
        features, memory = self.model.decoder(x, memory, self.config.prefix - 1 + done)
        return self.model.decoder.logits(features[:, 0]), memory

    def embed(self, tokens: jax.Array) -> jax.Array:
        """Features (r, 1, w) of tokens (r,)."""
        features: jax.Array = self.model.decoder.token_embed(tokens[:, None])
        return features

    def allowed(self, logits: jax.Array, tokens: jax.Array, done: jax.Array) -> jax.Array:
        """Logits without unwanted tokens, empty captions, and repetitions of n words.

        Args:
            logits: (r, v) of the next token.
            tokens: (r, t), of which `done` are decoded.
            done: number of tokens.
        """
        never = [*self.unwanted]
        if never:
            logits = logits.at[:, jnp.array(never)].set(_NEVER)
        logits = logits.at[:, self.end].set(jnp.where(done == 0, _NEVER, logits[:, self.end]))
        size, length = self.decoding.no_repeat, tokens.shape[1]
        if not size or size > length:
            return logits
        # An earlier window of n - 1 tokens that equals the last one forbids the token after it.
        windows = length - size + 1
        same = jnp.ones((len(tokens), windows), bool)
        for place in range(size - 1):
            last = jnp.take(tokens, jnp.maximum(done - size + 1 + place, 0), axis=1)
            same &= tokens[:, place : place + windows] == last[:, None]
        same &= jnp.arange(windows) + size - 1 < done
        following = tokens[:, size - 1 :]
        rows = jnp.arange(len(tokens))[:, None]
        penalty = jnp.zeros_like(logits).at[rows, following].min(jnp.where(same, _NEVER, 0.0))
        return logits + penalty


def _one_by_one(captions: _Captions, vectors: jax.Array, keys: jax.Array) -> DecodedTokens:
    """Greedy decoding and nucleus sampling."""
    count, steps, end = len(vectors), captions.steps, captions.end
    x, memory = captions.start(vectors)
    tokens = jnp.full((count, steps), end, jnp.int32)
    decoding = captions.decoding

    def choose(logits: jax.Array, done: jax.Array) -> jax.Array:
        if decoding.method != "nucleus":
            return jnp.argmax(logits, axis=-1).astype(jnp.int32)
        kept = _nucleus(logits / decoding.temperature, decoding.top_p)
        step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, done)
        return jax.vmap(jax.random.categorical)(step_keys, kept).astype(jnp.int32)

    def unfinished(state: Any) -> jax.Array:
        done, _, _, _, alive, _ = state
        return jnp.logical_and(done < steps, jnp.any(alive))

    def step(state: Any) -> Any:
        done, x, memory, tokens, alive, total = state
        logits, memory = captions.next(x, memory, done)
        known = jax.nn.log_softmax(logits)
        token = choose(captions.allowed(logits, tokens, done), done)
        # The last place is for the end, so that each caption has one.
        token = jnp.where(alive & (done < steps - 1), token, end)
        total += jnp.where(alive, jnp.take_along_axis(known, token[:, None], 1)[:, 0], 0.0)
        tokens = jax.lax.dynamic_update_slice(tokens, token[:, None], (0, done))
        alive &= token != end
        return done + 1, captions.embed(token), memory, tokens, alive, total

    alive = jnp.ones(count, bool)
    state = (jnp.int32(0), x, memory, tokens, alive, jnp.zeros(count))
    _, _, _, tokens, _, total = jax.lax.while_loop(unfinished, step, state)
    return DecodedTokens(tokens, total / (_lengths(tokens, end) + 1))


def _nucleus(logits: jax.Array, top_p: float) -> jax.Array:
    """Logits of the smallest set of tokens with a probability of `top_p`; never for others."""
    ordered = jnp.sort(logits, axis=-1)[:, ::-1]
    likely = jax.nn.softmax(ordered, axis=-1)
    before = jnp.cumsum(likely, axis=-1) - likely
    least = jnp.min(jnp.where(before < top_p, ordered, jnp.inf), axis=-1, keepdims=True)
    return jnp.where(logits >= least, logits, _NEVER)


def _beam_search(captions: _Captions, vectors: jax.Array, keys: jax.Array) -> DecodedTokens:
    """Keeps the k captions of the highest log-probability / length ** penalty.

    A finished caption stays among them for as long as no k others are better.
    """
    count, steps, end = len(vectors), captions.steps, captions.end
    beams, penalty = captions.decoding.beams, captions.decoding.length_penalty
    vocabulary = captions.config.decoder.vocab_size
    first = captions.start(vectors)
    x, memory = jax.tree.map(lambda array: jnp.repeat(array, beams, axis=0), first)
    tokens = jnp.full((count * beams, steps), end, jnp.int32)
    first_row = jnp.arange(count)[:, None] * beams
    # Only the first of the equal beams counts at the start.
    total = jnp.where(jnp.arange(beams) == 0, 0.0, _NEVER) * jnp.ones((count, 1))

    def unfinished(state: Any) -> jax.Array:
        done, *_, alive, _ = state
        return jnp.logical_and(done < steps, jnp.any(alive))

    def step(state: Any) -> Any:
        done, x, memory, tokens, alive, total = state
        logits, memory = captions.next(x, memory, done)
        known = jax.nn.log_softmax(logits)
        allowed = captions.allowed(known, tokens, done)
        is_end = jnp.arange(vocabulary) == end
        allowed = jnp.where((done == steps - 1) & ~is_end, _NEVER, allowed)
        # A finished caption goes on with the end, at no cost.
        finished = jnp.where(is_end, 0.0, _NEVER)
        added = jnp.where(alive.reshape(-1)[:, None], allowed, finished)
        sums = total[:, :, None] + added.reshape(count, beams, vocabulary)
        lengths = jnp.where(alive, done + 1, _lengths(tokens, end).reshape(count, beams) + 1)
        ranks = sums / lengths[:, :, None] ** penalty
        _, chosen = jax.lax.top_k(ranks.reshape(count, -1), beams)
        parent, token = chosen // vocabulary, (chosen % vocabulary).astype(jnp.int32)
        total = jnp.take_along_axis(sums.reshape(count, -1), chosen, axis=1)
        rows = (first_row + parent).reshape(-1)
        alive = jnp.take_along_axis(alive, parent, axis=1) & (token != end)
        tokens = jax.lax.dynamic_update_slice(tokens[rows], token.reshape(-1, 1), (0, done))
        memory = jax.tree.map(lambda array: array[rows], memory)
        return done + 1, captions.embed(token.reshape(-1)), memory, tokens, alive, total

    alive = jnp.ones((count, beams), bool)
    state = (jnp.int32(0), x, memory, tokens, alive, total)
    _, _, _, tokens, _, total = jax.lax.while_loop(unfinished, step, state)
    tokens = tokens.reshape(count, beams, steps)
    mean = total / (_lengths(tokens, end) + 1)
    best = jnp.argmax(total / (_lengths(tokens, end) + 1.0) ** penalty, axis=1)
    return DecodedTokens(
        jnp.take_along_axis(tokens, best[:, None, None], axis=1)[:, 0],
        jnp.take_along_axis(mean, best[:, None], axis=1)[:, 0],
    )


def _lengths(tokens: jax.Array, end: int) -> jax.Array:
    """Number of tokens before the end."""
    return jnp.sum(jnp.cumprod(tokens != end, axis=-1), axis=-1)
