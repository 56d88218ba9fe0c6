"""Captioned images → batches, in an order that the seed, the epoch and the step decide."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from rsicd_embed.datasets.base import Example
from rsicd_embed.errors import TrainError
from rsicd_embed.files import Closing
from rsicd_embed.parallel import cpu_count
from rsicd_embed.train.config import AugmentConfig, DataConfig
from rsicd_embed.train.input import pixels
from rsicd_embed.train.input.batches import Batch, Batches, group_numbers
from rsicd_embed.train.input.caption_draws import Captions, Tokenize
from rsicd_embed.train.input.epoch_order import Order
from rsicd_embed.train.input.loader import Stream
from rsicd_embed.train.input.views import Views, require_torchvision

# Images are kept this much larger than the model's, so that crops have room to move.
_MARGIN = 1.125
_MOST_WORKERS = 16

__all__ = ["Batch", "CaptionedImages", "batch_side", "stored_side"]


def stored_side(image_size: int, augment: AugmentConfig) -> int:
    """Height and width that images are kept in, for a model that sees `image_size`."""
    return image_size if augment.engine == "none" else round(image_size * _MARGIN)


def batch_side(image_size: int, augment: AugmentConfig) -> int:
    """Height and width of the pixels in a batch, for a model that sees `image_size`."""
    return stored_side(image_size, augment) if augment.engine == "device" else image_size


class CaptionedImages(Closing):
    """A train split, ready to be drawn from. Close it to end its workers."""

    def __init__(
        self,
        examples: Sequence[Example],
        tokenize: Tokenize,
        *,
        image_size: int,
        seed: int,
        data: DataConfig,
        augment: AugmentConfig,
        weights: Sequence[float] | None = None,
        least: int = 1,
        advance: pixels.Advance = lambda done: None,
    ) -> None:
        """Reads all images and tokenizes all captions once.

        Args:
            examples: images with captions.
            tokenize: texts → token ids.
            image_size: height and width that the model sees.
            seed: of the order, the captions, and the views that workers make.
            data: how captions are drawn and images are read.
            augment: how images are varied.
            weights: how often each image is drawn in an epoch; once if it is not said.
            least: images that an epoch must draw, a batch.
            advance: called with the number of images just read.

        Raises:
            TrainError: no examples, or fewer than `least`, one without a caption, an image that
                cannot be read, or torchvision is wanted and not installed.
        """
        if augment.engine == "torchvision":
            require_torchvision()
        self.captions = Captions.of(examples, tokenize, synonyms=data.class_synonyms)
        each = np.ones(len(examples)) if weights is None else np.asarray(weights, np.float64)
        self._order = Order(each, self.captions, data.class_captions, seed)
        self.steps(least)
        side = stored_side(image_size, augment)
        varied = augment.engine == "torchvision"
        self._views = Views(augment, side, image_size) if varied else None
        shared = varied if data.workers is None else data.workers > 0
        self._stored = pixels.store(examples, side, data.cache, shared=shared, advance=advance)
        self._workers = data.workers or 0
        if data.workers is None and (varied or not self._stored.decoded):
            self._workers = min(_MOST_WORKERS, max(1, cpu_count() - 1))
        self._stream: tuple[int, Stream] | None = None

    def __len__(self) -> int:
        """Images that an epoch draws, those that are drawn twice counted twice."""
        return len(self._order)

    def steps(self, batch_size: int) -> int:
        """Batches in an epoch; the last, short one is left out.

        Raises:
            TrainError: there is none.
        """
        if batch_size > len(self):
            raise TrainError(
                f"expected a batch of at most the {len(self)} images that an epoch draws, "
                f"found {batch_size}; give a smaller --batch-size"
            )
        return len(self) // batch_size

    def without_negatives(self, number: int, batch_size: int) -> int:
        """How many batches of an epoch have no two images that do not describe each other.

        Those are batches of one caption, or of one image file: see `loss.positives`.
        """
        steps = self.steps(batch_size)
        draws = self._order.epoch(number)
        groups = group_numbers(self.captions, self._stored, draws.texts, draws.rows)
        by_batch = groups[: steps * batch_size].reshape(steps, batch_size, 2)
        return int((by_batch == by_batch[:, :1]).all(axis=1).any(axis=1).sum())

    def epoch(self, number: int, batch_size: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from `start` on, each image with one caption, drawn anew.

        While one is used, the next ones are made, those of the next epoch too.

        Raises:
            TrainError: the batch is larger than the epoch, or an image cannot be read any more.
        """
        steps = self.steps(batch_size)
        stream = self._from(number * steps + start, batch_size)
        for _ in range(start, steps):
            yield Batch(*next(stream))

    def close(self) -> None:
        """Ends the workers."""
        if self._stream is not None:
            self._stream[1].close()
            self._stream = None

    def _from(self, index: int, batch_size: int) -> Stream:
        """Goes on with the stream that is there, if that is where it stands."""
        if self._stream is not None:
            size, stream = self._stream
            if (size, stream.index) == (batch_size, index):
                return stream
            self.close()
        batches = Batches(self._order, self._stored, self._views, batch_size)
        stream = Stream(batches, index, self._workers)
        self._stream = batch_size, stream
        return stream
