"""Captions of a train split, tokenized once, and how one is drawn for each image."""

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

_AT_ONCE = 8192  # texts tokenized together; what the library keeps of each is large


class Tokenize(Protocol):
    """Texts → token ids, padded with `pad_id`; `embedder.tokenizer.Tokenizer` is one."""

    pad_id: int

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Texts → int32 (n, t)."""


@dataclass(frozen=True)
class Ragged:
    """Lists of numbers of different lengths, in two arrays.

    Attributes:
        starts: int64 (n + 1,); list i is `values[starts[i] : starts[i + 1]]`.
        values: int32.
    """

    starts: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, lists: Iterable[Sequence[int]]) -> Ragged:
        """From lists."""
        kept = list(lists)
        starts = np.cumsum([0, *map(len, kept)], dtype=np.int64)
        return cls(starts, np.fromiter((v for one in kept for v in one), np.int32, starts[-1]))

    def draw(self, rows: np.ndarray, where: np.ndarray) -> np.ndarray:
        """A value of each list of `rows`: the first for `where` 0, the last for `where` below 1."""
        starts = self.starts[rows]
        lengths = self.starts[rows + 1] - starts
        found: np.ndarray = self.values[starts + (where * lengths).astype(np.int64)]
        return found


@dataclass(frozen=True)
class Captions:
    """Every distinct text, and which of them belong to each image.

    Attributes:
        texts: the distinct texts, class captions included.
        tokens: int32 (texts, t).
        same: int32 (texts,); equal for texts that have the same tokens, which no model can tell
            apart: they differ in case or in spaces; with synonyms, for all captions of a class.
        own: the captions of each image.
        of_class: captions made of each image's class name; its own where it has no class.
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
            synonyms: whether class captions also use other words for the class; all captions of a
                class then count as the same, since each describes every image of it.

        Raises:
            TrainError: no examples, or one without a caption.
        """
        if not examples:
            raise TrainError("expected images in the train split, found none")
        known: dict[str, int] = {}

        def number(texts: Iterable[str]) -> list[int]:
            return [known.setdefault(text, len(known)) for text in dict.fromkeys(texts)]

        own, of_class = [], []
        for example in examples:
            if not example.captions:
                raise TrainError(f"{example.uri}: expected a caption, found none; add one")
            mine = number(example.captions)
            own.append(mine)
            of_class.append(number(class_captions(example.label, synonyms=synonyms)) or mine)
        tokens = _tokens(list(known), tokenize)
        rows = np.ascontiguousarray(tokens).view(
            np.dtype((np.void, tokens.itemsize * tokens.shape[1]))
        )
        _, same = np.unique(rows.ravel(), return_inverse=True)
        if synonyms:
            by_label = {
                e.label: made for e, made in zip(examples, of_class, strict=True) if e.label
            }
            for made in by_label.values():
                same[np.isin(same, same[made])] = same[made[0]]
        return cls(tuple(known), tokens, same.astype(np.int32), Ragged.of(own), Ragged.of(of_class))


def class_captions(label: str | None, *, synonyms: bool = False) -> list[str]:
    """Captions made from a class name; none for a label that names nothing.

    Args:
        label: the class as the dataset writes it.
        synonyms: whether other words for the class are used too.
    """
    if not readable(label or ""):
        return []
    names = phrases(str(label)) if synonyms else (readable(str(label)),)
    return [template.format(category=name) for name in names for template in CAPTION_TEMPLATES]


def trained_words(
    examples: Sequence[Example], classes: bool, *, synonyms: bool = False
) -> TrainingWords:
    """The words of captions.

    Args:
        examples: training images.
        classes: whether captions made from their class names are used too.
        synonyms: whether those use other words for the class too.
    """
    return TrainingWords.of(
        (
            *example.captions,
            *(class_captions(example.label, synonyms=synonyms) if classes else ()),
        )
        for example in examples
    )


def _tokens(texts: Sequence[str], tokenize: Tokenize) -> np.ndarray:
    parts = [tokenize(some) for some in batched(texts, _AT_ONCE)]
    longest = max(part.shape[1] for part in parts)
    tokens = np.full((len(texts), longest), tokenize.pad_id, np.int32)
    for i, part in enumerate(parts):
        tokens[i * _AT_ONCE : i * _AT_ONCE + len(part), : part.shape[1]] = part
    return tokens
