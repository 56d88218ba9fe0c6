"""Text→image and image→text retrieval R@k over images with captions, by the published protocol.

Every image is a candidate for every caption, and every caption for every image (1,093 × 5,465 on
RSICD's test split): Karpathy & Fei-Fei 2015 (arXiv:1412.2306), and on RSICD Yuan et al. 2022
(arXiv:2204.09868) and later papers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rsicd_embed.datasets.base import Example
from rsicd_embed.evaluation.metrics import (
    RETRIEVAL_KS,
    Bootstrap,
    Statistic,
    intervals,
    point,
    rank_of_right,
    retrieval_metrics,
    weighted_median,
)
from rsicd_embed.reports.evaluation_types import RetrievalScores

TIES = "a wrong candidate as similar as the best right one ranks above it"
ARGSORT = "candidates of the same similarity rank in the dataset's order, as by a stable argsort"
OWN = "a caption shared by several images is right only for the image it is queried for"
CREDITED = "a caption shared by several images is right for each of them"

_BLOCK = 1 << 23  # similarities in memory at once, 32 MB


@dataclass(frozen=True)
class CaptionPairs:
    """Captions and their images.

    Attributes:
        images: number of images; each has at least one caption.
        distinct: the distinct texts.
        text: int (captions,), position of each caption in `distinct`.
        image: int (captions,), position of its image.
    """

    images: int
    distinct: tuple[str, ...]
    text: np.ndarray
    image: np.ndarray

    @classmethod
    def of(cls, examples: Sequence[Example]) -> CaptionPairs:
        """The captions of examples, in their order."""
        pairs = [(i, caption) for i, e in enumerate(examples) for caption in e.captions]
        places = {text: i for i, text in enumerate(dict.fromkeys(text for _, text in pairs))}
        text = np.array([places[text] for _, text in pairs], np.int64)
        image = np.array([i for i, _ in pairs], np.int64)
        return cls(len(examples), tuple(places), text, image)

    @cached_property
    def copies(self) -> dict[tuple[int, int], int]:
        """Number of times that a text is a caption of an image, by text and image."""
        pairs, counts = np.unique(
            np.stack([self.text, self.image], axis=1), axis=0, return_counts=True
        )
        return {(int(t), int(i)): int(n) for (t, i), n in zip(pairs, counts, strict=True)}

    @property
    def shared(self) -> int:
        """Number of distinct texts that are captions of several images."""
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
    in_order: bool = False,
) -> Ranks:
    """Ranks all captions for each image, and all images for each caption.

    See `metrics.rank_of_right`.

    Args:
        images: float32 (images, dim), unit vectors.
        texts: float32 (distinct, dim), unit vectors of `captions.distinct`; captions with the same
            text therefore tie exactly.
        captions: which caption belongs to which image.
        credit_duplicates: a text is right for every image that has it as a caption.
        in_order: ties rank in the order of the captions or images; see `metrics.rank_of_right`.
    """
    text, image = captions.text, captions.image
    i2t = np.empty(captions.images, np.int64)
    for block in _blocks(captions.images, len(text)):
        in_block = (image >= block.start) & (image < block.stop)
        right = np.zeros((block.stop - block.start, len(texts)), bool)
        right[image[in_block] - block.start, text[in_block]] = True
        own = image[None, :] == np.arange(block.start, block.stop)[:, None]
        similarities = (images[block] @ texts.T)[:, text]
        own = right[:, text] if credit_duplicates else own
        i2t[block] = rank_of_right(similarities, own, in_order=in_order)
    t2i = np.empty(len(text), np.int64)
    by_text: dict[int, list[int]] = {}
    for text_place, image_place in captions.copies:
        by_text.setdefault(text_place, []).append(image_place)
    for block in _blocks(len(text), captions.images):
        right = image[block, None] == np.arange(captions.images)
        if credit_duplicates:
            for row, text_place in enumerate(text[block]):
                right[row, by_text[text_place]] = True
        t2i[block] = rank_of_right(texts[text[block]] @ images.T, right, in_order=in_order)
    return Ranks(i2t, t2i)


def ceiling(captions: CaptionPairs, *, credit_duplicates: bool = False) -> dict[str, float]:
    """The metrics of a perfect model, which cannot distinguish images with the same caption.

    For a text shared by several images, the best order ranks the image that has it most often
    first, and so on. An image whose captions are all shared ties with their copies. Identical
    images lower the ceiling further; this is not counted.
    """
    if credit_duplicates:
        perfect = np.ones(captions.images, np.int64), np.ones(len(captions.text), np.int64)
        return retrieval_metrics(*perfect)
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
    """R@k in both directions, mR and median ranks as a statistic for the bootstrap.

    Images are drawn with their captions.
    """
    own = np.bincount(captions.image, minlength=captions.images).astype(np.float64)
    t2i_hits = {
        k: np.bincount(captions.image, weights=ranks.t2i <= k, minlength=captions.images)
        for k in ks
    }

    def metrics(drawn: np.ndarray) -> Mapping[str, np.ndarray]:
        total = drawn.sum(axis=1)
        rates = {f"i2t_r{k}": drawn @ (ranks.i2t <= k) / total for k in ks}
        rates |= {f"t2i_r{k}": drawn @ t2i_hits[k] / (drawn @ own) for k in ks}
        return {
            **rates,
            "mr": np.mean(list(rates.values()), axis=0),
            "i2t_median_rank": weighted_median(ranks.i2t, drawn),
            "t2i_median_rank": weighted_median(ranks.t2i, drawn[:, captions.image]),
        }

    return metrics


def report(
    ranks: Ranks,
    in_order: Ranks,
    captions: CaptionPairs,
    bootstrap: Bootstrap,
    *,
    credit_duplicates: bool,
) -> RetrievalScores:
    """Scores of one model on one dataset, for a record; `in_order` are ranks as in `ARGSORT`."""
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
        "argsort": retrieval_metrics(in_order.i2t, in_order.t2i),
        "argsort_ties": ARGSORT,
        "duplicates": CREDITED if credit_duplicates else OWN,
    }


def _blocks(n: int, width: int) -> list[slice]:
    rows = max(1, _BLOCK // width)
    return [slice(start, min(n, start + rows)) for start in range(0, n, rows)]
