"""Gains and losses of a model relative to a baseline, on data of its domain and of others.

Both models are evaluated on the same images, so differences are paired: the bootstrap draws images
and computes the difference of both models on the drawn ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rsicd_embed.datasets.base import Example
from rsicd_embed.embedder.base import Embedder
from rsicd_embed.errors import DatasetError
from rsicd_embed.evaluation import retrieval, zeroshot
from rsicd_embed.evaluation.dataset import EvalSet, Labelled, labelled, with_captions
from rsicd_embed.evaluation.metrics import Bootstrap, Statistic, intervals, point
from rsicd_embed.evaluation.retrieval import CaptionPairs
from rsicd_embed.reports.evaluation_types import MetricChange


@dataclass(frozen=True)
class Tasks:
    """The tasks that a dataset supports.

    Attributes:
        split: name of the split.
        examples: all images of the split.
        labelled: the labelled images; None if there are no classes.
        captioned: int (n,), the examples with captions, and the captions; None if there are none.
        left_out: reason why a task is not supported.
    """

    split: str
    examples: tuple[Example, ...]
    labelled: Labelled | None
    captioned: tuple[np.ndarray, CaptionPairs] | None
    left_out: tuple[str, ...] = ()


def tasks(evalset: EvalSet, split: str | None) -> Tasks:
    """Zero-shot classification if there are labels, retrieval if there are captions.

    Raises:
        DatasetError: there are neither.
    """
    name, examples = evalset.split(split)
    classes, captions, reasons = None, None, []
    try:
        classes = labelled(evalset, examples)
    except DatasetError as error:
        reasons.append(str(error))
    try:
        rows = with_captions(evalset, examples)
        captions = rows, CaptionPairs.of([examples[row] for row in rows])
    except DatasetError as error:
        reasons.append(str(error))
    if classes is None and captions is None:
        raise DatasetError("; ".join(reasons))
    return Tasks(name, examples, classes, captions, tuple(reasons))


@dataclass(frozen=True)
class ModelRanks:
    """Ranks of one model: int (labelled,) of the correct classes, and of retrieval."""

    zeroshot: np.ndarray | None
    retrieval: retrieval.Ranks | None


def model_ranks(
    tasks: Tasks,
    embedder: Embedder,
    images: np.ndarray,
    texts: np.ndarray | None,
    prompts: Sequence[str],
) -> ModelRanks:
    """Computes the ranks of a model from its vectors.

    Args:
        tasks: the tasks.
        embedder: the model, which embeds the prompts.
        images: float32 (examples, dim).
        texts: float32 (distinct captions, dim); None if there are none.
        prompts: texts with `{category}`.
    """
    class_ranks, caption_ranks = None, None
    if (chosen := tasks.labelled) is not None:
        names = zeroshot.class_names(chosen.classes)
        vectors = zeroshot.class_vectors(embedder, names, prompts)
        class_ranks = zeroshot.classify(
            images[chosen.rows], vectors, chosen.labels, chosen.classes
        ).ranks
    if tasks.captioned is not None and texts is not None:
        rows, captions = tasks.captioned
        caption_ranks = retrieval.rank(images[rows], texts, captions)
    return ModelRanks(class_ranks, caption_ranks)


def report(
    tasks: Tasks, model: ModelRanks, baseline: ModelRanks, bootstrap: Bootstrap
) -> dict[str, MetricChange]:
    """The metrics of both models, their differences, and intervals of these."""
    changes: dict[str, MetricChange] = {}
    if model.zeroshot is not None and baseline.zeroshot is not None:
        pair = zeroshot.statistic(model.zeroshot), zeroshot.statistic(baseline.zeroshot)
        compared = _compare(*pair, len(model.zeroshot), bootstrap)
        changes |= {f"zeroshot_{name}": change for name, change in compared.items()}
    if tasks.captioned is not None and model.retrieval and baseline.retrieval:
        captions = tasks.captioned[1]
        pair = (
            retrieval.statistic(model.retrieval, captions),
            retrieval.statistic(baseline.retrieval, captions),
        )
        changes |= _compare(*pair, captions.images, bootstrap)
    return changes


def _compare(
    model: Statistic, baseline: Statistic, n: int, bootstrap: Bootstrap
) -> dict[str, MetricChange]:
    def difference(drawn: np.ndarray) -> Mapping[str, np.ndarray]:
        ours, theirs = model(drawn), baseline(drawn)
        return {name: ours[name] - theirs[name] for name in ours}

    ours, theirs = point(model, n), point(baseline, n)
    return {
        name: {
            "baseline": theirs[name],
            "model": ours[name],
            "difference": ours[name] - theirs[name],
            "interval": interval,
        }
        for name, interval in intervals(difference, n, bootstrap).items()
    }
