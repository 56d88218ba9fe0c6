"""Cutting images into patches and embedding them in batches."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rsicd_embed.errors import FindError
from rsicd_embed.find import patches


@given(st.data())
@settings(max_examples=60)
def test_patches_cover_the_image(data: st.DataObject) -> None:
    width, height = data.draw(st.integers(1, 400)), data.draw(st.integers(1, 400))
    short = min(width, height)
    side = data.draw(st.integers(max(1, short // 9), short))
    overlap = data.draw(st.floats(0, 0.8))
    boxes = patches.cut(width, height, [side], overlap)
    seen = np.zeros((height, width), bool)
    for left, top, right, bottom in boxes:
        assert (right - left, bottom - top) == (side, side)
        assert left in range(width - side + 1)
        assert top in range(height - side + 1)
        seen[top:bottom, left:right] = True
    assert seen.all()
    assert len(np.unique(boxes, axis=0)) == len(boxes)
    for starts in (np.unique(boxes[:, 0]), np.unique(boxes[:, 1])):
        assert np.diff(starts).max(initial=0) <= max(1.0, side * (1 - overlap)) + 1


@given(st.integers(1, 50_000), st.integers(1, 50_000), st.sampled_from([32, 112, 128, 224, 336]))
def test_default_sides_fit_any_image(width: int, height: int, model_side: int) -> None:
    sides = patches.default_sides(width, height, model_side)
    assert 1 <= len(sides) <= 2
    assert all(1 <= side <= min(width, height) for side in sides)
    assert sides[0] <= max(2 * model_side, 32)


def test_boxes_are_ordered_by_scale() -> None:
    boxes = patches.cut(100, 60, [20, 60, 20], 0.0)
    assert (boxes[:, 2] - boxes[:, 0]).tolist() == [20] * 15 + [60] * 2
    assert boxes[0].tolist() == [0, 0, 20, 20]
    assert boxes[-1].tolist() == [40, 0, 100, 60]


@pytest.mark.parametrize(
    ("sides", "overlap", "words"),
    [
        ([61], 0.5, "expected a patch from 1 to 60 pixels"),
        ([0], 0.5, "expected a patch from 1 to 60 pixels"),
        ([20], 1.0, "expected an overlap from 0 to 0.9, found 1"),
        ([20], -0.1, "expected an overlap"),
        ([20], float("nan"), "expected an overlap"),
    ],
)
def test_invalid_patches_are_refused(sides: list[int], overlap: float, words: str) -> None:
    with pytest.raises(FindError, match=words):
        patches.cut(100, 60, sides, overlap)


def test_too_many_patches_are_refused_before_allocation() -> None:
    with pytest.raises(FindError, match="expected at most 100,000 patches, found 399,960,001"):
        patches.cut(20_000, 20_000, [2], 0.5)


class Mean:
    """An embedder of mean colours that counts how many patches are waiting at once."""

    name, dim, fingerprint, batch_size = "mean", 3, "dim:3", 4

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.waiting = self.most = 0
        self._lock = threading.Lock()

    def preprocess(self, image: Image.Image) -> np.ndarray:
        with self._lock:
            self.waiting += 1
            self.most = max(self.most, self.waiting)
        return np.asarray(image.resize((1, 1), Image.Resampling.BOX))

    def embed_pixels(self, pixels: np.ndarray) -> np.ndarray:
        with self._lock:
            self.waiting -= len(pixels)
        self.sizes.append(len(pixels))
        return pixels.reshape(-1, 3).astype(np.float32)

    def embed_images(self, images: Any) -> np.ndarray:
        raise NotImplementedError

    def embed_texts(self, texts: Any) -> np.ndarray:
        raise NotImplementedError


def test_vectors_follow_the_boxes_with_bounded_memory() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    image, model = Image.fromarray(pixels), Mean()
    boxes = patches.cut(90, 60, [10, 30], 0.5)
    vectors = np.concatenate(list(patches.embed(image, boxes, model, threads=3)))
    expected = [pixels[top:bottom, left:right].mean((0, 1)) for left, top, right, bottom in boxes]
    np.testing.assert_allclose(vectors, expected, atol=1)
    assert set(model.sizes[:-1]) == {4}
    assert sum(model.sizes) == len(boxes)
    assert model.most <= 3 * 4 + 3
