"""The published protocols on captioned, labelled images, again and again while a model trains."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from rsicd_embed.datasets.base import Example
from rsicd_embed.datasets.classes import PROMPT as PROMPT
from rsicd_embed.embedder.base import Embedder
from rsicd_embed.errors import DatasetError
from rsicd_embed.evaluation import retrieval, zeroshot
from rsicd_embed.evaluation.dataset import class_labels
from rsicd_embed.evaluation.embedding import pixels
from rsicd_embed.evaluation.metrics import contrastive_loss, retrieval_metrics, topk_accuracy
from rsicd_embed.parallel import ordered_map
from rsicd_embed.records import fingerprint_parts

_SCALE = 100.0  # of an embedder that does not say: CLIP's, after training


class Evaluator:
    """Zero-shot accuracy and retrieval R@k over one set of examples, decoded once.

    Raises:
        DatasetError: there are no examples, one has no caption, or an image cannot be read.
        BenchError: the prompt lacks `{category}`.
    """

    def __init__(
        self, examples: Sequence[Example], prompt: str = PROMPT, *, loss_batch: int | None = None
    ) -> None:
        """Takes what a model is measured on.

        Args:
            examples: images with captions.
            prompt: of the classes, with `{category}`.
            loss_batch: images of a batch, to measure the contrastive loss as well; None not to.
        """
        if not examples:
            raise DatasetError("expected images to evaluate on, found none")
        mute = next((example for example in examples if not example.captions), None)
        if mute is not None:
            raise DatasetError(f"{mute.uri}: expected a caption to evaluate on, found none")
        zeroshot.require_prompts([prompt])
        self._examples = examples
        self._captions = retrieval.CaptionPairs.of(examples)
        self._prompt = prompt
        self._loss_batch = loss_batch
        self._pixels: dict[str, np.ndarray] = {}

    def __call__(self, embedder: Embedder) -> dict[str, float]:
        """`zeroshot_top1…` and `i2t_r1…mr` as fractions; `val_loss` if it was asked for."""
        made = fingerprint_parts(embedder.fingerprint)["preprocessing"]
        if made not in self._pixels:
            views = ordered_map(partial(pixels, embedder), self._examples, ahead=256)
            self._pixels = {made: np.stack(list(views))}
        images = embedder.embed_pixels(self._pixels[made])
        found = {f"zeroshot_{k}": v for k, v in self._zeroshot(embedder, images).items()}
        texts = embedder.embed_texts(self._captions.distinct)
        ranks = retrieval.rank(images, texts, self._captions)
        found |= retrieval_metrics(ranks.i2t, ranks.t2i)
        if self._loss_batch is not None:
            scale = float(getattr(embedder, "logit_scale", _SCALE))
            found["val_loss"] = self._loss(images, texts, scale, self._loss_batch)
        return found

    def _loss(self, images: np.ndarray, texts: np.ndarray, scale: float, batch: int) -> float:
        """Mean over batches in one random order, of each image and its first caption."""
        first = np.unique(self._captions.image, return_index=True)[1]
        captions = self._captions.text[first]
        order = np.random.default_rng(0).permutation(len(images))
        size = min(batch, len(order))
        losses = [
            contrastive_loss(images[rows] @ texts[captions[rows]].T, scale, captions[rows])
            for start in range(0, len(order) - size + 1, size)
            for rows in [order[start : start + size]]
        ]
        return float(np.mean(losses))

    def _zeroshot(self, embedder: Embedder, images: np.ndarray) -> dict[str, float]:
        labels = class_labels(self._examples, by_file_name=True)
        rows = [i for i, label in enumerate(labels) if label]
        classes = sorted({str(labels[i]) for i in rows})
        if len(classes) < 2:
            return {}
        vectors = zeroshot.class_vectors(embedder, zeroshot.class_names(classes), [self._prompt])
        right = np.array([classes.index(str(labels[i])) for i in rows])
        return topk_accuracy(images[rows] @ vectors.T, right)
