"""Zero-shot predictions that somebody else's program wrote, as `zeroshot.Outcome`."""

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
    """What a file says.

    Attributes:
        outcome: ranks beyond `depth` stand for "not among those listed".
        depth: how many classes the file lists for every image; larger k cannot be scored.
    """

    outcome: ZeroShotOutcome
    depth: int


def read(
    path: Path, examples: Sequence[Example], labels: np.ndarray, classes: Sequence[str]
) -> Predictions:
    """A TSV file: image, its class, then predicted class and score, best first, for each image.

    The order of the file counts; scores that are printed alike are no tie.

    Args:
        path: the file.
        examples: the images that must be there, each once.
        labels: int (n,), their classes.
        classes: as the data set and the file write them.

    Raises:
        DatasetError: it cannot be read, a line is not of that form, or it is not about these images
            and classes.
    """
    place = {name: i for i, name in enumerate(classes)}
    right = {e.id: int(label) for e, label in zip(examples, labels, strict=True)}
    ranked: dict[str, list[int]] = {}
    for number, line in enumerate(_lines(path), start=1):
        where = f"{path}: line {number}"
        image, label, names = _parsed(line, where)
        if image not in right:
            raise DatasetError(f"{where}: {image} is not among the {len(right)} images to score")
        if image in ranked:
            raise DatasetError(f"{where}: {image} is there twice; keep one")
        if label != classes[right[image]]:
            raise DatasetError(
                f"{where}: expected {image} to be of the class {classes[right[image]]!r}, "
                f"found {label!r}"
            )
        unknown = next((name for name in names if name not in place), None)
        if unknown is not None:
            raise DatasetError(f"{where}: {unknown!r} is none of the {len(place)} classes")
        if len(set(names)) < len(names):
            raise DatasetError(f"{where}: expected each class once, found one twice")
        ranked[image] = [place[name] for name in names]
    missing = next((one for one in right if one not in ranked), None)
    if missing is not None:
        raise DatasetError(
            f"{path}: expected predictions for {len(right)} images, found {len(ranked)}; "
            f"{missing} is missing"
        )
    depth = min(len(places) for places in ranked.values())
    ranks = [_rank(ranked[one], label) for one, label in right.items()]
    predicted = [ranked[one][0] for one in right]
    outcome = ZeroShotOutcome(tuple(classes), labels, np.array(ranks), np.array(predicted))
    return Predictions(outcome, depth)


def _rank(places: Sequence[int], label: int) -> int:
    return places.index(label) + 1 if label in places else len(places) + 1


def _lines(path: Path) -> list[str]:
    lines = text.read(path).splitlines()
    if not lines:
        raise DatasetError(f"{path}: expected predictions, found an empty file")
    return lines


def _parsed(line: str, where: str) -> tuple[str, str, list[str]]:
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
    if any(one < other for one, other in pairwise(numbers)):
        raise DatasetError(f"{where}: expected falling scores, found {', '.join(scores)}")
    return image, label, names
