"""Score the patches of an image against a text.

A patch's score is its cosine similarity with the text. Its probability is CLIP's zero-shot
classification: how likely the patch shows the text rather than one of some alternatives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from PIL import Image

from rsicd_embed.embedder.base import Embedder
from rsicd_embed.errors import FindError
from rsicd_embed.find import patches

OVERLAP = 0.5
# Common land cover; a patch that shows none of it is similar to none of these texts.
GENERAL = (
    "bare land",
    "farmland",
    "a forest",
    "a meadow",
    "water",
    "buildings",
    "a road",
)
# For models without one: the value at which CLIP's training clips it (Radford et al. 2021, 2.5).
LOGIT_SCALE = 100.0


@dataclass(frozen=True)
class Question:
    """A text to find and how to cut the image.

    Attributes:
        text: the text to find.
        against: alternative texts for the probabilities; None for `default_alternatives`, empty for
            none.
        sides: sides of the patches, in pixels; None for `patches.default_sides`.
        overlap: the least overlap of neighbouring patches, as a fraction of their side.
        most: maximum number of patches; without `sides`, patches grow until they fit.
    """

    text: str
    against: tuple[str, ...] | None = None
    sides: tuple[int, ...] | None = None
    overlap: float = OVERLAP
    most: int = patches.MAX_PATCHES


class RankedPatch(TypedDict):
    """A patch in JSON: its box is left, top, right, bottom, in pixels."""

    rank: int
    score: float
    probability: float
    box: list[int]


@dataclass(frozen=True)
class Finding:
    """The scores of an image's patches.

    Attributes:
        size: (width, height) of the image, in pixels.
        texts: the text, then its alternatives.
        logit_scale: factor of the cosines in the softmax over the texts, or in the sigmoid.
        boxes: int32 (n, 4): left, top, right, bottom, in pixels.
        scores: float32 (n,): cosine similarity with the text.
        probabilities: float64 (n,): see `probabilities`; 1 without alternatives.
        logit_bias: added in the sigmoid of a SigLIP; None for a softmax.
    """

    size: tuple[int, int]
    texts: tuple[str, ...]
    logit_scale: float
    boxes: np.ndarray
    scores: np.ndarray
    probabilities: np.ndarray
    logit_bias: float | None = None

    def order(self) -> np.ndarray:
        """Indices of the patches by descending score, ties in the order of `boxes`."""
        return np.argsort(-self.scores, kind="stable")

    def best(self, k: int) -> list[RankedPatch]:
        """The k patches with the highest scores."""
        return [
            {
                "rank": rank,
                "score": float(self.scores[i]),
                "probability": float(self.probabilities[i]),
                "box": self.boxes[i].tolist(),
            }
            for rank, i in enumerate(self.order()[:k], start=1)
        ]


def find(
    image: Image.Image,
    question: Question,
    embedder: Embedder,
    *,
    batch_size: int | None = None,
    threads: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Finding:
    """Scores every patch of an image.

    Besides the image, memory is needed for a few batches of patches, and for one number per patch
    and text.

    Args:
        image: RGB, upright.
        question: the text and how to cut the image.
        embedder: the model.
        batch_size: patches per batch; None for the model's batch size.
        threads: threads that cut patches; None for one per processor.
        progress: called with the number of patches just scored.

    Raises:
        FindError: the image cannot be cut as requested.
    """
    texts = compared_texts(question.text, question.against)
    boxes = cut(image, question, embedder)
    text_vectors = embedder.embed_texts(texts).T
    batches = []
    for vectors in patches.embed(image, boxes, embedder, batch_size=batch_size, threads=threads):
        batches.append(vectors @ text_vectors)
        progress(len(vectors))
    similarities = np.clip(np.concatenate(batches), -1, 1)
    scale, bias = logit_scale(embedder), logit_bias(embedder)
    return Finding(
        size=image.size,
        texts=texts,
        logit_scale=scale,
        logit_bias=bias,
        boxes=boxes,
        scores=similarities[:, 0],
        probabilities=probabilities(similarities, scale, bias),
    )


def cut(image: Image.Image, question: Question, embedder: Embedder) -> np.ndarray:
    """Returns the boxes that `find` scores; see `patches.cut`."""
    width, height = image.size
    if question.sides:
        return patches.cut(width, height, question.sides, question.overlap, question.most)
    model_side = min(embedder.preprocess(Image.new("RGB", (8, 8))).shape[:2])
    sides = patches.default_sides(width, height, model_side)
    while True:
        try:
            return patches.cut(width, height, sides, question.overlap, question.most)
        except FindError:
            model_side *= 2
            coarser = patches.default_sides(width, height, model_side)
            if coarser == sides:
                raise
            sides = coarser


def compared_texts(text: str, alternatives: Sequence[str] | None) -> tuple[str, ...]:
    """The text, then its alternatives; `default_alternatives` for None.

    Raises:
        FindError: the text is one of its alternatives, so that its probability would be too low.
    """
    if alternatives is None:
        return (text, *default_alternatives(text))
    if text.casefold().split() in [other.casefold().split() for other in alternatives]:
        raise FindError(f"expected alternatives to {text!r}, found it among them; leave it out")
    return (text, *dict.fromkeys(alternatives))


def default_alternatives(text: str) -> tuple[str, ...]:
    """The texts of `GENERAL` that share no word with `text`.

    Example:
        >>> default_alternatives("Buildings near a road")
        ('bare land', 'farmland', 'a forest', 'a meadow', 'water')
    """
    words = set(text.casefold().split()) - {"a"}
    return tuple(general for general in GENERAL if not words & set(general.split()))


def logit_scale(embedder: object) -> float:
    """The model's factor of cosines before a softmax; `LOGIT_SCALE` for models without one."""
    return float(getattr(embedder, "logit_scale", LOGIT_SCALE))


def logit_bias(embedder: object) -> float | None:
    """The bias that a SigLIP adds to scaled cosines before a sigmoid; None for other models."""
    bias: float | None = getattr(embedder, "logit_bias", None)
    return bias


def probabilities(similarities: np.ndarray, scale: float, bias: float | None = None) -> np.ndarray:
    """Computes the probability of the first text.

    Without a bias it is a softmax over all texts (Radford et al. 2021, arXiv:2103.00020, section
    3.1), with one the sigmoid of the first alone (Zhai et al. 2023, arXiv:2303.15343).

    Args:
        similarities: float (n, texts): cosines of n patches with each text.
        scale: factor of the cosines.
        bias: added to the scaled cosines before a sigmoid; None for a softmax.

    Returns:
        float64 (n,) in [0, 1].

    Example:
        >>> probabilities(np.array([[0.3, 0.3], [0.3, 0.2]]), 100.0).round(5).tolist()
        [0.5, 0.99995]
    """
    logits = scale * np.asarray(similarities, np.float64)
    if bias is not None:
        alone: np.ndarray = 1 / (1 + np.exp(-(logits[:, 0] + bias)))
        return alone
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    first: np.ndarray = weights[:, 0] / weights.sum(axis=1)
    return first
