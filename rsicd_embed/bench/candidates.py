"""Candidates of `bench embed`: each in a worker, given the same batch, checked for agreement."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from PIL import Image

from rsicd_embed.bench.workers import InlineWorker, ProcessWorker, Worker
from rsicd_embed.errors import BenchError
from rsicd_embed.reports.record import significant
from rsicd_embed.reports.timing import Sampler, sample

# Least cosine of two candidates' vectors for which they do the same work. Bfloat16 loses about
# 6e-5 on ViT-B/32; another image's vector is further away than that (`agreement`).
AGREEMENT = 0.999
IMAGES, TEXTS = "images", "texts"


class Vectors(Protocol):
    """The part of an `Embedder` that is timed."""

    def embed_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (n, H, W, 3) → float32 (n, dim)."""
        ...

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Texts → float32 (n, dim)."""
        ...


Make = Callable[[], Vectors]


class CandidateWorker:
    """A candidate and what it embeds."""

    def __init__(self, model: Vectors) -> None:
        self.model = model
        self.given: dict[str, Any] = {}

    def embed(self, what: str) -> np.ndarray:
        """Vectors of what it was given."""
        if what == IMAGES:
            return self.model.embed_pixels(self.given[what])
        return self.model.embed_texts(self.given[what])

    def take(self, what: str, given: Any) -> np.ndarray:
        """Keeps a batch to embed again and again; its vectors."""
        self.given[what] = given
        return self.embed(what)

    def sample(self, what: str, calls: int) -> int:
        """Nanoseconds that `calls` batches take."""
        return sample(lambda: self.embed(what), calls)

    def pixel_shape(self) -> tuple[int, ...]:
        """(H, W, 3); only an `Embedder` knows."""
        embedder: Any = self.model
        shape: tuple[int, ...] = embedder.preprocess(Image.new("RGB", (32, 32))).shape
        return shape


@dataclass(frozen=True)
class _MakeWorker:
    """Picklable: makes a `CandidateWorker`."""

    make: Make

    def __call__(self) -> CandidateWorker:
        return CandidateWorker(self.make())


def start_worker(stack: ExitStack, name: str, make: Make, *, here: bool) -> Worker[CandidateWorker]:
    """Makes a candidate, in this process or in one of its own until the stack is left."""
    making = _MakeWorker(make)
    worker: Worker[CandidateWorker] = (
        InlineWorker(name, making) if here else ProcessWorker(name, making)
    )
    stack.callback(worker.close)
    return worker


def batch_sampler(worker: Worker[CandidateWorker], what: str) -> Sampler:
    """Times the batch that `set_batch` gave a worker."""
    return lambda calls: worker.call(CandidateWorker.sample, what, calls)


def set_batch(
    workers: Mapping[str, Worker[CandidateWorker]], what: str, batch: Any
) -> dict[str, dict[str, float]]:
    """Hands the same batch to all; how far each agrees with the first.

    Raises:
        BenchError: one gives other vectors than the first.
    """
    first, found = next(iter(workers)), {}
    ours: np.ndarray | None = None
    for name, worker in workers.items():
        vectors = worker.call(CandidateWorker.take, what, batch)
        ours = vectors if ours is None else ours
        if vectors.shape != ours.shape:
            raise BenchError(f"{name}: expected {what} → {ours.shape}, found {vectors.shape}")
        found[name] = agreement(ours, vectors)
        least = found[name]["least_cosine"]
        if not least >= AGREEMENT:  # not <, which NaN would pass
            raise BenchError(
                f"{name} does not give the vectors of {first}: expected a cosine of at least "
                f"{AGREEMENT} for the same {what}, found {least:.6f}; it would not be a comparison"
            )
    return found


def agreement(vectors: np.ndarray, others: np.ndarray) -> dict[str, float]:
    """Least cosine of two models' vectors of the same inputs; and, to judge it, what is usual.

    `between_inputs` is the median cosine of the vectors of different inputs: agreement says
    something only as far as it is above that.
    """
    same = np.einsum("nd,nd->n", vectors, others, dtype=np.float64)
    between = (vectors @ vectors.T)[np.triu_indices(len(vectors), 1)]
    return {
        "least_cosine": significant(float(same.min()), 8),
        "largest_difference": significant(float(np.abs(vectors - others).max()), 3),
        "between_inputs": significant(float(np.median(between)), 4) if between.size else 1.0,
    }
