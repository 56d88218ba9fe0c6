"""Zero-shot classification: an image is of the class whose prompts it is most similar to.

CLIP (Radford et al. 2021, arXiv:2103.00020) with the prompt and the classes of CLIP-rsicd on RSICD.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rsicd_embed.arguments import require_items
from rsicd_embed.datasets.classes import readable
from rsicd_embed.embedder.base import Embedder
from rsicd_embed.errors import BenchError
from rsicd_embed.evaluation.bootstrap import Bootstrap, Statistic, intervals, point
from rsicd_embed.evaluation.metrics import ZEROSHOT_KS, class_ranks, confusion_matrix, hit_rates

TIES = "a wrong class as similar as the right one stands before it"

_CATEGORY = "{category}"


@dataclass(frozen=True)
class ZeroShotOutcome:
    """What a model made of n images.

    Attributes:
        classes: as the data set writes them.
        labels: int (n,), the right classes.
        ranks: int (n,), of the right class, from 1.
        predicted: int (n,), the first class.
    """

    classes: tuple[str, ...]
    labels: np.ndarray
    ranks: np.ndarray
    predicted: np.ndarray


def require_prompts(prompts: Sequence[str]) -> None:
    """Refuses a prompt that says nothing of the class.

    Raises:
        BenchError: one lacks `{category}`.
        ArgumentError: a single prompt, which belongs in a list.
    """
    require_items(prompts, "prompts", str)
    for prompt in prompts:
        if _CATEGORY not in prompt:
            raise BenchError(
                f"expected {_CATEGORY} in the prompt, where the class goes: {prompt!r}"
            )


def class_vectors(embedder: Embedder, names: Sequence[str], prompts: Sequence[str]) -> np.ndarray:
    """float32 (classes, dim): the mean of each class's prompts, each a unit vector, renormalised.

    A prompt's braces other than `{category}` are kept as they are.
    """
    require_prompts(prompts)
    require_items(names, "class names", str)
    texts = [prompt.replace(_CATEGORY, name) for prompt in prompts for name in names]
    vectors = embedder.embed_texts(texts)
    if len(prompts) == 1:
        return vectors
    mean = vectors.reshape(len(prompts), len(names), -1).mean(axis=0)
    unit: np.ndarray = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    return unit


def class_names(classes: Sequence[str], *, raw: bool = False) -> list[str]:
    """What stands for `{category}`: readable names, or those of the data set."""
    require_items(classes, "class names", str)
    return list(classes) if raw else [readable(one) for one in classes]


def classify(
    images: np.ndarray, class_vectors: np.ndarray, labels: np.ndarray, classes: Sequence[str]
) -> ZeroShotOutcome:
    """Unit vectors float32 (n, dim) of images and (classes, dim) of classes → ranks."""
    similarities = images @ class_vectors.T
    ranks = class_ranks(similarities, labels)
    return ZeroShotOutcome(tuple(classes), labels, ranks, similarities.argmax(axis=1))


def statistic(ranks: np.ndarray, ks: Sequence[int] = ZEROSHOT_KS) -> Statistic:
    """Top-k accuracy of drawn images."""

    def of(drawn: np.ndarray) -> Mapping[str, np.ndarray]:
        return {f"top{k}": drawn @ (ranks <= k) / drawn.sum(axis=1) for k in ks}

    return of


def report(
    outcome: ZeroShotOutcome, bootstrap: Bootstrap, ks: Sequence[int] = ZEROSHOT_KS
) -> dict[str, Any]:
    """What a record says of one model on one data set, metrics as fractions.

    `confusion[i][j]` images of class i were called class j, in the order of `per_class`.
    """
    metrics = statistic(outcome.ranks, ks)
    n, classes = len(outcome.labels), len(outcome.classes)
    confusion = confusion_matrix(outcome.labels, outcome.predicted, classes)
    return {
        "n": n,
        "classes": classes,
        "metrics": point(metrics, n),
        "intervals": intervals(metrics, n, bootstrap),
        "bootstrap": bootstrap.as_json(),
        "ties": TIES,
        "per_class": [_of_class(outcome, confusion, i, ks) for i in range(classes)],
        "confusion": confusion.tolist(),
        "notes": _notes(outcome, ks),
    }


def _of_class(
    outcome: ZeroShotOutcome, confusion: np.ndarray, place: int, ks: Sequence[int]
) -> dict[str, Any]:
    ranks = outcome.ranks[outcome.labels == place]
    mistakes = confusion[place].copy()
    mistakes[place] = 0
    most = int(mistakes.argmax())
    return {
        "class": outcome.classes[place],
        "n": len(ranks),
        **(hit_rates(ranks, ks, "top") if len(ranks) else dict.fromkeys(f"top{k}" for k in ks)),
        "most_mistaken_for": outcome.classes[most] if mistakes[most] else None,
        "mistaken": int(mistakes[most]),
    }


def _notes(outcome: ZeroShotOutcome, ks: Sequence[int]) -> list[str]:
    classes = len(outcome.classes)
    notes = [f"top{k} of {classes} classes is 1 for any model" for k in ks if k >= classes]
    seen = set(outcome.labels.tolist())
    unseen = [name for i, name in enumerate(outcome.classes) if i not in seen]
    if unseen:
        notes.append(f"classes without images here: {', '.join(unseen)}")
    return notes
