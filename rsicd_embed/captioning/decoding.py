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
        """The logits of the first token (b, v), and the memory of the prefix."""
        prefix = self.model.mapping(vectors)
        memory = Memory.empty(
            self.config.decoder, len(vectors), self.config.prefix + self.steps - 1
        )
        features, memory = self.model.decoder(prefix, memory)
        return self.model.decoder.logits(features[:, -1]), memory

    def next(self, token: jax.Array, memory: Memory, done: jax.Array) -> tuple[jax.Array, Memory]:
        """Logits (r, v) after the token (r,) with number `done`, counted from 0."""
        x = self.model.decoder.token_embed(token[:, None])
        features, memory = self.model.decoder(x, memory, self.config.prefix + done)
        return self.model.decoder.logits(features[:, 0]), memory

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
    logits, memory = captions.start(vectors)
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
        done, logits, memory, tokens, alive, total = state
        known = jax.nn.log_softmax(logits)
        token = choose(captions.allowed(logits, tokens, done), done)
        # The last place is for the end, so that each caption has one.
        token = jnp.where(alive & (done < steps - 1), token, end)
        total += jnp.where(alive, jnp.take_along_axis(known, token[:, None], 1)[:, 0], 0.0)
        tokens = jax.lax.dynamic_update_slice(tokens, token[:, None], (0, done))
        alive &= token != end
        following, memory = jax.lax.cond(
            (done + 1 < steps) & jnp.any(alive),
            lambda: captions.next(token, memory, done),
            lambda: (logits, memory),
        )
        return done + 1, following, memory, tokens, alive, total

    alive = jnp.ones(count, bool)
    state = (jnp.int32(0), logits, memory, tokens, alive, jnp.zeros(count))
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
    logits, memory = captions.start(vectors)
    vocabulary = logits.shape[-1]
    memory = jax.tree.map(lambda x: jnp.repeat(x, beams, axis=0), memory)
    logits = jnp.repeat(logits, beams, axis=0)
    tokens = jnp.full((count * beams, steps), end, jnp.int32)
    first_row = jnp.arange(count)[:, None] * beams
    # Only the first of the equal beams counts at the start.
    total = jnp.where(jnp.arange(beams) == 0, 0.0, _NEVER) * jnp.ones((count, 1))

    def unfinished(state: Any) -> jax.Array:
        done, *_, alive, _ = state
        return jnp.logical_and(done < steps, jnp.any(alive))

    def step(state: Any) -> Any:
        done, logits, memory, tokens, alive, total = state
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

        def extend() -> tuple[jax.Array, Memory]:
            return captions.next(token.reshape(-1), jax.tree.map(lambda x: x[rows], memory), done)

        going_on = (done + 1 < steps) & jnp.any(alive)
        following, memory = jax.lax.cond(going_on, extend, lambda: (logits, memory))
        return done + 1, following, memory, tokens, alive, total

    alive = jnp.ones((count, beams), bool)
    state = (jnp.int32(0), logits, memory, tokens, alive, total)
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
