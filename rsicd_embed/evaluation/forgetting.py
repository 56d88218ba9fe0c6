"""What a model gained and lost beside another one, on data of its domain and of others.

Both answer the same images, so that differences are paired: the bootstrap draws images, and takes
the difference of both models on those drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rsicd_embed.datasets.base import Example
from rsicd_embed.embedder.base import Embedder
from rsicd_embed.errors import DatasetError
from rsicd_embed.evaluation import retrieval, zeroshot
from rsicd_embed.evaluation.bootstrap import Bootstrap, Statistic, intervals, point
from rsicd_embed.evaluation.dataset import EvalSet, Labelled, labelled, with_captions
from rsicd_embed.evaluation.retrieval import CaptionPairs


@dataclass(frozen=True)
class Tasks:
    """What a data set can be asked.

    Attributes:
        split: its name.
        examples: all of the split.
        labelled: None where there are no classes.
        captioned: int (n,), the examples with captions, and these; None where there are none.
        left_out: why one of the two is None.
    """

    split: str
    examples: tuple[Example, ...]
    labelled: Labelled | None
    captioned: tuple[np.ndarray, CaptionPairs] | None
    left_out: tuple[str, ...] = ()


def tasks(evalset: EvalSet, split: str | None) -> Tasks:
    """Zero-shot where there are labels, retrieval where there are captions.

    Raises:
        DatasetError: neither is there.
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
class Answers:
    """Ranks of one model: int (labelled,) of right classes, and of retrieval."""

    zeroshot: np.ndarray | None
    retrieval: retrieval.Ranks | None


def answer(
    asked: Tasks,
    embedder: Embedder,
    images: np.ndarray,
    texts: np.ndarray | None,
    prompts: Sequence[str],
) -> Answers:
    """Ranks by a model's vectors.

    Args:
        asked: the tasks.
        embedder: the model, which embeds the prompts.
        images: float32 (examples, dim).
        texts: float32 (distinct captions, dim); None where there are none.
        prompts: texts with `{category}`.
    """
    ranks, found = None, None
    if asked.labelled is not None:
        names = zeroshot.class_names(asked.labelled.classes)
        vectors = zeroshot.class_vectors(embedder, names, prompts)
        chosen, one = images[asked.labelled.rows], asked.labelled
        ranks = zeroshot.classify(chosen, vectors, one.labels, one.classes).ranks
    if asked.captioned is not None and texts is not None:
        rows, captions = asked.captioned
        found = retrieval.rank(images[rows], texts, captions)
    return Answers(ranks, found)


def report(asked: Tasks, model: Answers, baseline: Answers, bootstrap: Bootstrap) -> dict[str, Any]:
    """For each metric what both models reach, the difference, and its interval."""
    found: dict[str, Any] = {}
    if model.zeroshot is not None and baseline.zeroshot is not None:
        pair = zeroshot.statistic(model.zeroshot), zeroshot.statistic(baseline.zeroshot)
        compared = _compare(*pair, len(model.zeroshot), bootstrap)
        found |= {f"zeroshot_{name}": one for name, one in compared.items()}
    if asked.captioned is not None and model.retrieval and baseline.retrieval:
        captions = asked.captioned[1]
        pair = (
            retrieval.statistic(model.retrieval, captions),
            retrieval.statistic(baseline.retrieval, captions),
        )
        found |= _compare(*pair, captions.images, bootstrap)
    return found


def _compare(
    model: Statistic, baseline: Statistic, n: int, bootstrap: Bootstrap
) -> dict[str, dict[str, Any]]:
    def difference(drawn: np.ndarray) -> Mapping[str, np.ndarray]:
        one, other = model(drawn), baseline(drawn)
        return {name: one[name] - other[name] for name in one}

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
