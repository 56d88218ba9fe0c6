"""Images a second of the model alone, beside references on the same weights, in the same rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from rsicd_embed.bench import inputs, matmul
from rsicd_embed.bench.candidates import (
    IMAGES,
    TEXTS,
    CandidateWorker,
    Make,
    batch_sampler,
    set_batch,
    start_worker,
)
from rsicd_embed.bench.flops import Tower
from rsicd_embed.bench.workers import ProcessWorker, Worker
from rsicd_embed.reports import record
from rsicd_embed.reports.timing import Progress, Sampler, Samples, TimingPlan, measure, sampler

NULL = "null"


@dataclass(frozen=True)
class EmbedSettings:
    """What is timed.

    Attributes:
        batch_size: images, and texts, a call.
        texts: whether texts are timed too.
        one_process: all candidates in this process, to see what that changes.
        matmul_side: of the square matrices whose product gives the peak; None for no peak.
    """

    batch_size: int = 64
    texts: bool = False
    one_process: bool = False
    matmul_side: int | None = 4096


def run(
    candidates: Mapping[str, Make],
    settings: EmbedSettings,
    plan: TimingPlan,
    *,
    tower: Tower | None = None,
    progress: Progress = lambda doing: None,
) -> dict[str, Any]:
    """Makes the candidates, checks that they agree with the first, and times them.

    The first is an `Embedder`, whose pixels all take.

    Returns the fields of a record: `images`, `texts` if wanted, `peak`, `overhead`, `complete`.

    Raises:
        BenchError: a candidate cannot be made, or gives other vectors than the first.
    """
    with ExitStack() as stack:
        workers: dict[str, Worker[CandidateWorker]] = {}
        for name, make in candidates.items():
            progress(f"preparing {name}")
            workers[name] = start_worker(stack, name, make, here=settings.one_process)
        products = _products(stack, settings, tower, progress)
        found: dict[str, Any] = {"complete": True}
        for what, batch in _inputs(next(iter(workers.values())), settings).items():
            agreed = set_batch(workers, what, batch)
            samplers = {name: batch_sampler(worker, what) for name, worker in workers.items()}
            samplers[NULL] = sampler(lambda: None)
            units = dict.fromkeys(samplers, float(settings.batch_size))
            if what == IMAGES:
                samplers |= {name: taker for name, (_, taker) in products.items()}
                units |= {name: float(shape.flops) for name, (shape, _) in products.items()}
            samples = measure(samplers, plan, progress)
            found[what] = _told(samples, list(workers), units, what, agreed)
            found[what]["overhead"] = _overhead(samples, list(workers))
            if what == IMAGES:
                found["peak"] = _peak(samples, list(products), units)
                if found["peak"] and tower:
                    _add_fractions(found, samples, units, tower)
            if not samples.complete:
                found["complete"] = False
                break
    return found


def _products(
    stack: ExitStack, settings: EmbedSettings, tower: Tower | None, progress: Progress
) -> dict[str, tuple[matmul.Shape, Sampler]]:
    """A large square product, and the tower's largest; a process for each library."""
    side = settings.matmul_side
    if side is None:
        return {}
    shapes = [matmul.Shape(side, side, side)]
    if tower is not None:
        rows, inner, outer = tower.product
        shapes.append(matmul.Shape(settings.batch_size * rows, inner, outer))
    found: dict[str, tuple[matmul.Shape, Sampler]] = {}
    for library in matmul.installed():
        progress(f"preparing sgemm of {library}")
        make = partial(matmul.Products, library, shapes)
        products = ProcessWorker(f"sgemm {library}", make, without=matmul.SLOWER)
        stack.callback(products.close)
        for shape in shapes:
            found[f"sgemm {library} {shape}"] = shape, _product_sampler(products, shape)
    return found


def _product_sampler(products: Worker[matmul.Products], shape: matmul.Shape) -> Sampler:
    return lambda calls: products.call(matmul.Products.sample, shape, calls)


def _inputs(first: Worker[CandidateWorker], settings: EmbedSettings) -> dict[str, Any]:
    shape = first.call(CandidateWorker.pixel_shape)
    given: dict[str, Any] = {IMAGES: inputs.pixels(settings.batch_size, shape)}
    if settings.texts:
        given[TEXTS] = inputs.texts(settings.batch_size)
    return given


def _told(
    samples: Samples,
    names: Sequence[str],
    units: Mapping[str, float],
    what: str,
    agreed: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    return {
        "candidates": {
            name: record.candidate(samples, name, units[name], what)
            | {"agreement_with_first": agreed[name]}
            for name in names
        },
        "ratios": [
            record.rate_ratio(samples, one, other, units=units)
            for one in names
            for other in names
            if one != other
        ],
    }


def _peak(
    samples: Samples, names: Sequence[str], units: Mapping[str, float]
) -> dict[str, Any] | None:
    """The fastest float32 product, by its median; all of them are told."""
    if not names:
        return None
    all_ = {name: record.candidate(samples, name, units[name], "flop") for name in names}
    best = max(all_, key=lambda name: float(all_[name]["per_s"]))
    return {"best": best, "gflop_per_s": record.significant(all_[best]["per_s"] / 1e9)} | {
        "candidates": all_
    }


def _add_fractions(
    found: dict[str, Any], samples: Samples, units: Mapping[str, float], tower: Tower
) -> None:
    """What part of the peak each candidate reaches with the tower's operations."""
    best = found["peak"]["best"]
    found["flop_per_image"], found["tower"] = tower.flops, asdict(tower)
    for name, one in found[IMAGES]["candidates"].items():
        done = {name: units[name] * tower.flops, best: units[best]}
        one["of_float32_peak"] = record.rate_ratio(samples, name, best, units=done) | {
            "best_of_best": record.significant(
                one["per_s_best"] * tower.flops / found["peak"]["candidates"][best]["per_s_best"]
            )
        }


def _overhead(samples: Samples, names: Sequence[str]) -> dict[str, float]:
    """What timing costs: a call of nothing, timed alike, beside the shortest call of something."""
    null = float(np.median(samples.of(NULL)))
    shortest = min(float(np.median(samples.of(name))) for name in names)
    return {"null_ns": record.significant(null), "fraction": record.significant(null / shortest)}
