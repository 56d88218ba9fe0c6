"""The steps from an image file or a text to a vector."""

from __future__ import annotations

import io
from typing import Any

import pytest

from rsicd_embed.bench import synthetic_inputs
from rsicd_embed.embedder.clip.embedder import ClipEmbedder
from rsicd_embed.images import read_rgb

BATCH = 16


@pytest.mark.parametrize("side", [224, 1000])
@pytest.mark.benchmark(group="images")
def test_decode(benchmark: Any, side: int) -> None:
    file = io.BytesIO()
    synthetic_inputs.image(side, seed=0).save(file, "JPEG", quality=85)
    assert benchmark(read_rgb, file.getvalue()).size == (side, side)


@pytest.mark.parametrize("side", [224, 1000])
@pytest.mark.benchmark(group="images")
def test_preprocess(benchmark: Any, embedder: ClipEmbedder, side: int) -> None:
    pixels = benchmark(embedder.preprocess, synthetic_inputs.image(side, seed=0))
    assert pixels.shape == (*embedder.preprocessor.crop, 3)


@pytest.mark.benchmark(group="texts")
def test_tokenise(benchmark: Any, embedder: ClipEmbedder) -> None:
    assert len(benchmark(embedder.tokenizer, synthetic_inputs.texts(BATCH))) == BATCH


@pytest.mark.parametrize("count", [1, BATCH])
@pytest.mark.benchmark(group="images")
def test_embed_pixels(benchmark: Any, embedder: ClipEmbedder, count: int) -> None:
    side = embedder.config.image_size
    pixels = synthetic_inputs.pixels(count, (side, side, 3))
    embedder.embed_pixels(pixels)  # compiles
    assert benchmark(embedder.embed_pixels, pixels).shape == (count, embedder.dim)


@pytest.mark.parametrize("count", [1, BATCH])
@pytest.mark.benchmark(group="texts")
def test_embed_texts(benchmark: Any, embedder: ClipEmbedder, count: int) -> None:
    texts = synthetic_inputs.texts(count)
    embedder.embed_texts(texts)  # compiles
    assert benchmark(embedder.embed_texts, texts).shape == (count, embedder.dim)
