"""Where in a picture is what a text says: patches, ranked, and a map of how likely it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from rsicd_embed.embedder.base import Embedder
from rsicd_embed.errors import FindError
from rsicd_embed.find import patches

OVERLAP = 0.5


@dataclass(frozen=True)
class Question:
    """What is looked for, and how.

    Attributes:
        text: what is looked for.
        against: what patches may show instead; None for `against`, empty for
            nothing.
        sides: of the patches, in pixels; None for `patches.default_sides`.
        overlap: the least part of a patch that its neighbour has too.
        most: patches that may come of it; where no sides are given, they grow until that holds.
    """

    text: str
    against: tuple[str, ...] | None = None
    sides: tuple[int, ...] | None = None
    overlap: float = OVERLAP
    most: int = patches.MAX_PATCHES


@dataclass(frozen=True)
class Finding:
    """What a picture's patches say of a text.

    Attributes:
        size: (width, height) of the picture.
        texts: the one in question, then those it was compared with.
        logit_scale: of the softmax over them.
        boxes: int32 (n, 4): left, top, right, bottom, in pixels.
        scores: float32 (n,): cosine with the text in question.
        probabilities: float64 (n,): that a patch shows it rather than another; see
            `probabilities`. 1 where it was compared with nothing.
    """

    size: tuple[int, int]
    texts: tuple[str, ...]
    logit_scale: float
    boxes: np.ndarray
    scores: np.ndarray
    probabilities: np.ndarray

    def order(self) -> np.ndarray:
        """Patches by falling score, equal ones as they were cut."""
        return np.argsort(-self.scores, kind="stable")

    def best(self, k: int) -> list[dict[str, Any]]:
        """The k best patches, as they go into JSON."""
        return [
            {
                "rank": rank,
                "score": float(self.scores[i]),
                "probability": float(self.probabilities[i]),
                "box": self.boxes[i].tolist(),
            }
            for rank, i in enumerate(self.order()[:k], start=1)
        ]


def cut(image: Image.Image, question: Question, embedder: Embedder) -> np.ndarray:
    """The boxes that `find` will look at; see `patches.cut`."""
    width, height = image.size
    if question.sides:
        return patches.cut(width, height, question.sides, question.overlap, question.most)
    seen = min(embedder.preprocess(Image.new("RGB", (8, 8))).shape[:2])
    sides = patches.default_sides(width, height, seen)
    while True:
        try:
            return patches.cut(width, height, sides, question.overlap, question.most)
        except FindError:
            seen *= 2
            coarser = patches.default_sides(width, height, seen)
            if coarser == sides:
                raise
            sides = coarser


def find(
    image: Image.Image,
    question: Question,
    embedder: Embedder,
    *,
    batch_size: int | None = None,
    threads: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Finding:
    """Compares every patch of a picture with a text.

    Beside the picture itself, a few batches of patches are held at a time, and a number for each
    patch and text.

    Args:
        image: RGB, upright.
        question: what is looked for.
        embedder: the model.
        batch_size: patches embedded at once; None for the model's own.
        threads: that cut patches; None for one a processor.
        progress: called with the number of patches just done.

    Raises:
        FindError: the picture cannot be cut like that.
    """
    texts = compared_texts(question.text, question.against)
    boxes = cut(image, question, embedder)
    wanted = embedder.embed_texts(texts).T
    found = []
    for vectors in patches.embed(image, boxes, embedder, batch_size=batch_size, threads=threads):
        found.append(vectors @ wanted)
        progress(len(vectors))
    similarities = np.clip(np.concatenate(found), -1, 1)
    scale = logit_scale(embedder)
    return Finding(
        size=image.size,
        texts=texts,
        logit_scale=scale,
        boxes=boxes,
        scores=similarities[:, 0],
        probabilities=probabilities(similarities, scale),
    )


# What most of the land in overhead pictures is; a patch that shows none of it is like none of them.
GENERAL = (
    "bare land",
    "farmland",
    "a forest",
    "a meadow",
    "water",
    "buildings",
    "a road",
)
# Where a model does not tell its own: at which CLIP's training clips it (Radford et al. 2021, 2.5).
LOGIT_SCALE = 100.0


def against(text: str) -> tuple[str, ...]:
    """What a text is compared with unless told: those of `GENERAL` that share no word with it.

    Example:
        >>> against("Buildings near a road")
        ('bare land', 'farmland', 'a forest', 'a meadow', 'water')
    """
    words = set(text.casefold().split()) - {"a"}
    return tuple(one for one in GENERAL if not words & set(one.split()))


def logit_scale(embedder: object) -> float:
    """What the model multiplies cosines by before a softmax; `LOGIT_SCALE` if it does not say."""
    return float(getattr(embedder, "logit_scale", LOGIT_SCALE))


def probabilities(similarities: np.ndarray, scale: float) -> np.ndarray:
    """Softmax over texts, of which the first is the one in question.

    Args:
        similarities: float (n, texts): cosines of n patches with each text.
        scale: what they are multiplied by.

    Returns:
        float64 (n,) in [0, 1]: how likely the first text is, if one of them is right (Radford et
        al. 2021, "Learning Transferable Visual Models From Natural Language Supervision", 3.1).

    Example:
        >>> probabilities(np.array([[0.3, 0.3], [0.3, 0.2]]), 100.0).round(5).tolist()
        [0.5, 0.99995]
    """
    logits = scale * np.asarray(similarities, np.float64)
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    found: np.ndarray = weights[:, 0] / weights.sum(axis=1)
    return found


def compared_texts(text: str, others: Sequence[str] | None) -> tuple[str, ...]:
    """The text in question, then what it is compared with; `against(text)` for None."""
    return (text, *(against(text) if others is None else dict.fromkeys(others)))
