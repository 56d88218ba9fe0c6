"""Zero-shot classification: an image belongs to the class whose prompts it is most similar to.

CLIP (Radford et al. 2021, arXiv:2103.00020) with the prompt and the classes of CLIP-rsicd on RSICD.
`read_predictions` reads those of another program.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import cast

import numpy as np

from rsicd_embed.arguments import require_items
from rsicd_embed.datasets import text
from rsicd_embed.datasets.base import Example
from rsicd_embed.datasets.classes import readable
from rsicd_embed.embedder.base import CATEGORY, Embedder, prompted_vectors
from rsicd_embed.errors import BenchError, DatasetError
from rsicd_embed.evaluation.metrics import (
    ZEROSHOT_KS,
    Bootstrap,
    Statistic,
    class_ranks,
    confusion_matrix,
    hit_rates,
    intervals,
    point,
)
from rsicd_embed.files import make_folder, storage_errors, sync_folder, write_file
from rsicd_embed.reports.evaluation_types import ClassScores, ZeroShotScores

TIES = "a wrong class as similar as the right one ranks above it"

# Layout of the confusion matrix.
_MOST_NUMBERED = 40  # most classes for which each cell shows its count
_INCHES_PER_CLASS = 0.32
_DARK = 0.55  # fraction of a row from which a cell needs a light text colour


@dataclass(frozen=True)
class ZeroShotOutcome:
    """Predictions of a model for n images.

    Attributes:
        classes: class names as the dataset writes them.
        labels: int (n,), the correct classes.
        ranks: int (n,), rank of the correct class, from 1.
        predicted: int (n,), the predicted class.
    """

    classes: tuple[str, ...]
    labels: np.ndarray
    ranks: np.ndarray
    predicted: np.ndarray


def require_prompts(prompts: Sequence[str]) -> None:
    """Checks that every prompt mentions the class.

    Raises:
        BenchError: a prompt lacks `{category}`.
        ArgumentError: `prompts` is a string, not a list of strings.
    """
    require_items(prompts, "prompts", str)
    for prompt in prompts:
        if CATEGORY not in prompt:
            raise BenchError(f"expected {CATEGORY} in the prompt, where the class goes: {prompt!r}")


def class_vectors(embedder: Embedder, names: Sequence[str], prompts: Sequence[str]) -> np.ndarray:
    """float32 (classes, dim): the normalised mean of the unit vectors of each class's prompts.

    Braces other than `{category}` are kept.
    """
    require_prompts(prompts)
    require_items(names, "class names", str)
    return prompted_vectors(embedder, names, prompts)


def class_names(classes: Sequence[str], *, raw: bool = False) -> list[str]:
    """The names that replace `{category}`: readable ones, or those of the dataset.

    A warning reports classes with the same readable name, none of which can then be predicted.
    """
    require_items(classes, "class names", str)
    names = list(classes) if raw else [readable(name) for name in classes]
    for name, written in same_names(classes, names).items():
        warnings.warn(
            f"the classes {', '.join(map(repr, written))} have the same prompt, that of {name!r}, "
            "so none of their images is classified correctly; merge or rename them",
            stacklevel=2,
        )
    return names


def same_names(classes: Sequence[str], names: Sequence[str]) -> dict[str, list[str]]:
    """Names that several classes have, and those classes.

    Example:
        >>> same_names(["Port", "port", "sea"], ["port", "port", "sea"])
        {'port': ['Port', 'port']}
    """
    written: dict[str, list[str]] = {}
    for label, name in zip(classes, names, strict=True):
        written.setdefault(name, []).append(label)
    return {name: labels for name, labels in written.items() if len(labels) > 1}


def classify(
    images: np.ndarray, class_vectors: np.ndarray, labels: np.ndarray, classes: Sequence[str]
) -> ZeroShotOutcome:
    """Classifies images by their unit vectors.

    Args:
        images: float32 (n, dim).
        class_vectors: float32 (classes, dim).
        labels: int (n,), the correct classes.
        classes: class names as the dataset writes them.
    """
    similarities = images @ class_vectors.T
    ranks = class_ranks(similarities, labels)
    return ZeroShotOutcome(tuple(classes), labels, ranks, similarities.argmax(axis=1))


def statistic(ranks: np.ndarray, ks: Sequence[int] = ZEROSHOT_KS) -> Statistic:
    """Top-k accuracy as a statistic for the bootstrap."""

    def accuracies(drawn: np.ndarray) -> Mapping[str, np.ndarray]:
        return {f"top{k}": drawn @ (ranks <= k) / drawn.sum(axis=1) for k in ks}

    return accuracies


def report(
    outcome: ZeroShotOutcome, bootstrap: Bootstrap, ks: Sequence[int] = ZEROSHOT_KS
) -> ZeroShotScores:
    """Scores of one model on one dataset, for a record."""
    accuracies = statistic(outcome.ranks, ks)
    n, classes = len(outcome.labels), len(outcome.classes)
    confusion = confusion_matrix(outcome.labels, outcome.predicted, classes)
    return {
        "n": n,
        "classes": classes,
        "metrics": point(accuracies, n),
        "intervals": intervals(accuracies, n, bootstrap),
        "bootstrap": bootstrap.as_json(),
        "ties": TIES,
        "per_class": [_class_scores(outcome, confusion, i, ks) for i in range(classes)],
        "confusion": confusion.tolist(),
        "notes": _notes(outcome, ks),
    }


def _class_scores(
    outcome: ZeroShotOutcome, confusion: np.ndarray, place: int, ks: Sequence[int]
) -> ClassScores:
    ranks = outcome.ranks[outcome.labels == place]
    mistakes = confusion[place].copy()
    mistakes[place] = 0
    most = int(mistakes.argmax())
    scores = {
        "class": outcome.classes[place],
        "n": len(ranks),
        **(hit_rates(ranks, ks, "top") if len(ranks) else dict.fromkeys(f"top{k}" for k in ks)),
        "most_mistaken_for": outcome.classes[most] if mistakes[most] else None,
        "mistaken": int(mistakes[most]),
    }
    return cast(ClassScores, scores)


def _notes(outcome: ZeroShotOutcome, ks: Sequence[int]) -> list[str]:
    classes = len(outcome.classes)
    notes = [f"top{k} of {classes} classes is 1 for any model" for k in ks if k >= classes]
    seen = set(outcome.labels.tolist())
    unseen = [name for i, name in enumerate(outcome.classes) if i not in seen]
    if unseen:
        notes.append(f"classes without images: {', '.join(unseen)}")
    return notes


def require_matplotlib() -> None:
    """Checks, before any work, that the confusion matrix can be drawn.

    Raises:
        BenchError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise BenchError(
            f"the plot of the confusion matrix needs {error.name}, which is not installed: "
            "pip install 'rsicd-embed[eval]'"
        ) from error


def draw_confusion(confusion: np.ndarray, names: Sequence[str], title: str, path: Path) -> None:
    """Writes a confusion matrix as PNG, each cell coloured by its fraction of the row.

    Args:
        confusion: int (classes, classes), number of images by correct class (row) and predicted
            class (column).
        names: class names.
        title: title of the plot.
        path: the file; its folder is created.

    Raises:
        StoreError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    n, totals = len(names), confusion.sum(axis=1)
    shares = confusion / np.maximum(totals[:, None], 1)
    side = min(max(4.0, _INCHES_PER_CLASS * n), 40.0)
    figure = Figure(figsize=(side + 3.2, side + 2.4), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    font = min(8.0, 72 * side / n * 0.6)
    ticks = np.arange(n)
    labels = [f"{name} ({total})" for name, total in zip(names, totals, strict=True)]
    axes.set_yticks(ticks, labels, fontsize=font, parse_math=False)
    axes.set_xticks(ticks, names, fontsize=font, rotation=90, parse_math=False)
    axes.set_xlabel("predicted class", fontsize=9)
    axes.set_ylabel("correct class (images)", fontsize=9)
    axes.set_title(title, fontsize=10, wrap=True, parse_math=False)
    axes.set_xticks(ticks[1:] - 0.5, minor=True)
    axes.set_yticks(ticks[1:] - 0.5, minor=True)
    axes.grid(which="minor", color="0.9", linewidth=0.4)
    axes.tick_params(which="both", length=0)
    if n <= _MOST_NUMBERED:
        for row, column in np.argwhere(confusion):
            colour = "white" if shares[row, column] > _DARK else "black"
            axes.text(
                column, row, str(confusion[row, column]),
                ha="center", va="center", fontsize=font * 0.9, color=colour,
            )  # fmt: skip
    figure.colorbar(image, ax=axes, shrink=0.5, label="fraction of the row")
    with storage_errors(f"cannot write {path}"):
        make_folder(path.parent)
        canvas = FigureCanvasAgg(figure)
        write_file(path, lambda temporary: canvas.print_figure(temporary, dpi=120, format="png"))
        sync_folder(path.parent)


@dataclass(frozen=True)
class Predictions:
    """The predictions of a file.

    Attributes:
        outcome: ranks beyond `depth` mean "not among those listed".
        depth: number of classes listed for every image; larger k cannot be scored.
    """

    outcome: ZeroShotOutcome
    depth: int


def read_predictions(
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
        image, label, names = _parse_prediction(line, where)
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
            repeated = next(name for name in names if names.count(name) > 1)
            raise DatasetError(f"{where}: expected each class once, found {repeated!r} twice")
        ranked[image] = [place[name] for name in names]
    missing = next((id_ for id_ in right if id_ not in ranked), None)
    if missing is not None:
        raise DatasetError(
            f"{path}: expected predictions for {len(right)} images, found {len(ranked)}; "
            f"{missing} is missing"
        )
    depth = min(map(len, ranked.values()))
    ranks = [_listed_rank(ranked[id_], label) for id_, label in right.items()]
    predicted = [ranked[id_][0] for id_ in right]
    outcome = ZeroShotOutcome(tuple(classes), labels, np.array(ranks), np.array(predicted))
    return Predictions(outcome, depth)


def _listed_rank(places: Sequence[int], label: int) -> int:
    return places.index(label) + 1 if label in places else len(places) + 1


def _parse_prediction(line: str, where: str) -> tuple[str, str, list[str]]:
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
    if any(not score >= following for score, following in pairwise(numbers)):  # NaN is neither
        raise DatasetError(f"{where}: expected falling scores, found {', '.join(scores)}")
    return image, label, names
