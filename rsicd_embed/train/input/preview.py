"""A preview of training input: images, their random views, and the captions drawn for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax
import numpy as np

from rsicd_embed.datasets.base import Example
from rsicd_embed.errors import TrainError
from rsicd_embed.train.config import TrainConfig
from rsicd_embed.train.input.augment import random_view
from rsicd_embed.train.input.captioned_images import Batch, CaptionedImages
from rsicd_embed.train.input.training_data import TrainingData


@dataclass(frozen=True)
class View:
    """A random view of an image.

    Attributes:
        pixels: uint8 (size, size, 3).
        caption: the caption drawn with it.
    """

    pixels: np.ndarray
    caption: str


@dataclass(frozen=True)
class Sample:
    """An image and its views in the first epochs."""

    example: Example
    views: tuple[View, ...]


def samples(
    data: TrainingData, config: TrainConfig, *, images: int, views: int, size: int
) -> list[Sample]:
    """Draws random training images, and views of each as in the first epochs.

    Images are drawn by weight; `size` is the side of a view in pixels. They pass through a run's
    loader and augmentation, but the views differ from those of a run, which has more images.
    """
    if images > len(data.train):
        raise TrainError(
            f"expected at most the {len(data.train)} images of the train split, found {images}; "
            "ask for fewer"
        )
    weights = np.asarray(data.weights)
    rng = np.random.default_rng(config.seed)
    chosen = rng.choice(len(weights), images, replace=False, p=weights / weights.sum())
    examples = [data.train[i] for i in chosen]
    with CaptionedImages(
        examples,
        _Numbers(),
        image_size=size,
        seed=config.seed,
        data=replace(config.data, cache="memory", workers=0),
        augment=config.augment,
    ) as drawn:
        epochs = [next(drawn.epoch(epoch, images)) for epoch in range(views)]
        texts = drawn.captions.texts
    views_by_epoch = [
        _views(batch, texts, config, epoch=epoch, size=size) for epoch, batch in enumerate(epochs)
    ]
    return [
        Sample(example, tuple(epoch[row] for epoch in views_by_epoch))
        for row, example in enumerate(examples)
    ]


class _Numbers:
    """Turns each text into its index instead of tokens."""

    pad_id = 0

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        return np.arange(len(texts), dtype=np.int32)[:, None]


def _views(
    batch: Batch, texts: Sequence[str], config: TrainConfig, *, epoch: int, size: int
) -> dict[int, View]:
    """The view of each image, by row."""
    pixels = batch.pixels
    if pixels.shape[1] > size:
        key = jax.random.fold_in(jax.random.key(config.seed), epoch)
        views = random_view(key, jax.numpy.asarray(pixels), size, config.augment)
        pixels = np.asarray(views).round().astype(np.uint8)
    return {
        int(row): View(image, texts[int(token[0])])
        for row, image, token in zip(batch.rows, pixels, batch.tokens, strict=True)
    }
