"""The loss, the patches and the vocabulary, each alone."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsicd_embed.train import tokenizer as bpe
from rsicd_embed.train.augment import random_patches
from rsicd_embed.train.loss import symmetric_cross_entropy
from tests.conftest import CAPTIONS


def unit(rng: np.random.Generator, n: int, dim: int = 8) -> jax.Array:
    x = rng.normal(size=(n, dim)).astype(np.float32)
    return jnp.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))


def clip_loss(images: jax.Array, texts: jax.Array, scale: float) -> float:
    """Figure 3 of the CLIP paper, in float64."""
    logits = scale * np.asarray(images, np.float64) @ np.asarray(texts, np.float64).T

    def cross_entropy(x: np.ndarray) -> float:
        return float(np.mean(np.log(np.exp(x).sum(axis=1)) - np.diag(x)))

    return (cross_entropy(logits) + cross_entropy(logits.T)) / 2


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 9), st.floats(1, 50), st.integers(0, 2**31))
def test_with_distinct_captions_it_is_clips_loss(n: int, scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    images, texts = unit(rng, n), unit(rng, n)
    ours = symmetric_cross_entropy(images, texts, jnp.float32(scale), jnp.arange(n))
    assert float(ours) == pytest.approx(clip_loss(images, texts, scale), rel=1e-4, abs=1e-5)


def test_equal_captions_are_no_negatives() -> None:
    """Two images of one caption: nothing to gain from telling them apart."""
    text = unit(np.random.default_rng(0), 1)
    texts = jnp.repeat(text, 2, axis=0)
    loss = symmetric_cross_entropy(texts, texts, jnp.float32(10.0), jnp.array([7, 7]))
    grads = jax.grad(symmetric_cross_entropy)(texts, texts, jnp.float32(10.0), jnp.array([7, 7]))
    assert float(loss) == pytest.approx(np.log(2), abs=1e-6)  # the targets' own entropy
    np.testing.assert_allclose(grads, 0, atol=1e-6)
    apart = jax.grad(symmetric_cross_entropy)(texts, texts, jnp.float32(10.0), jnp.array([7, 8]))
    np.testing.assert_allclose(apart, 0, atol=1e-6)  # equal rows cannot be told apart at all


def test_loss_does_not_depend_on_the_order() -> None:
    rng = np.random.default_rng(3)
    images, texts, groups = unit(rng, 6), unit(rng, 6), jnp.array([0, 1, 1, 2, 3, 0])
    order = rng.permutation(6)
    one = symmetric_cross_entropy(images, texts, jnp.float32(20.0), groups)
    other = symmetric_cross_entropy(images[order], texts[order], jnp.float32(20.0), groups[order])
    assert float(one) == pytest.approx(float(other), rel=1e-5)


def test_patches_are_drawn_without_repetition() -> None:
    kept = np.asarray(random_patches(jax.random.key(0), 5, 64, 32))
    assert kept.shape == (5, 32)
    assert all(len(set(row)) == 32 for row in kept)
    assert kept.min() >= 0
    assert kept.max() < 64


def test_any_text_can_be_spelt() -> None:
    tokenizer = bpe.train(CAPTIONS, 1024)
    text = "naïve 日本 🛰 q"
    ids = tokenizer.encode(text).ids
    assert (ids[0], ids[-1]) == (1022, 1023)
    assert 1023 not in ids[1:-1]  # no byte is unknown
    assert tokenizer.decode(ids).replace("</w>", " ").split() == text.split()
    assert len(tokenizer.encode("a desert").ids) == 4  # seen words are one token each
    assert tokenizer.to_str() == bpe.train(CAPTIONS, 1024).to_str()
