"""A batch by its number: what workers compute."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rsicd_embed.train.input.caption_draws import Captions
from rsicd_embed.train.input.epoch_order import Draws, Order
from rsicd_embed.train.input.loader import Arrays
from rsicd_embed.train.input.pixels import Stored
from rsicd_embed.train.input.views import Views

_EPOCHS = 2**31


@dataclass(frozen=True)
class Batch:
    """One step's worth.

    Attributes:
        pixels: uint8 (b, s, s, 3), s of `data.batch_side`.
        tokens: int32 (b, t).
        groups: int32 (b, 2), numbers of the caption and of the image file. Two places where either
            is equal are no negatives of each other: the caption of one describes the other.
        rows: int32 (b,), the places of the images in the train split.
    """

    pixels: np.ndarray
    tokens: np.ndarray
    groups: np.ndarray
    rows: np.ndarray

    def arrays(self, own: np.ndarray) -> dict[str, np.ndarray]:
        """What a step takes, of the places `own` alone: int (n,), ascending."""
        found = {"pixels": self.pixels, "tokens": self.tokens, "groups": self.groups}
        if len(own) == len(self.rows):
            return found
        return {name: array[own] for name, array in found.items()}


def group_numbers(
    captions: Captions, stored: Stored, texts: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    """int32 (n, 2): see `Batch.groups`, of int (n,) captions and images."""
    return np.stack([captions.same[texts], stored.same[rows]], axis=1)


class Batches:
    """The batches of all epochs, one after the other."""

    def __init__(self, order: Order, stored: Stored, views: Views | None, batch_size: int) -> None:
        """Takes what batches are made of.

        Args:
            order: draws images and captions.
            stored: the images.
            views: makes random views of them, or None to give them as they are.
            batch_size: the last, short batch of an epoch is left out.
        """
        self._order, self._stored, self._views = order, stored, views
        self._batch_size = batch_size
        self._steps = len(order) // batch_size
        self._drawn: tuple[int, Draws] | None = None

    def __len__(self) -> int:
        """More than are ever asked for."""
        return _EPOCHS * self._steps

    def __getitem__(self, index: int, /) -> Arrays:
        """The arrays of a `Batch`."""
        epoch, step = divmod(index, self._steps)
        draws = self._draws(epoch)
        places = slice(step * self._batch_size, (step + 1) * self._batch_size)
        rows, texts = draws.rows[places], draws.texts[places]
        pixels = self._stored.pixels[rows]
        if self._views is not None:
            pixels = self._views(pixels, draws.seeds[places])
        captions = self._order.captions
        groups = group_numbers(captions, self._stored, texts, rows)
        return pixels, captions.tokens[texts], groups, rows

    def _draws(self, epoch: int) -> Draws:
        drawn = self._drawn
        if drawn is None or drawn[0] != epoch:
            drawn = self._drawn = epoch, self._order.epoch(epoch)
        return drawn[1]
