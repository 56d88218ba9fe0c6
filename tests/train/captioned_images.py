"""Helpers for tests of the input pipeline: small captioned images and their batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rsicd_embed.datasets.base import Example
from rsicd_embed.train.config import AugmentConfig, DataConfig
from rsicd_embed.train.input.captioned_images import Batch, CaptionedImages

SIZE = 8


class Numbers:
    """Turns each text into one token, its index."""

    pad_id = -1

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        return np.arange(len(texts), dtype=np.int32)[:, None]


def grey(i: int, size: int = 9) -> Image.Image:
    """An image whose every pixel has the value i."""
    return Image.fromarray(np.full((size, size, 3), i, np.uint8))


def examples(folder: Path, captions: Sequence[Sequence[str]]) -> list[Example]:
    """Makes an image for each list of captions; image i is `grey(i)`."""
    split = []
    for i, own in enumerate(captions):
        path = folder / f"beach_{i}.png"
        grey(i).save(path)
        split.append(Example(path.name, str(path), {"captions": list(own), "label": "beach"}))
    return split


def opened(
    split: Sequence[Example],
    *,
    seed: int = 0,
    weights: Sequence[float] | None = None,
    engine: str = "none",
    **data: Any,
) -> CaptionedImages:
    """Opens a train split, by default in memory."""
    config = DataConfig(**{"class_captions": 0.0, "workers": 0, "cache": "memory", **data})
    return CaptionedImages(
        split,
        Numbers(),
        image_size=SIZE,
        seed=seed,
        data=config,
        augment=AugmentConfig(engine=engine),
        weights=weights,
    )


def same(first: Batch, second: Batch) -> None:
    """Asserts that two batches are equal bit for bit."""
    for name in ("pixels", "tokens", "groups", "rows"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
