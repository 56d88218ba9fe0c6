"""Repeated evaluation of a model during training, by the published protocols."""

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

_SCALE = 100.0  # logit scale of a trained CLIP, for embedders without one


class Evaluator:
    """Zero-shot accuracy and retrieval R@k on one set of examples, which is decoded once.

    Raises:
        DatasetError: there are no examples, one has no caption, or an image cannot be read.
        BenchError: the prompt lacks `{category}`.
    """

    def __init__(
        self, examples: Sequence[Example], prompt: str = PROMPT, *, loss_batch: int | None = None
    ) -> None:
        """Prepares the examples.

        Args:
            examples: images with captions; their class labels are optional.
            prompt: zero-shot prompt, with `{category}`.
            loss_batch: batch size for the contrastive loss; None to leave it out.
        """
        if not examples:
            raise DatasetError("expected images to evaluate on, found none")
        uncaptioned = next((example for example in examples if not example.captions), None)
        if uncaptioned is not None:
            raise DatasetError(f"{uncaptioned.uri}: expected a caption to evaluate on, found none")
        zeroshot.require_prompts([prompt])
        self._examples = examples
        self._captions = retrieval.CaptionPairs.of(examples)
        self._prompt = prompt
        self._loss_batch = loss_batch
        self._pixels: dict[str, np.ndarray] = {}

    def __call__(self, embedder: Embedder) -> dict[str, float]:
        """Evaluates an embedder.

        Returns:
            `zeroshot_top1…` and `i2t_r1…mr` as fractions, and `val_loss` with `loss_batch`.
        """
        preprocessing = fingerprint_parts(embedder.fingerprint)["preprocessing"]
        if preprocessing not in self._pixels:
            views = ordered_map(partial(pixels, embedder), self._examples, ahead=256)
            self._pixels = {preprocessing: np.stack(list(views))}
        images = embedder.embed_pixels(self._pixels[preprocessing])
        metrics = {f"zeroshot_{k}": v for k, v in self._zeroshot(embedder, images).items()}
        texts = embedder.embed_texts(self._captions.distinct)
        ranks = retrieval.rank(images, texts, self._captions)
        metrics |= retrieval_metrics(ranks.i2t, ranks.t2i)
        if self._loss_batch is not None:
            scale = float(getattr(embedder, "logit_scale", _SCALE))
            metrics["val_loss"] = self._loss(images, texts, scale, self._loss_batch)
        return metrics

    def _loss(self, images: np.ndarray, texts: np.ndarray, scale: float, batch: int) -> float:
        """Mean contrastive loss of random batches of images, each with its first caption."""
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
