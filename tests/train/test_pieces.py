"""The loss, the views, the vocabulary and the batches, each alone."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsicd_embed.datasets.base import Example
from rsicd_embed.errors import TrainError
from rsicd_embed.train import tokenizer as bpe
from rsicd_embed.train.augment import random_patches, random_view
from rsicd_embed.train.data import CaptionedImages
from rsicd_embed.train.loss import symmetric_cross_entropy
from tests.conftest import CAPTIONS, picture


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


def test_views_are_deterministic_and_stay_in_range() -> None:
    pixels = jnp.stack([jnp.asarray(picture(i, (18, 18))) for i in range(4)])
    one, same = (random_view(jax.random.key(0), pixels, 16) for _ in range(2))
    other = random_view(jax.random.key(1), pixels, 16)
    assert one.shape == (4, 16, 16, 3)
    assert 0 <= float(one.min()) <= float(one.max()) <= 255
    np.testing.assert_array_equal(one, same)
    assert float(jnp.abs(one - other).max()) > 1


def test_a_view_of_one_colour_keeps_to_grey() -> None:
    """Crops do not reach beyond the picture: no dark border comes in."""
    pixels = jnp.full((8, 18, 18, 3), 128, jnp.uint8)
    views = np.asarray(random_view(jax.random.key(0), pixels, 16))
    np.testing.assert_allclose(views, views[:, :1, :1, :1] * np.ones((1, 16, 16, 3)), atol=1e-2)


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


def examples(folder: Path, n: int) -> list[Example]:
    found = []
    for i in range(n):
        path = folder / f"beach_{i}.png"
        picture(i).save(path)
        attributes = {"captions": [f"caption {i} a", f"caption {i} b"], "label": "beach"}
        found.append(Example(path.name, path, attributes))
    return found


def number_texts(texts: list[str]) -> np.ndarray:
    return np.arange(len(texts), dtype=np.int32)[:, None]


def test_an_epoch_is_every_image_once_in_a_repeatable_order(tmp_path: Path) -> None:
    found = examples(tmp_path, 7)
    data, again = (
        CaptionedImages(found, number_texts, side=8, class_captions=0.5, seed=1) for _ in range(2)
    )
    for one, two in zip(data.epoch(3, 2), again.epoch(3, 2), strict=True):
        np.testing.assert_array_equal(one.pixels, two.pixels)
        np.testing.assert_array_equal(one.tokens, two.tokens)
    pixels = np.concatenate([batch.pixels for batch in data.epoch(0, 7)])
    assert len({p.tobytes() for p in pixels}) == 7
    assert [len(b.pixels) for b in data.epoch(0, 3)] == [3, 3]
    orders = [b.pixels.tobytes() for n in (0, 1) for b in data.epoch(n, 7)]
    assert orders[0] != orders[1]


@pytest.mark.parametrize(("fraction", "kinds"), [(0.0, {"own"}), (1.0, {"class"})])
def test_captions_stay_with_their_images(tmp_path: Path, fraction: float, kinds: set[str]) -> None:
    found = examples(tmp_path, 5)
    texts: list[str] = []

    def remember(some: list[str]) -> np.ndarray:
        texts.extend(some)
        return number_texts(some)

    data = CaptionedImages(found, remember, side=8, class_captions=fraction, seed=0)
    images = {np.asarray(picture(i).resize((8, 8), 3)).tobytes(): i for i in range(5)}
    seen = set()
    for epoch in range(4):
        for batch in data.epoch(epoch, 5):
            for pixels, token, group in zip(batch.pixels, batch.tokens, batch.groups, strict=True):
                text = texts[int(token[0])]
                assert int(token[0]) == group
                seen.add("class" if "beach" in text else "own")
                if "beach" not in text:
                    assert text.startswith(f"caption {images[pixels.tobytes()]} ")
    assert seen == kinds


def test_data_that_cannot_be_trained_on(tmp_path: Path) -> None:
    found = examples(tmp_path, 2)
    with pytest.raises(TrainError, match="found none"):
        CaptionedImages([], number_texts, side=8, class_captions=0, seed=0)
    with pytest.raises(TrainError, match=r"x\.png: expected a caption"):
        mute = Example("x.png", found[0].path)
        CaptionedImages([mute], number_texts, side=8, class_captions=0, seed=0)
    found[1].path.write_bytes(b"rubbish")
    with pytest.raises(TrainError, match=r"beach_1\.png: not a picture"):
        CaptionedImages(found, number_texts, side=8, class_captions=0, seed=0)
