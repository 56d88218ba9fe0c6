"""The losses: equal to their papers' formulas in float64, and invariant to order."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax

from rsicd_embed.train.loss import positives, sigmoid_cross_entropy, symmetric_cross_entropy

# Compiled as a whole, which takes less time than each operation by itself.
softmax = jax.jit(symmetric_cross_entropy, static_argnames="smoothing")
sigmoid = jax.jit(sigmoid_cross_entropy, static_argnames="smoothing")


def unit(rng: np.random.Generator, n: int, dim: int = 8) -> jax.Array:
    x = rng.normal(size=(n, dim)).astype(np.float32)
    return jnp.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))


def apart(n: int) -> jax.Array:
    """Groups of rows that all differ in caption and image."""
    return jnp.stack([jnp.arange(n)] * 2, axis=1)


def pairs(rows: list[tuple[int, int]]) -> jax.Array:
    return jnp.asarray(rows, jnp.int32)


def softmax_loss(
    images: jax.Array, texts: jax.Array, scale: float, same: np.ndarray, smoothing: float
) -> float:
    """The softmax loss in float64 with explicit targets."""
    logits = scale * np.asarray(images, np.float64) @ np.asarray(texts, np.float64).T
    targets = (1 - smoothing) * same / same.sum(1, keepdims=True) + smoothing / len(same)

    def cross_entropy(x: np.ndarray) -> float:
        return float(-(targets * log_softmax(x, axis=1)).sum(axis=1).mean())

    return (cross_entropy(logits) + cross_entropy(logits.T)) / 2


# JAX compiles the loss again for each number of rows and smoothing.
@settings(max_examples=20)
@given(
    st.sampled_from((1, 2, 9)), st.floats(1, 50), st.sampled_from((0.0, 0.3)), st.integers(0, 2**31)
)
def test_distinct_rows_give_clips_loss(n: int, scale: float, smoothing: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    images, texts = unit(rng, n), unit(rng, n)
    ours = softmax(images, texts, jnp.float32(scale), apart(n), smoothing)
    expected = softmax_loss(images, texts, scale, np.eye(n), smoothing)
    assert float(ours) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_rows_sharing_caption_or_image_are_positives() -> None:
    groups = pairs([(0, 5), (1, 5), (1, 6), (2, 7)])
    same = np.array([[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 1]])
    np.testing.assert_array_equal(positives(groups), same)
    rng = np.random.default_rng(0)
    images, texts = unit(rng, 4), unit(rng, 4)
    ours = softmax(images, texts, jnp.float32(9.0), groups)
    assert float(ours) == pytest.approx(softmax_loss(images, texts, 9.0, same, 0.0), rel=1e-5)


def test_equal_captions_are_not_negatives() -> None:
    """Distinguishing two images with the same caption brings no gain."""
    texts = jnp.repeat(unit(np.random.default_rng(0), 1), 2, axis=0)
    images = unit(np.random.default_rng(1), 2)
    scale = jnp.float32(10.0)
    loss = softmax(texts, texts, scale, pairs([(7, 0), (7, 1)]))
    assert float(loss) == pytest.approx(np.log(2), abs=1e-6)  # entropy of the targets
    gradient = jax.jit(jax.grad(symmetric_cross_entropy, argnums=1))
    together = gradient(images, texts, scale, pairs([(7, 0), (7, 1)]))
    np.testing.assert_allclose(together[0] - together[1], 0, atol=1e-6)
    distinct = gradient(images, texts, scale, pairs([(7, 0), (8, 1)]))
    assert np.abs(distinct[0] - distinct[1]).max() > 0.1


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_sigmoid_loss_matches_siglip(smoothing: float) -> None:
    rng = np.random.default_rng(2)
    images, texts = unit(rng, 6), unit(rng, 6)
    scale, bias = 12.0, -3.0
    logits = scale * np.asarray(images, np.float64) @ np.asarray(texts, np.float64).T + bias
    signs = 2 * np.eye(6) - 1
    right, wrong = np.log1p(np.exp(-signs * logits)), np.log1p(np.exp(signs * logits))
    expected = ((1 - smoothing / 2) * right + smoothing / 2 * wrong).sum() / 6
    ours = sigmoid(images, texts, jnp.float32(scale), jnp.float32(bias), apart(6), smoothing)
    assert float(ours) == pytest.approx(expected, rel=1e-5)


def test_sigmoid_treats_equal_captions_as_pairs() -> None:
    texts = jnp.repeat(unit(np.random.default_rng(0), 1), 2, axis=0)

    def loss(groups: jax.Array) -> float:
        return float(sigmoid(texts, texts, jnp.float32(30.0), jnp.float32(-10.0), groups))

    assert loss(pairs([(1, 0), (1, 1)])) < 1e-4 < 10 < loss(apart(2))


def biased(images: jax.Array, texts: jax.Array, scale: jax.Array, groups: jax.Array) -> jax.Array:
    return sigmoid(images, texts, scale, jnp.float32(-5.0), groups)


@pytest.mark.parametrize("loss", [softmax, biased], ids=["softmax", "sigmoid"])
def test_losses_do_not_depend_on_the_order(loss: Callable[..., jax.Array]) -> None:
    rng = np.random.default_rng(3)
    images, texts = unit(rng, 6), unit(rng, 6)
    groups = pairs([(0, 0), (1, 1), (1, 2), (2, 3), (3, 3), (0, 4)])
    order = rng.permutation(6)
    first = loss(images, texts, jnp.float32(20.0), groups)
    second = loss(images[order], texts[order], jnp.float32(20.0), groups[order])
    assert float(first) == pytest.approx(float(second), rel=1e-5)
