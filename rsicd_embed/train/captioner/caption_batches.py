"""Batches of vectors and the tokens of their captions, of similar length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from rsicd_embed.captioning.vocabulary import Vocabulary
from rsicd_embed.datasets.base import Example
from rsicd_embed.errors import TrainError
from rsicd_embed.train.captioner.caption_step import IMAGES, TOKENS, VECTORS, WEIGHTS

_SORTED_TOGETHER = 8  # batches whose captions are sorted by length
_MULTIPLE = 4  # of the padded length: each length is compiled


@dataclass(frozen=True)
class CaptionedVectors:
    """Vectors of views of images, and the tokens of their captions.

    Attributes:
        vectors: float32 (views, n, d).
        tokens: the tokens of each caption of each image, with the end.
        weights: float (n,), how often each image is drawn per epoch.
        longest: largest number of tokens in a caption, with its end.
        seed: random seed.
    """

    vectors: np.ndarray
    tokens: tuple[tuple[tuple[int, ...], ...], ...]
    weights: np.ndarray
    longest: int
    seed: int

    @classmethod
    def of(
        cls,
        vectors: np.ndarray,
        examples: Sequence[Example],
        weights: Sequence[float],
        vocabulary: Vocabulary,
        max_words: int,
        seed: int,
    ) -> CaptionedVectors:
        """Encodes the captions; those longer than `max_words` are cut and have no end."""
        tokens = tuple(
            tuple(
                tuple([*vocabulary.encode(caption), vocabulary.end][: max_words + 1])
                for caption in example.captions
            )
            for example in examples
        )
        return cls(vectors, tokens, np.asarray(weights, float), max_words + 1, seed)

    def steps(self, batch_size: int) -> int:
        """Number of steps per epoch; the images that fill no batch are left out at random.

        Raises:
            TrainError: there are fewer images than a batch.
        """
        drawn = round(float(self.weights.sum()))
        if drawn < batch_size:
            raise TrainError(
                f"expected at least a batch of {batch_size} images, found {drawn}; give a smaller "
                "--batch-size"
            )
        return drawn // batch_size

    def epoch(
        self, epoch: int, batch_size: int, own: np.ndarray, skip: int = 0
    ) -> Iterator[dict[str, np.ndarray]]:
        """The batches of an epoch, each with a random caption and view of its images.

        Args:
            epoch: number of the epoch, from 0.
            batch_size: images per batch.
            own: rows of each batch that this process feeds.
            skip: number of batches that were trained on already.
        """
        rng = np.random.default_rng([self.seed, epoch])
        steps = self.steps(batch_size)
        ends = np.cumsum(self.weights)
        places = np.arange(round(float(ends[-1]))) + rng.random()
        rows = np.searchsorted(ends, np.minimum(places, ends[-1] - 1e-9), side="right")
        rows = rng.permutation(rows)[: steps * batch_size]
        views = rng.integers(len(self.vectors), size=len(rows))
        captions = [
            self.tokens[row][int(draw * len(self.tokens[row]))]
            for row, draw in zip(rows, rng.random(len(rows)), strict=True)
        ]
        lengths = np.array([len(caption) for caption in captions])
        batches: list[np.ndarray] = []
        for start in range(0, len(rows), _SORTED_TOGETHER * batch_size):
            part = np.arange(start, min(start + _SORTED_TOGETHER * batch_size, len(rows)))
            part = part[np.argsort(lengths[part], kind="stable")]
            batches += np.split(part, len(part) // batch_size)
        for number in rng.permutation(len(batches))[skip:]:
            chosen = batches[number]
            length = -(-int(lengths[chosen].max()) // _MULTIPLE) * _MULTIPLE
            length = min(length, self.longest)
            tokens = np.zeros((batch_size, length), np.int32)
            weights = np.zeros((batch_size, length), np.float32)
            for row, place in enumerate(chosen):
                tokens[row, : lengths[place]] = captions[place]
                weights[row, : lengths[place]] = 1
            vectors = self.vectors[views[chosen], rows[chosen]].astype(np.float32)
            batch = {VECTORS: vectors, TOKENS: tokens, WEIGHTS: weights, IMAGES: rows[chosen]}
            yield {name: array[own] for name, array in batch.items()}
