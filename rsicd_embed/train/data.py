"""Captioned images in memory → batches, in an order that the seed and the epoch decide."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from rsicd_embed.datasets.base import Example
from rsicd_embed.datasets.classes import CAPTION_TEMPLATES, readable
from rsicd_embed.errors import ImageError, TrainError
from rsicd_embed.images import read_rgb
from rsicd_embed.parallel import ordered_map

# Images are kept this much larger than the model's, so that crops have room to move.
_MARGIN = 1.125


def stored_side(image_size: int) -> int:
    """Height and width of the pixels in a batch, for a model that sees `image_size`."""
    return round(image_size * _MARGIN)


@dataclass(frozen=True)
class Batch:
    """One step's worth.

    Attributes:
        pixels: uint8 (b, s, s, 3), a margin larger than what the model sees.
        tokens: int32 (b, t).
        groups: int32 (b,); equal where captions are the same text, so that they are no negatives.
    """

    pixels: np.ndarray
    tokens: np.ndarray
    groups: np.ndarray


def load_pixels(examples: Sequence[Example], side: int) -> np.ndarray:
    """Images, resized to squares: uint8 (n, side, side, 3).

    Raises:
        TrainError: one of them cannot be read.
    """

    def read(example: Example) -> np.ndarray:
        try:
            image = read_rgb(example.path)
        except ImageError as error:
            raise TrainError(f"{example.path}: {error}; mend or leave out this image") from error
        return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC))

    pixels = np.empty((len(examples), side, side, 3), np.uint8)
    for i, one in enumerate(ordered_map(read, examples, ahead=256)):
        pixels[i] = one
    return pixels


class CaptionedImages:
    """A train split, ready to be drawn from."""

    def __init__(
        self,
        examples: Sequence[Example],
        tokenize: Callable[[Sequence[str]], np.ndarray],
        *,
        side: int,
        class_captions: float,
        seed: int,
    ) -> None:
        """Reads and tokenizes everything once.

        Raises:
            TrainError: no examples, one without a caption, or an image that cannot be read.
        """
        if not examples:
            raise TrainError("expected images in the train split, found none")
        for example in examples:
            if not example.captions:
                raise TrainError(f"{example.id}: expected a caption, found none; add one")
        texts: dict[str, int] = {}

        def text_id(text: str) -> int:
            return texts.setdefault(text, len(texts))

        self._captions = [[text_id(c) for c in dict.fromkeys(e.captions)] for e in examples]
        self._class_captions = [
            [text_id(t.format(category=readable(e.label))) for t in CAPTION_TEMPLATES]
            if e.label
            else captions
            for e, captions in zip(examples, self._captions, strict=True)
        ]
        self._tokens = tokenize(list(texts))
        self._pixels = load_pixels(examples, side)
        self._fraction = class_captions
        self._seed = seed

    def __len__(self) -> int:
        return len(self._pixels)

    def epoch(self, number: int, batch_size: int) -> Iterator[Batch]:
        """Every image once with one caption, drawn anew; the last, short batch is left out."""
        rng = np.random.default_rng([self._seed, number])
        order = rng.permutation(len(self))
        for start in range(0, len(order) - batch_size + 1, batch_size):
            rows = order[start : start + batch_size]
            from_class = rng.random(batch_size) < self._fraction
            draws = rng.random(batch_size)
            groups = np.empty(batch_size, np.int32)
            for i, row in enumerate(rows):
                choices = self._class_captions[row] if from_class[i] else self._captions[row]
                groups[i] = choices[int(draws[i] * len(choices))]
            yield Batch(self._pixels[rows], self._tokens[groups], groups)
