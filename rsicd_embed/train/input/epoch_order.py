"""Which images an epoch has, in which order and with which captions: a function of its number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rsicd_embed.train.input.caption_draws import Captions


@dataclass(frozen=True)
class Draws:
    """An epoch.

    Attributes:
        rows: int32 (n,), the image of each place.
        texts: int32 (n,), the caption of each place, as `Captions` numbers them.
        seeds: uint64 (n,), of the random view of each place.
    """

    rows: np.ndarray
    texts: np.ndarray
    seeds: np.ndarray


@dataclass(frozen=True)
class Order:
    """Draws images by their weights, and a caption for each of them anew in every epoch.

    Attributes:
        weights: float (n,), how often each image is drawn in an epoch: one of weight 2.5 twice,
            and a random half of all that have this weight once more.
        captions: those of the same images.
        class_captions: fraction of captions that are made of class names.
        seed: of every draw, together with the number of the epoch.
    """

    weights: np.ndarray
    captions: Captions
    class_captions: float
    seed: int

    def __len__(self) -> int:
        """Places in an epoch."""
        return sum(len(pool) * times + more for pool, times, more in self._pools())

    def epoch(self, number: int) -> Draws:
        """Every image as often as its weight says, in random order."""
        draw = np.random.default_rng([self.seed, number])
        chosen = []
        for pool, times, more in self._pools():
            chosen += [np.tile(pool, times), draw.choice(pool, more, replace=False)]
        rows = draw.permutation(np.concatenate(chosen)).astype(np.int32)
        where = draw.random(len(rows))
        from_class = draw.random(len(rows)) < self.class_captions
        own, of_class = (
            lists.draw(rows, where) for lists in (self.captions.own, self.captions.of_class)
        )
        seeds = draw.integers(2**63, size=len(rows), dtype=np.uint64)
        return Draws(rows, np.where(from_class, of_class, own), seeds)

    def _pools(self) -> list[tuple[np.ndarray, int, int]]:
        """For each weight: its images, how often all are drawn, how many of them once more."""
        found = []
        for weight in np.unique(self.weights):
            pool = np.flatnonzero(self.weights == weight)
            times = int(weight)
            more = round(float(weight - times) * len(pool))
            found.append((pool, times, more if times or more else 1))
        return found
