"""Evaluation of captioners: metrics with intervals, beside two baselines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from rsicd_embed.datasets.base import Example
from rsicd_embed.errors import DatasetError
from rsicd_embed.evaluation.caption_metrics import CaptionScores, score_captions
from rsicd_embed.evaluation.metrics import Bootstrap, intervals, point
from rsicd_embed.reports.evaluation_types import CaptionBaseline, CaptionEvaluation

NEAREST, MOST_FREQUENT = "nearest", "most_frequent"
_ROWS = 512


def caption_point(captions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """The metrics of captions, one per image, against the reference captions of the images."""
    return point(score_captions(captions, references).statistic, len(captions))


def nearest_captions(
    vectors: np.ndarray, train_vectors: np.ndarray, train: Sequence[Example]
) -> list[str]:
    """The first caption of the most similar training image, for each vector.

    Args:
        vectors: float32 (n, d), unit vectors.
        train_vectors: float32 (m, d), of the training images.
        train: the training images, each with captions.
    """
    nearest = [
        (vectors[start : start + _ROWS] @ train_vectors.T).argmax(axis=1)
        for start in range(0, len(vectors), _ROWS)
    ]
    return [train[row].captions[0] for row in np.concatenate(nearest).tolist()]


def most_frequent_caption(train: Sequence[Example]) -> str:
    """The most frequent caption of the training images; the first in order among equals.

    Raises:
        DatasetError: they have no captions.
    """
    counts = Counter(caption for example in train for caption in example.captions)
    if not counts:
        raise DatasetError("expected captions of training images, found none")
    return min(counts, key=lambda caption: (-counts[caption], caption))


def evaluate_captions(
    captions: Sequence[str],
    references: Sequence[Sequence[str]],
    baselines: Mapping[str, Sequence[str]],
    bootstrap: Bootstrap,
) -> CaptionEvaluation:
    """Scores captions, one per image, and those of baselines.

    Args:
        captions: generated captions.
        references: the captions of each image.
        baselines: captions of the same images by the name of the baseline.
        bootstrap: settings of the intervals, which are over images.

    Raises:
        DatasetError: there are no images, or an image without reference.
    """
    scores = score_captions(captions, references)
    count = len(captions)
    return {
        "n": count,
        "references": sum(map(len, references)),
        "metrics": point(scores.statistic, count),
        "intervals": intervals(scores.statistic, count, bootstrap),
        "bootstrap": bootstrap.as_json(),
        "distinct": len(set(captions)),
        "baselines": {
            name: _baseline(scores, score_captions(texts, references), bootstrap)
            for name, texts in baselines.items()
        },
    }


def _baseline(
    scores: CaptionScores, baseline: CaptionScores, bootstrap: Bootstrap
) -> CaptionBaseline:
    """The metrics of a baseline, and by how much the captions exceed them on the same images."""
    count = len(scores.rouge_l)

    def margin(counts: np.ndarray) -> Mapping[str, np.ndarray]:
        other = baseline.statistic(counts)
        return {name: own - other[name] for name, own in scores.statistic(counts).items()}

    return {
        "metrics": point(baseline.statistic, count),
        "margin": point(margin, count),
        "margin_intervals": intervals(margin, count, bootstrap),
    }
