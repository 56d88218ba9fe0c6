"""Retrieval and zero-shot metrics on matrices whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsicd_embed.bench.metrics import retrieval_recall, topk_accuracy


def test_two_images_with_two_captions_each() -> None:
    similarities = np.array([[0.9, 0.1, 0.8, 0.2], [0.3, 0.7, 0.6, 0.5]])
    image_of_text = np.array([0, 0, 1, 1])
    # Image 0 finds its caption first; image 1 finds caption 1 of image 0 first, its own second.
    # Captions 0 and 3 find their images first; caption 1 finds image 1, caption 2 image 0.
    found = retrieval_recall(similarities, image_of_text, ks=(1, 2))
    assert found == pytest.approx(
        {"i2t_r1": 0.5, "i2t_r2": 1.0, "t2i_r1": 0.5, "t2i_r2": 1.0, "mr": 0.75}
    )


def test_a_tie_counts_against() -> None:
    constant = np.zeros((3, 3))
    found = retrieval_recall(constant, np.arange(3), ks=(1, 2, 3))
    assert (found["i2t_r1"], found["i2t_r2"], found["i2t_r3"]) == (0, 0, 1)
    assert (found["t2i_r1"], found["t2i_r2"], found["t2i_r3"]) == (0, 0, 1)
    assert topk_accuracy(constant, np.arange(3), ks=(1, 3)) == {"top1": 0, "top3": 1}


def test_an_images_own_equal_captions_are_no_rivals() -> None:
    """RSICD repeats a caption five times for thousands of images."""
    similarities = np.array([[0.9, 0.9, 0.1], [0.2, 0.2, 0.8]])
    assert retrieval_recall(similarities, np.array([0, 0, 1]), ks=(1,))["i2t_r1"] == 1.0


def test_zeroshot() -> None:
    similarities = np.array([[0.5, 0.4, 0.1], [0.5, 0.4, 0.1], [0.1, 0.2, 0.3]])
    found = topk_accuracy(similarities, np.array([0, 1, 0]), ks=(1, 2, 3))
    assert found == pytest.approx({"top1": 1 / 3, "top2": 2 / 3, "top3": 1.0})


@given(st.integers(2, 6), st.integers(1, 3), st.integers(0, 2**31))
def test_order_changes_nothing(images: int, captions: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    image_of_text = np.repeat(np.arange(images), captions)
    similarities = rng.normal(size=(images, images * captions))
    rows, columns = rng.permutation(images), rng.permutation(images * captions)
    shuffled = retrieval_recall(
        similarities[rows][:, columns], np.argsort(rows)[image_of_text[columns]]
    )
    assert shuffled == pytest.approx(retrieval_recall(similarities, image_of_text))


@given(st.integers(2, 6), st.integers(1, 3), st.integers(0, 2**31))
def test_agrees_with_sorting(images: int, captions: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    image_of_text = np.repeat(np.arange(images), captions)
    similarities = rng.normal(size=(images, images * captions))
    found = retrieval_recall(similarities, image_of_text, ks=(1, 2))
    for k in (1, 2):
        best_texts = np.argsort(-similarities, axis=1)[:, :k]
        i2t = np.mean([(image_of_text[best_texts[i]] == i).any() for i in range(images)])
        best_images = np.argsort(-similarities, axis=0)[:k]
        t2i = np.mean((best_images == image_of_text).any(axis=0))
        assert found[f"i2t_r{k}"] == pytest.approx(i2t)
        assert found[f"t2i_r{k}"] == pytest.approx(t2i)
