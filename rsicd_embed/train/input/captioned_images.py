"""Batches of captioned images, in an order determined by the seed, the epoch and the step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from rsicd_embed.datasets.base import Example
from rsicd_embed.errors import TrainError
from rsicd_embed.files import Closing
from rsicd_embed.parallel import cpu_count
from rsicd_embed.train.config import AugmentConfig, DataConfig
from rsicd_embed.train.input import pixels
from rsicd_embed.train.input.caption_draws import Captions, Draws, Order, Tokenize
from rsicd_embed.train.input.loader import Arrays, Stream
from rsicd_embed.train.input.pixels import Stored
from rsicd_embed.train.input.torchvision_views import Views, require_torchvision

# Images are stored this much larger than the model's, to leave room for crops.
_MARGIN = 1.125
_MAX_WORKERS = 16
_EPOCHS = 2**31  # more than are ever requested


def stored_side(image_size: int, augment: AugmentConfig) -> int:
    """Side in pixels of stored images, for a model that sees `image_size`."""
    return image_size if augment.engine == "none" else round(image_size * _MARGIN)


def batch_side(image_size: int, augment: AugmentConfig) -> int:
    """Side in pixels of the images in a batch, for a model that sees `image_size`."""
    return stored_side(image_size, augment) if augment.engine == "device" else image_size


@dataclass(frozen=True)
class Batch:
    """The input of one step.

    Attributes:
        pixels: uint8 (b, s, s, 3) with s = `batch_side`.
        tokens: int32 (b, t).
        groups: int32 (b, 2), numbers of the caption and of the image file. Rows that share either
            are not negatives of each other.
        rows: int32 (b,), indices of the images in the train split.
    """

    pixels: np.ndarray
    tokens: np.ndarray
    groups: np.ndarray
    rows: np.ndarray

    def arrays(self, own: np.ndarray) -> dict[str, np.ndarray]:
        """The step's arguments, restricted to the rows `own`: int (n,), ascending."""
        arrays = {"pixels": self.pixels, "tokens": self.tokens, "groups": self.groups}
        if len(own) == len(self.rows):
            return arrays
        return {name: array[own] for name, array in arrays.items()}


class Batches:
    """The batches of all epochs as a sequence; sent to workers."""

    def __init__(self, order: Order, stored: Stored, views: Views | None, batch_size: int) -> None:
        """Prepares the sequence without computing anything."""
        self._order, self._stored, self._views = order, stored, views
        self._batch_size = batch_size
        self._steps = len(order) // batch_size
        self._drawn: tuple[int, Draws] | None = None

    def __len__(self) -> int:
        return _EPOCHS * self._steps

    def __getitem__(self, index: int, /) -> Arrays:
        """The arrays of a `Batch`."""
        epoch, step = divmod(index, self._steps)
        draws = self._draws(epoch)
        batch = slice(step * self._batch_size, (step + 1) * self._batch_size)
        rows, texts = draws.rows[batch], draws.texts[batch]
        images = self._stored.pixels[rows]
        if self._views is not None:
            images = self._views(images, draws.seeds[batch])
        captions = self._order.captions
        return images, captions.tokens[texts], _groups(captions, self._stored, texts, rows), rows

    def _draws(self, epoch: int) -> Draws:
        if self._drawn is None or self._drawn[0] != epoch:
            self._drawn = epoch, self._order.epoch(epoch)
        return self._drawn[1]


class CaptionedImages(Closing):
    """A train split that batches can be drawn from. Close it to end its workers."""

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
            tokenize: the model's tokenizer.
            image_size: height and width of the model's images.
            seed: random seed for the order, the captions, and views made by workers.
            data: how captions are drawn and images are read.
            augment: how images are augmented.
            weights: how often each image is drawn per epoch; once by default.
            least: smallest allowed number of images per epoch: the batch size.
            advance: called with the number of images just read.
        """
        if augment.engine == "torchvision":
            require_torchvision()
        self.captions = Captions.of(examples, tokenize, synonyms=data.class_synonyms)
        each = np.ones(len(examples)) if weights is None else np.asarray(weights, np.float64)
        self._order = Order(each, self.captions, data.class_captions, seed)
        self.steps(least)
        side = stored_side(image_size, augment)
        views = augment.engine == "torchvision"
        self._views = Views(augment, side, image_size) if views else None
        shared = views if data.workers is None else data.workers > 0
        self._stored = pixels.store(examples, side, data.cache, shared=shared, advance=advance)
        self._workers = data.workers or 0
        if data.workers is None and (views or not self._stored.decoded):
            self._workers = min(_MAX_WORKERS, max(1, cpu_count() - 1))
        self._stream: tuple[int, Stream] | None = None

    def __len__(self) -> int:
        """Number of images drawn per epoch, counting repetitions."""
        return len(self._order)

    def steps(self, batch_size: int) -> int:
        """Number of complete batches per epoch."""
        if batch_size > len(self):
            raise TrainError(
                f"expected a batch of at most the {len(self)} images of an epoch, "
                f"found {batch_size}; give a smaller --batch-size"
            )
        return len(self) // batch_size

    def without_negatives(self, number: int, batch_size: int) -> int:
        """Number of batches of an epoch whose images all share a caption or a file."""
        steps = self.steps(batch_size)
        draws = self._order.epoch(number)
        groups = _groups(self.captions, self._stored, draws.texts, draws.rows)
        by_batch = groups[: steps * batch_size].reshape(steps, batch_size, 2)
        return int((by_batch == by_batch[:, :1]).all(axis=1).any(axis=1).sum())

    def epoch(self, number: int, batch_size: int, start: int = 0) -> Iterator[Batch]:
        """Yields the batches of an epoch from `start` on, with a new caption for each image.

        The next batches, also those of the next epoch, are prepared meanwhile.
        """
        steps = self.steps(batch_size)
        stream = self._stream_from(number * steps + start, batch_size)
        for _ in range(start, steps):
            yield Batch(*next(stream))

    def close(self) -> None:
        """Ends the workers."""
        if self._stream is not None:
            self._stream[1].close()
            self._stream = None

    def _stream_from(self, index: int, batch_size: int) -> Stream:
        """Continues the current stream if it is at `index`, else opens a new one."""
        if self._stream is not None:
            size, stream = self._stream
            if (size, stream.index) == (batch_size, index):
                return stream
            self.close()
        batches = Batches(self._order, self._stored, self._views, batch_size)
        stream = Stream(batches, index, self._workers)
        self._stream = batch_size, stream
        return stream


def _groups(captions: Captions, stored: Stored, texts: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """`Batch.groups` of int (n,) captions and images."""
    return np.stack([captions.same[texts], stored.same[rows]], axis=1)
