"""The published protocols on captioned, labelled images, for any embedder."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from rsicd_embed.bench.metrics import retrieval_recall, topk_accuracy
from rsicd_embed.datasets.base import Example
from rsicd_embed.datasets.captioned import label_in_name
from rsicd_embed.datasets.classes import readable
from rsicd_embed.embedder.base import Embedder
from rsicd_embed.errors import DatasetError, ImageError
from rsicd_embed.images import read_rgb
from rsicd_embed.parallel import ordered_map
from rsicd_embed.records import fingerprint_parts

PROMPT = "An aerial photograph of {category}"


class Evaluator:
    """Zero-shot accuracy and retrieval recall over one set of examples, decoded once.

    Raises:
        DatasetError: there are no examples, none has a caption, or an image cannot be read.
    """

    def __init__(self, examples: Sequence[Example], prompt: str = PROMPT) -> None:
        if not examples:
            raise DatasetError("expected images to evaluate on, found none")
        mute = next((example for example in examples if not example.captions), None)
        if mute is not None:
            raise DatasetError(f"{mute.uri}: expected a caption to evaluate on, found none")
        self._examples = examples
        self._prompt = prompt
        self._pixels: dict[str, np.ndarray] = {}

    def __call__(self, embedder: Embedder) -> dict[str, float]:
        """`zeroshot_top1…` and `i2t_r1…mr` as fractions."""
        made = fingerprint_parts(embedder.fingerprint)["preprocessing"]
        if made not in self._pixels:
            views = ordered_map(partial(_view, embedder), self._examples, ahead=256)
            self._pixels = {made: np.stack(list(views))}
        images = embedder.embed_pixels(self._pixels[made])
        zeroshot = self._zeroshot(embedder, images)
        return {f"zeroshot_{name}": v for name, v in zeroshot.items()} | self._retrieval(
            embedder, images
        )

    def _zeroshot(self, embedder: Embedder, images: np.ndarray) -> dict[str, float]:
        """As CLIP-rsicd did it: only images whose file name tells their class, where any does."""
        labels = [example.label for example in self._examples]
        rows = [i for i, label in enumerate(labels) if label]
        named = [i for i in rows if label_in_name(self._examples[i].path.name) == labels[i]]
        rows = named or rows
        classes = sorted({str(labels[i]) for i in rows})
        if len(classes) < 2:
            return {}
        prompts = [self._prompt.format(category=readable(label)) for label in classes]
        similarities = images[rows] @ embedder.embed_texts(prompts).T
        return topk_accuracy(similarities, np.array([classes.index(str(labels[i])) for i in rows]))

    def _retrieval(self, embedder: Embedder, images: np.ndarray) -> dict[str, float]:
        captions = [(i, c) for i, e in enumerate(self._examples) for c in e.captions]
        texts = embedder.embed_texts([caption for _, caption in captions])
        return retrieval_recall(images @ texts.T, np.array([image for image, _ in captions]))


def _view(embedder: Embedder, example: Example) -> np.ndarray:
    try:
        return embedder.preprocess(read_rgb(example.path))
    except ImageError as error:
        raise DatasetError(f"{example.uri}: {error}; mend or leave out this image") from error
