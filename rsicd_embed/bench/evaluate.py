"""The published protocols on captioned, labelled images, for any embedder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rsicd_embed.bench.metrics import retrieval_recall, topk_accuracy
from rsicd_embed.datasets.base import Example
from rsicd_embed.datasets.captioned import label_in_name
from rsicd_embed.datasets.classes import readable
from rsicd_embed.embedder.base import Embedder
from rsicd_embed.images import read_rgb
from rsicd_embed.parallel import ordered_map

PROMPT = "An aerial photograph of {category}"


class Evaluator:
    """Zero-shot accuracy and retrieval recall over one set of examples, decoded once."""

    def __init__(self, examples: Sequence[Example], prompt: str = PROMPT) -> None:
        self._examples = examples
        self._prompt = prompt
        self._pixels: np.ndarray | None = None

    def __call__(self, embedder: Embedder) -> dict[str, float]:
        """`zeroshot_top1…` and `i2t_r1…mr` as fractions."""
        if self._pixels is None:
            views = ordered_map(
                lambda e: embedder.preprocess(read_rgb(e.path)), self._examples, ahead=256
            )
            self._pixels = np.stack(list(views))
        images = embedder.embed_pixels(self._pixels)
        zeroshot = self._zeroshot(embedder, images)
        return {f"zeroshot_{name}": v for name, v in zeroshot.items()} | self._retrieval(
            embedder, images
        )

    def _zeroshot(self, embedder: Embedder, images: np.ndarray) -> dict[str, float]:
        """As CLIP-rsicd did it: only images whose file name tells the class, where any does."""
        labels = [label_in_name(example.path.name) for example in self._examples]
        if not any(labels):
            labels = [example.label for example in self._examples]
        rows = [i for i, label in enumerate(labels) if label]
        if not rows:
            return {}
        classes = sorted({label for label in labels if label})
        prompts = [self._prompt.format(category=readable(label)) for label in classes]
        similarities = images[rows] @ embedder.embed_texts(prompts).T
        return topk_accuracy(similarities, np.array([classes.index(str(labels[i])) for i in rows]))

    def _retrieval(self, embedder: Embedder, images: np.ndarray) -> dict[str, float]:
        captions = [(i, c) for i, e in enumerate(self._examples) for c in e.captions]
        texts = embedder.embed_texts([caption for _, caption in captions])
        return retrieval_recall(images @ texts.T, np.array([image for image, _ in captions]))
