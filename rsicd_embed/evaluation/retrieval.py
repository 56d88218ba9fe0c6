"""Text→image and image→text retrieval over images with captions, in the field's protocol.

Every image is a candidate for every caption, and every caption for every image (1,093 × 5,465 on
RSICD's test split): Karpathy & Fei-Fei 2015 (arXiv:1412.2306), as Yuan et al. 2022
(arXiv:2204.09868) and those after them do it on RSICD.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from rsicd_embed.datasets.base import Example
from rsicd_embed.evaluation.bootstrap import Bootstrap, Statistic, intervals, point, weighted_median
from rsicd_embed.evaluation.metrics import RETRIEVAL_KS, rank_of_right, retrieval_metrics

TIES = "a wrong candidate as similar as the best right one stands before it"
OWN = "a caption that stands with several images is right only for the image it is asked for"
CREDITED = "a caption that stands with several images is right for each of them"

_BLOCK = 1 << 23  # similarities held at once, 32 MB


@dataclass(frozen=True)
class CaptionPairs:
    """Captions and the images they stand with.

    Attributes:
        images: how many there are; each has at least one caption.
        distinct: the texts, each once.
        text: int (captions,), places in `distinct`.
        image: int (captions,), places of the images.
    """

    images: int
    distinct: tuple[str, ...]
    text: np.ndarray
    image: np.ndarray

    @classmethod
    def of(cls, examples: Sequence[Example]) -> CaptionPairs:
        """Those of some examples, in their order."""
        pairs = [(i, caption) for i, e in enumerate(examples) for caption in e.captions]
        places = {text: i for i, text in enumerate(dict.fromkeys(text for _, text in pairs))}
        text = np.array([places[text] for _, text in pairs], np.int64)
        image = np.array([i for i, _ in pairs], np.int64)
        return cls(len(examples), tuple(places), text, image)

    @cached_property
    def copies(self) -> dict[tuple[int, int], int]:
        """How often a text stands with an image, by text and image."""
        pairs, counts = np.unique(
            np.stack([self.text, self.image], axis=1), axis=0, return_counts=True
        )
        return {(int(t), int(i)): int(n) for (t, i), n in zip(pairs, counts, strict=True)}

    @property
    def shared(self) -> int:
        """Distinct texts that stand with several images."""
        return int((np.bincount([text for text, _ in self.copies]) > 1).sum())


@dataclass(frozen=True)
class Ranks:
    """Ranks from 1: `i2t` int (images,), `t2i` int (captions,)."""

    i2t: np.ndarray
    t2i: np.ndarray


def rank(
    images: np.ndarray,
    texts: np.ndarray,
    captions: CaptionPairs,
    *,
    credit_duplicates: bool = False,
) -> Ranks:
    """Ranks every caption for every image and the other way round; see `metrics.rank_of_right`.

    Args:
        images: float32 (images, dim), unit vectors.
        texts: float32 (distinct, dim), unit vectors of `captions.distinct`: captions of one text
            tie, whatever rounding does.
        captions: which stands with which.
        credit_duplicates: a text is right for every image that it stands with.
    """
    text, image = captions.text, captions.image
    i2t = np.empty(captions.images, np.int64)
    for block in _blocks(captions.images, len(text)):
        here = (image >= block.start) & (image < block.stop)
        right = np.zeros((block.stop - block.start, len(texts)), bool)
        right[image[here] - block.start, text[here]] = True
        own = image[None, :] == np.arange(block.start, block.stop)[:, None]
        similarities = (images[block] @ texts.T)[:, text]
        i2t[block] = rank_of_right(similarities, right[:, text] if credit_duplicates else own)
    t2i = np.empty(len(text), np.int64)
    by_text = _images_by_text(captions)
    for block in _blocks(len(text), captions.images):
        right = image[block, None] == np.arange(captions.images)
        if credit_duplicates:
            for row, one in enumerate(text[block]):
                right[row, by_text[one]] = True
        t2i[block] = rank_of_right(texts[text[block]] @ images.T, right)
    return Ranks(i2t, t2i)


def ceiling(captions: CaptionPairs, *, credit_duplicates: bool = False) -> dict[str, float]:
    """The metrics of a perfect model, which cannot tell apart what has the same caption.

    A text asked for m images can rank only one of them first, so the best it can do is to rank the
    image it stands with most often first, and so on. An image whose captions all stand with other
    images too finds their copies tied with its own. Images that are the same picture lower the
    ceiling further; that is not counted.
    """
    ones = np.ones(captions.images, np.int64), np.ones(len(captions.text), np.int64)
    if credit_duplicates:
        return retrieval_metrics(*ones)
    i2t, t2i = np.full(captions.images, len(captions.text)), []
    totals = np.bincount(captions.text)
    by_text: dict[int, list[int]] = {}
    for (text, image), count in captions.copies.items():
        i2t[image] = min(i2t[image], 1 + totals[text] - count)
        by_text.setdefault(text, []).append(count)
    for counts in by_text.values():
        ranks = np.arange(1, len(counts) + 1)
        t2i.append(np.repeat(ranks, sorted(counts, reverse=True)))
    return retrieval_metrics(i2t, np.concatenate(t2i))


def statistic(ranks: Ranks, captions: CaptionPairs, ks: Sequence[int] = RETRIEVAL_KS) -> Statistic:
    """R@k both ways, mR and median ranks of images drawn with their captions."""
    own = np.bincount(captions.image, minlength=captions.images).astype(np.float64)
    t2i_hits = {
        k: np.bincount(captions.image, weights=ranks.t2i <= k, minlength=captions.images)
        for k in ks
    }

    def of(drawn: np.ndarray) -> Mapping[str, np.ndarray]:
        total = drawn.sum(axis=1)
        found = {f"i2t_r{k}": drawn @ (ranks.i2t <= k) / total for k in ks}
        found |= {f"t2i_r{k}": drawn @ t2i_hits[k] / (drawn @ own) for k in ks}
        found["mr"] = np.mean(list(found.values()), axis=0)
        found["i2t_median_rank"] = weighted_median(ranks.i2t, drawn)
        found["t2i_median_rank"] = weighted_median(ranks.t2i, drawn[:, captions.image])
        return found

    return of


def report(
    ranks: Ranks, captions: CaptionPairs, bootstrap: Bootstrap, *, credit_duplicates: bool
) -> dict[str, Any]:
    """What a record says of one model on one data set, metrics as fractions."""
    metrics = statistic(ranks, captions)
    return {
        "n": captions.images,
        "captions": len(captions.text),
        "distinct_captions": len(captions.distinct),
        "shared_captions": captions.shared,
        "metrics": point(metrics, captions.images),
        "intervals": intervals(metrics, captions.images, bootstrap),
        "bootstrap": bootstrap.as_json(),
        "ceiling": ceiling(captions, credit_duplicates=credit_duplicates),
        "ties": TIES,
        "duplicates": CREDITED if credit_duplicates else OWN,
    }


def _images_by_text(captions: CaptionPairs) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for text, image in captions.copies:
        found.setdefault(text, []).append(image)
    return found


def _blocks(n: int, width: int) -> list[slice]:
    rows = max(1, _BLOCK // width)
    return [slice(start, min(n, start + rows)) for start in range(0, n, rows)]
