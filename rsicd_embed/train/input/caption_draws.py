"""Captions of a train split, and the random images and captions of each epoch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from rsicd_embed.datasets.base import Example
from rsicd_embed.datasets.classes import CAPTION_TEMPLATES, phrases, readable
from rsicd_embed.embedder.training_words import TrainingWords
from rsicd_embed.errors import TrainError
from rsicd_embed.parallel import batched

_AT_ONCE = 8192  # texts tokenized together; the library needs much memory for each


class Tokenize(Protocol):
    """Turns texts into token ids padded with `pad_id`, as `embedder.tokenizer.Tokenizer` does."""

    pad_id: int

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Returns int32 (n, t)."""


@dataclass(frozen=True)
class Ragged:
    """Lists of numbers of different lengths, stored in two arrays.

    Attributes:
        starts: int64 (n + 1,); list i is `values[starts[i] : starts[i + 1]]`.
        values: int32.
    """

    starts: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, lists: Sequence[Sequence[int]]) -> Ragged:
        """Packs lists."""
        starts = np.cumsum([0, *map(len, lists)], dtype=np.int64)
        return cls(starts, np.fromiter((v for row in lists for v in row), np.int32, starts[-1]))

    def draw(self, rows: np.ndarray, where: np.ndarray) -> np.ndarray:
        """Picks a value of each list in `rows`; `where`, in [0, 1), is its relative position."""
        starts = self.starts[rows]
        lengths = self.starts[rows + 1] - starts
        values: np.ndarray = self.values[starts + (where * lengths).astype(np.int64)]
        return values


@dataclass(frozen=True)
class Captions:
    """All distinct texts, and the ones that belong to each image.

    Attributes:
        texts: distinct texts, including class captions.
        tokens: int32 (texts, t).
        same: int32 (texts,); equal for texts with equal tokens, which no model can tell apart (they
            differ in case or whitespace), and, with synonyms, for all captions of a class.
        own: captions of each image.
        of_class: captions made from each image's class name; its own if it has no class.
    """

    texts: tuple[str, ...]
    tokens: np.ndarray
    same: np.ndarray
    own: Ragged
    of_class: Ragged

    @classmethod
    def of(
        cls, examples: Sequence[Example], tokenize: Tokenize, *, synonyms: bool = False
    ) -> Captions:
        """Tokenizes all captions.

        Args:
            examples: images with their captions.
            tokenize: the model's tokenizer.
            synonyms: whether class captions also use synonyms of the class name; all captions of a
                class then count as the same, since each describes every image of it.
        """
        if not examples:
            raise TrainError("expected images in the train split, found none")
        numbers: dict[str, int] = {}

        def number(texts: Iterable[str]) -> list[int]:
            return [numbers.setdefault(text, len(numbers)) for text in dict.fromkeys(texts)]

        own, of_class = [], []
        for example in examples:
            if not example.captions:
                raise TrainError(f"{example.uri}: expected a caption, found none; add one")
            own.append(number(example.captions))
            of_class.append(number(class_captions(example.label, synonyms=synonyms)) or own[-1])
        tokens = _tokens(list(numbers), tokenize)
        rows = np.ascontiguousarray(tokens).view(
            np.dtype((np.void, tokens.itemsize * tokens.shape[1]))
        )
        _, same = np.unique(rows.ravel(), return_inverse=True)
        if synonyms:
            by_label = {
                e.label: texts for e, texts in zip(examples, of_class, strict=True) if e.label
            }
            for texts in by_label.values():
                same[np.isin(same, same[texts])] = same[texts[0]]
        return cls(
            tuple(numbers), tokens, same.astype(np.int32), Ragged.of(own), Ragged.of(of_class)
        )


@dataclass(frozen=True)
class Draws:
    """The random images and captions of an epoch.

    Attributes:
        rows: int32 (n,), images in order.
        texts: int32 (n,), their captions, numbered as in `Captions`.
        seeds: uint64 (n,), random seeds of their views.
    """

    rows: np.ndarray
    texts: np.ndarray
    seeds: np.ndarray


@dataclass(frozen=True)
class Order:
    """Draws images by weight, and a caption for each, anew for every epoch.

    Attributes:
        weights: float (n,), how often each image is drawn per epoch: with weight 2.5, twice, plus a
            random half of all images of this weight once more.
        captions: captions of the same images.
        class_captions: fraction of captions made from class names.
        seed: random seed; combined with the number of the epoch.
    """

    weights: np.ndarray
    captions: Captions
    class_captions: float
    seed: int

    def __len__(self) -> int:
        """Number of images per epoch, counting repetitions."""
        return sum(len(pool) * times + more for pool, times, more in self._pools())

    def epoch(self, number: int) -> Draws:
        """Draws the images of an epoch, according to their weights, in random order."""
        rng = np.random.default_rng([self.seed, number])
        chosen = []
        for pool, times, more in self._pools():
            chosen += [np.tile(pool, times), rng.choice(pool, more, replace=False)]
        rows = rng.permutation(np.concatenate(chosen)).astype(np.int32)
        where = rng.random(len(rows))
        from_class = rng.random(len(rows)) < self.class_captions
        own, of_class = (
            lists.draw(rows, where) for lists in (self.captions.own, self.captions.of_class)
        )
        seeds = rng.integers(2**63, size=len(rows), dtype=np.uint64)
        return Draws(rows, np.where(from_class, of_class, own), seeds)

    def _pools(self) -> list[tuple[np.ndarray, int, int]]:
        """For each weight: its images, how often to draw all, how many to draw once more."""
        pools = []
        for weight in np.unique(self.weights):
            pool = np.flatnonzero(self.weights == weight)
            times = int(weight)
            more = round(float(weight - times) * len(pool))
            pools.append((pool, times, more if times or more else 1))
        return pools


def class_captions(label: str | None, *, synonyms: bool = False) -> list[str]:
    """Makes captions from a class name; none from a label that is not a word."""
    if not readable(label or ""):
        return []
    names = phrases(str(label)) if synonyms else (readable(str(label)),)
    return [template.format(category=name) for name in names for template in CAPTION_TEMPLATES]


def trained_words(
    examples: Sequence[Example], classes: bool, *, synonyms: bool = False
) -> TrainingWords:
    """Counts the words that a text tower is trained on."""
    return TrainingWords.of(
        (
            *example.captions,
            *(class_captions(example.label, synonyms=synonyms) if classes else ()),
        )
        for example in examples
    )


def _tokens(texts: Sequence[str], tokenize: Tokenize) -> np.ndarray:
    parts = [tokenize(part) for part in batched(texts, _AT_ONCE)]
    longest = max(part.shape[1] for part in parts)
    tokens = np.full((len(texts), longest), tokenize.pad_id, np.int32)
    for i, part in enumerate(parts):
        tokens[i * _AT_ONCE : i * _AT_ONCE + len(part), : part.shape[1]] = part
    return tokens
