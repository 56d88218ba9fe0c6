"""Zero-shot predictions of other programs, read from a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from rsicd_embed.datasets import text
from rsicd_embed.datasets.base import Example
from rsicd_embed.errors import DatasetError
from rsicd_embed.evaluation.zeroshot import ZeroShotOutcome


@dataclass(frozen=True)
class Predictions:
    """The predictions of a file.

    Attributes:
        outcome: ranks beyond `depth` mean "not among those listed".
        depth: number of classes listed for every image; larger k cannot be scored.
    """

    outcome: ZeroShotOutcome
    depth: int


def read(
    path: Path, examples: Sequence[Example], labels: np.ndarray, classes: Sequence[str]
) -> Predictions:
    """Reads a TSV file: image, its class, then pairs of predicted class and score, best first.

    The order of the file counts; scores that are printed alike are not ties.

    Args:
        path: the file.
        examples: the images that the file must contain, each once.
        labels: int (n,), their classes.
        classes: class names as the dataset and the file write them.

    Raises:
        DatasetError: the file cannot be read, a line has another form, or images or classes differ
            from the dataset's.
    """
    place = {name: i for i, name in enumerate(classes)}
    right = {e.id: int(label) for e, label in zip(examples, labels, strict=True)}
    ranked: dict[str, list[int]] = {}
    lines = text.read(path).splitlines()
    if not lines:
        raise DatasetError(f"{path}: expected predictions, found an empty file")
    for number, line in enumerate(lines, start=1):
        where = f"{path}: line {number}"
        image, label, names = _parse(line, where)
        if image not in right:
            raise DatasetError(f"{where}: {image} is not one of the {len(right)} images to score")
        if image in ranked:
            raise DatasetError(f"{where}: {image} occurs twice; keep one of the lines")
        if label != classes[right[image]]:
            raise DatasetError(
                f"{where}: expected the class {classes[right[image]]!r} for {image}, "
                f"found {label!r}"
            )
        unknown = next((name for name in names if name not in place), None)
        if unknown is not None:
            raise DatasetError(f"{where}: {unknown!r} is not one of the {len(place)} classes")
        if len(set(names)) < len(names):
            raise DatasetError(f"{where}: expected each class once, found one twice")
        ranked[image] = [place[name] for name in names]
    missing = next((id_ for id_ in right if id_ not in ranked), None)
    if missing is not None:
        raise DatasetError(
            f"{path}: expected predictions for {len(right)} images, found {len(ranked)}; "
            f"{missing} is missing"
        )
    depth = min(map(len, ranked.values()))
    ranks = [_rank(ranked[id_], label) for id_, label in right.items()]
    predicted = [ranked[id_][0] for id_ in right]
    outcome = ZeroShotOutcome(tuple(classes), labels, np.array(ranks), np.array(predicted))
    return Predictions(outcome, depth)


def _rank(places: Sequence[int], label: int) -> int:
    return places.index(label) + 1 if label in places else len(places) + 1


def _parse(line: str, where: str) -> tuple[str, str, list[str]]:
    """Image, class, and predicted classes of a line."""
    image, _, rest = line.partition("\t")
    label, *pairs = rest.split("\t")
    names, scores = pairs[::2], pairs[1::2]
    try:
        numbers = [float(score) for score in scores]
    except ValueError:
        numbers = []
    if not names or len(names) != len(numbers):
        raise DatasetError(
            f"{where}: expected image, class, and pairs of class and score, separated by tabs, "
            f"found {line!r:.60}"
        )
    if any(score < following for score, following in pairwise(numbers)):
        raise DatasetError(f"{where}: expected falling scores, found {', '.join(scores)}")
    return image, label, names
