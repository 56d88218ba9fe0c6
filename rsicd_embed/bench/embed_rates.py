"""Throughput of the model alone, next to references with the same weights, in the same rounds.

Each candidate runs in a worker, gets the same batch, and must produce the same vectors. Several
models and batch sizes are measured one after the other and combined into one record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from PIL import Image

from rsicd_embed.bench import synthetic_inputs
from rsicd_embed.bench.flops import LIMITING_VARIABLES, MatmulShape, Products, Tower, blas_libraries
from rsicd_embed.bench.workers import InlineWorker, ProcessWorker, Worker
from rsicd_embed.errors import BenchError
from rsicd_embed.reports.record_types import (
    MODALITIES,
    Agreement,
    EmbedRates,
    EmbedResults,
    FloatPeak,
    Modality,
    Overhead,
    RatioSummary,
)
from rsicd_embed.reports.timing import (
    Progress,
    Sampler,
    Samples,
    TimingPlan,
    measure,
    rate_ratio,
    rate_summary,
    sample,
    sampler,
    significant,
)

# Minimum cosine at which the vectors of two candidates count as equal. Bfloat16 costs about 6e-5 on
# ViT-B/32; vectors of different images are further apart than this threshold (`agreement`).
AGREEMENT = 0.999
NULL = "null"


class TimedEmbedder(Protocol):
    """The part of an `Embedder` that is timed."""

    def embed_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (n, H, W, 3) → float32 (n, dim)."""
        ...

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Texts → float32 (n, dim)."""
        ...


Make = Callable[[], TimedEmbedder]


@dataclass(frozen=True)
class EmbedSettings:
    """Settings of the measurement.

    Attributes:
        batch_size: images, or texts, per call.
        texts: time texts as well.
        one_process: run all candidates in this process.
        matmul_side: side of the square matrices whose product gives the peak; None for no peak.
    """

    batch_size: int = 64
    texts: bool = False
    one_process: bool = False
    matmul_side: int | None = 4096


class CandidateWorker:
    """A candidate and its batches; runs inside a worker."""

    def __init__(self, make: Make) -> None:
        self._embedder = make()
        self._batches: dict[Modality, Any] = {}

    def embed(self, modality: Modality) -> np.ndarray:
        """Embeds the batch that `set_batch` set."""
        if modality == "images":
            return self._embedder.embed_pixels(self._batches[modality])
        return self._embedder.embed_texts(self._batches[modality])

    def set_batch(self, modality: Modality, batch: Any) -> np.ndarray:
        """Sets the batch to embed, and returns its vectors."""
        self._batches[modality] = batch
        return self.embed(modality)

    def sample(self, modality: Modality, calls: int) -> int:
        """Nanoseconds for `calls` batches."""
        return sample(lambda: self.embed(modality), calls)

    def pixel_shape(self) -> tuple[int, ...]:
        """(H, W, 3); only for a full `Embedder`."""
        embedder: Any = self._embedder
        shape: tuple[int, ...] = embedder.preprocess(Image.new("RGB", (32, 32))).shape
        return shape


Workers = Mapping[str, Worker[CandidateWorker]]


def run(
    candidates: Mapping[str, Make],
    settings: EmbedSettings,
    plan: TimingPlan,
    *,
    tower: Tower | None = None,
    progress: Progress = lambda doing: None,
) -> EmbedResults:
    """Loads the candidates, checks that they agree with the first, and times them.

    The first candidate must be a full `Embedder`; its pixel shape is used for all.

    Raises:
        BenchError: a candidate cannot be loaded, or its vectors differ from the first one's.
    """
    with ExitStack() as stack:
        workers: dict[str, Worker[CandidateWorker]] = {}
        for name, make in candidates.items():
            progress(f"preparing {name}")
            start = InlineWorker if settings.one_process else ProcessWorker
            workers[name] = start(name, partial(CandidateWorker, make))
            stack.callback(workers[name].close)
        products = _products(stack, settings, tower, progress)
        results: EmbedResults = {"complete": True}
        for modality, batch in _batches(next(iter(workers.values())), settings).items():
            agreements = _set_batches(workers, modality, batch)
            samplers = {n: _batch_sampler(worker, modality) for n, worker in workers.items()}
            samplers[NULL] = sampler(lambda: None)
            units = dict.fromkeys(samplers, float(settings.batch_size))
            if modality == "images":
                samplers |= {name: take for name, (_, take) in products.items()}
                units |= {name: float(shape.flops) for name, (shape, _) in products.items()}
            samples = measure(samplers, plan, progress)
            rates = _rates(samples, list(workers), units, modality, agreements)
            results[modality] = rates
            if modality == "images":
                results["peak"] = peak = _peak(samples, list(products), units)
                if peak and tower:
                    results["flop_per_image"], results["tower"] = tower.flops, asdict(tower)
                    _add_fractions(rates, peak, samples, units, tower)
            if not samples.complete:
                results["complete"] = False
                break
    return results


def _batches(first: Worker[CandidateWorker], settings: EmbedSettings) -> dict[Modality, Any]:
    shape = first.call(CandidateWorker.pixel_shape)
    batches: dict[Modality, Any] = {"images": synthetic_inputs.pixels(settings.batch_size, shape)}
    if settings.texts:
        batches["texts"] = synthetic_inputs.texts(settings.batch_size)
    return batches


def _batch_sampler(worker: Worker[CandidateWorker], modality: Modality) -> Sampler:
    return lambda calls: worker.call(CandidateWorker.sample, modality, calls)


def _set_batches(workers: Workers, modality: Modality, batch: Any) -> dict[str, Agreement]:
    """Gives all candidates the same batch; the agreement of each with the first.

    Raises:
        BenchError: a candidate's vectors differ from the first one's.
    """
    first, agreements = next(iter(workers)), {}
    reference: np.ndarray | None = None
    for name, worker in workers.items():
        vectors = worker.call(CandidateWorker.set_batch, modality, batch)
        reference = vectors if reference is None else reference
        if vectors.shape != reference.shape:
            raise BenchError(
                f"{name}: expected vectors of shape {reference.shape} for {modality}, "
                f"found {vectors.shape}"
            )
        agreements[name] = agreement(reference, vectors)
        least = agreements[name]["least_cosine"]
        if not least >= AGREEMENT:  # also catches NaN
            raise BenchError(
                f"{name} and {first} produce different vectors: expected a cosine of at least "
                f"{AGREEMENT} for the same {modality}, found {least:.6f}"
            )
    return agreements


def agreement(vectors: np.ndarray, others: np.ndarray) -> Agreement:
    """Smallest cosine and largest difference of two models' vectors of the same inputs.

    `between_inputs` puts them in context: the median cosine between vectors of different inputs.
    """
    same = np.einsum("nd,nd->n", vectors, others, dtype=np.float64)
    between = (vectors @ vectors.T)[np.triu_indices(len(vectors), 1)]
    return {
        "least_cosine": significant(float(same.min()), 8),
        "largest_difference": significant(float(np.abs(vectors - others).max()), 3),
        "between_inputs": significant(float(np.median(between)), 4) if between.size else 1.0,
    }


def _products(
    stack: ExitStack, settings: EmbedSettings, tower: Tower | None, progress: Progress
) -> dict[str, tuple[MatmulShape, Sampler]]:
    """A large square product and the tower's largest one, in a process for each library."""
    side = settings.matmul_side
    if side is None:
        return {}
    shapes = [MatmulShape(side, side, side)]
    if tower is not None:
        rows, inner, outer = tower.product
        shapes.append(MatmulShape(settings.batch_size * rows, inner, outer))
    samplers: dict[str, tuple[MatmulShape, Sampler]] = {}
    for library in blas_libraries():
        progress(f"preparing sgemm of {library}")
        make = partial(Products, library, shapes)
        worker = ProcessWorker(f"sgemm {library}", make, without=LIMITING_VARIABLES)
        stack.callback(worker.close)
        for shape in shapes:
            samplers[f"sgemm {library} {shape}"] = shape, _product_sampler(worker, shape)
    return samplers


def _product_sampler(worker: Worker[Products], shape: MatmulShape) -> Sampler:
    return lambda calls: worker.call(Products.sample, shape, calls)


def _rates(
    samples: Samples,
    names: Sequence[str],
    units: Mapping[str, float],
    modality: Modality,
    agreements: Mapping[str, Agreement],
) -> EmbedRates:
    rates = {name: rate_summary(samples, name, units[name], modality) for name in names}
    for name, rate in rates.items():
        rate["agreement_with_first"] = agreements[name]
    ratios = [
        rate_ratio(samples, first, second, units=units)
        for first in names
        for second in names
        if first != second
    ]
    null = float(np.median(samples.of(NULL)))
    shortest = min(float(np.median(samples.of(name))) for name in names)
    overhead: Overhead = {"null_ns": significant(null), "fraction": significant(null / shortest)}
    return {"candidates": rates, "ratios": ratios, "overhead": overhead}


def _peak(samples: Samples, names: Sequence[str], units: Mapping[str, float]) -> FloatPeak | None:
    """The fastest float32 product by its median, and all that were timed."""
    if not names:
        return None
    rates = {name: rate_summary(samples, name, units[name], "flop") for name in names}
    best = max(rates, key=lambda name: rates[name]["per_s"])
    gflop_per_s = significant(rates[best]["per_s"] / 1e9)
    return {"best": best, "gflop_per_s": gflop_per_s, "candidates": rates}


def _add_fractions(
    rates: EmbedRates,
    peak: FloatPeak,
    samples: Samples,
    units: Mapping[str, float],
    tower: Tower,
) -> None:
    """Adds the fraction of the peak that each candidate reaches with the tower's operations."""
    best = peak["best"]
    for name, rate in rates["candidates"].items():
        flops = {name: units[name] * tower.flops, best: units[best]}
        ratio = rate_ratio(samples, name, best, units=flops)
        ratio["best_of_best"] = significant(
            rate["per_s_best"] * tower.flops / peak["candidates"][best]["per_s_best"]
        )
        rate["of_float32_peak"] = ratio


def combined(runs: Mapping[str, EmbedResults]) -> EmbedResults:
    """Combines the results of several models and batch sizes, given by label.

    A single run is returned unchanged. Otherwise each candidate is named after its run, ratios are
    between candidates of one run, `peak` is the fastest product of all runs, and `runs` has the
    tower and the peak of each.

    Raises:
        ValueError: there are none.
    """
    if not runs:
        raise ValueError("expected at least one run, found none")
    if len(runs) == 1:
        return next(iter(runs.values())).copy()
    results: EmbedResults = {"complete": all(run["complete"] for run in runs.values())}
    for modality in MODALITIES:
        rates = {label: run[modality] for label, run in runs.items() if modality in run}
        if rates:
            results[modality] = _combined_rates(rates)
    peaks = [peak for run in runs.values() if (peak := run.get("peak"))]
    results["peak"] = max(peaks, key=lambda peak: peak["gflop_per_s"], default=None)
    details: dict[str, Any] = {
        label: {name: value for name, value in run.items() if name not in (*MODALITIES, "complete")}
        for label, run in runs.items()
    }
    results["runs"] = details
    return results


def _combined_rates(runs: Mapping[str, EmbedRates]) -> EmbedRates:
    results: EmbedRates = {
        "candidates": {},
        "ratios": [],
        "overhead": max((run["overhead"] for run in runs.values()), key=lambda o: o["fraction"]),
    }
    for label, run in runs.items():
        for name, rate in run["candidates"].items():
            results["candidates"][f"{label}: {name}"] = rate
        for ratio in run["ratios"]:
            renamed = ratio.copy()
            renamed["of"], renamed["to"] = f"{label}: {ratio['of']}", f"{label}: {ratio['to']}"
            results["ratios"].append(renamed)
    return results


def ratios_to_first(rates: EmbedRates) -> dict[str, RatioSummary]:
    """The ratio of each candidate to the first of its model and batch size, whose own is 1."""
    ratios = {(ratio["of"], ratio["to"]): ratio for ratio in rates["ratios"]}
    summaries: dict[str, RatioSummary] = {}
    first = ""
    for name in rates["candidates"]:
        ratio = ratios.get((name, first))
        if ratio is None:
            first = name
            summaries[name] = {"ratio": 1.0, "interval": [1.0, 1.0]}
        else:
            summaries[name] = ratio
    return summaries
