"""Heat maps, their colours and drawings."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rsicd_embed.find import finding, heatmap, patches
from rsicd_embed.find.finding import Finding


@given(st.integers(1, 900), st.integers(1, 900), st.integers(0, 2**32 - 1))
def test_map_stays_within_the_range_of_values(width: int, height: int, seed: int) -> None:
    short = min(width, height)
    boxes = patches.cut(width, height, [max(1, short // 2), short], 0.5)
    values = np.random.default_rng(seed).random(len(boxes))
    heat = heatmap.smooth(boxes, values, width, height)
    assert heat.dtype == np.float32
    assert max(heat.shape) <= 256
    assert np.isfinite(heat).all()
    assert values.min() - 1e-6 <= heat.min() <= heat.max() <= values.max() + 1e-6


def test_map_peaks_at_the_patch_and_is_smooth() -> None:
    boxes = patches.cut(400, 200, [50], 0.5)
    hot = np.flatnonzero((boxes == [100, 50, 150, 100]).all(axis=1))
    values = np.zeros(len(boxes))
    values[hot] = 1.0
    heat = heatmap.smooth(boxes, values, 400, 200)
    y, x = np.unravel_index(heat.argmax(), heat.shape)
    scale = 400 / heat.shape[1]
    assert abs((x + 0.5) * scale - 125) < 4
    assert abs((y + 0.5) * scale - 75) < 4
    assert heat[:, 200:].max() == 0
    assert np.abs(np.diff(heat, axis=1)).max() < 0.1


def test_colours_brighten_and_zero_is_transparent() -> None:
    ramp = heatmap.colours(np.linspace(0, 1, 50)).astype(int)
    brightness = ramp @ [299, 587, 114]
    assert (np.diff(brightness) > 0).all()
    layer = heatmap.layer(np.array([[0, 0, 0, 1, 1, 1]], np.float32), (60, 10))
    alpha = np.asarray(layer.getchannel("A"))
    assert layer.size == (60, 10)
    assert alpha[:, 0].max() == 0
    assert alpha[:, -1].min() > 150


def test_probabilities_sum_to_one_over_the_texts() -> None:
    similarities = np.random.default_rng(0).uniform(-1, 1, (5, 4))
    each = [
        finding.probabilities(np.roll(similarities, -i, axis=1), 14.3) for i in range(4)
    ]  # each text once as the first
    np.testing.assert_allclose(np.sum(each, axis=0), 1)
    best = similarities.argmax(axis=1)
    np.testing.assert_array_equal(np.argmax(each, axis=0), best)
    assert finding.probabilities(np.array([[1.0, -1.0]]), 1e4).tolist() == [1.0]


def test_alternative_texts() -> None:
    assert finding.compared_texts("a beach", None) == ("a beach", *finding.GENERAL)
    assert finding.compared_texts("a beach", ["x", "y", "x"]) == ("a beach", "x", "y")
    assert finding.compared_texts("a beach", []) == ("a beach",)
    assert "water" not in finding.compared_texts("blue WATER", None)
    assert finding.logit_scale(object()) == finding.LOGIT_SCALE


def example(width: int, height: int, sides: list[int]) -> Finding:
    boxes = patches.cut(width, height, sides, 0.5)
    scores = np.linspace(-0.2, 0.4, len(boxes), dtype=np.float32)
    return Finding((width, height), ("é" * 400, "b"), 10.0, boxes, scores, np.ones(len(boxes)))


def test_drawings_keep_the_aspect_ratio() -> None:
    for width, height in ((1, 1), (3000, 20), (700, 500)):
        drawn = heatmap.draw(Image.new("RGB", (width, height)), example(width, height, [1]) if
                             width == 1 else example(width, height, [20]))  # fmt: skip
        assert drawn.width <= heatmap.LONGEST_SIDE
        image_height = drawn.height - 36
        assert abs(drawn.width / image_height / (width / height) - 1) < 0.1
    bright = np.asarray(drawn)[:500].astype(int).sum()
    assert bright > 0
