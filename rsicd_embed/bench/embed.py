"""Images a second of the model alone, beside references on the same weights, in the same rounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from PIL import Image

from rsicd_embed.bench import inputs, matmul, record
from rsicd_embed.bench.errors import BenchError
from rsicd_embed.bench.flops import ImageTower
from rsicd_embed.bench.isolate import Apart, Here, Place
from rsicd_embed.bench.timing import Plan, Progress, Samples, Sampler, measure, sample, sampler

# Least cosine of two candidates' vectors for which they do the same work. Bfloat16 loses about
# 6e-5 on ViT-B/32; another image's vector is further away than that (`agreement`).
AGREEMENT = 0.999
NULL = "null"
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


@dataclass(frozen=True)
class Settings:
    """What is timed.

    Attributes:
        batch_size: images, and texts, a call.
        texts: whether texts are timed too.
        one_process: all candidates in this process, to see what that changes.
        matmul_side: of the square matrices whose product gives the peak; None for no peak.
        pixel_shape: (H, W, 3), where the first candidate cannot say.
    """

    batch_size: int = 64
    texts: bool = False
    one_process: bool = False
    matmul_side: int | None = 4096
    pixel_shape: tuple[int, ...] | None = None


class _Held:
    """A candidate and what it embeds."""

    def __init__(self, make: Make) -> None:
        self.model = make()
        self.given: dict[str, Any] = {}


def run(
    candidates: Mapping[str, Make],
    settings: Settings,
    plan: Plan,
    *,
    tower: ImageTower | None = None,
    progress: Progress = lambda doing: None,
) -> dict[str, Any]:
    """Makes the candidates, checks that they agree with the first, and times them.

    Returns the fields of a record: `images`, `texts` if wanted, `peak`, `overhead`, `complete`.

    Raises:
        BenchError: a candidate cannot be made, or gives other vectors than the first.
    """
    with ExitStack() as stack:
        places: dict[str, Place[_Held]] = {}
        for name, make in candidates.items():
            progress(f"preparing {name}")
            places[name] = _place(stack, settings, name, _Holding(make))
        products = _products(stack, settings, tower, progress)
        given = _inputs(next(iter(places.values())), settings)
        found: dict[str, Any] = {"complete": True}
        for what, batch in given.items():
            agreement = _agreement(places, what, batch)
            samplers = {name: _sampler(place, what) for name, place in places.items()}
            samplers[NULL] = sampler(lambda: None)
            units = dict.fromkeys(samplers, float(settings.batch_size))
            if what == IMAGES:
                samplers |= {name: taker for name, (_, taker) in products.items()}
                units |= {name: float(shape.flops) for name, (shape, _) in products.items()}
            samples = measure(samplers, plan, progress)
            found[what] = _told(samples, list(places), units, what, agreement)
            if what == IMAGES:
                found["peak"] = _peak(samples, list(products), units)
                if found["peak"] and tower:
                    _add_fractions(found, samples, units, tower)
            found["overhead"] = _overhead(samples, list(places))
            if not samples.complete:
                found["complete"] = False
                break
    return found


def agreement(vectors: np.ndarray, others: np.ndarray) -> dict[str, float]:
    """Least cosine of two models' vectors of the same inputs; and, to judge it, what is usual.

    `between_inputs` is the median cosine of the vectors of different inputs: agreement says
    something only as far as it is above that.
    """
    same = np.einsum("nd,nd->n", vectors, others, dtype=np.float64)
    between = (vectors @ vectors.T)[np.triu_indices(len(vectors), 1)]
    return {
        "least_cosine": record.significant(float(same.min()), 8),
        "largest_difference": record.significant(float(np.abs(vectors - others).max()), 3),
        "between_inputs": record.significant(float(np.median(between)), 4) if between.size else 1.0,
    }


@dataclass(frozen=True)
class _Holding:
    """Picklable: makes a `_Held`."""

    make: Make

    def __call__(self) -> _Held:
        return _Held(self.make)


def _place(stack: ExitStack, settings: Settings, name: str, make: Callable[[], Any]) -> Place[Any]:
    place: Place[Any] = Here(name, make) if settings.one_process else Apart(name, make)
    stack.callback(place.close)
    return place


def _products(
    stack: ExitStack, settings: Settings, tower: ImageTower | None, progress: Progress
) -> dict[str, tuple[matmul.Shape, Sampler]]:
    """A large square product, and the one of a ViT's hidden layer."""
    side = settings.matmul_side
    if side is None:
        return {}
    shapes = [matmul.Shape(side, side, side)]
    if tower is not None:
        rows = settings.batch_size * tower.tokens
        shapes.append(matmul.Shape(rows, tower.width, tower.mlp_width))
    found: dict[str, tuple[matmul.Shape, Sampler]] = {}
    for name, (shape, make) in matmul.candidates(shapes).items():
        progress(f"preparing {name}")
        place = _place(stack, settings, name, make)
        found[name] = shape, _product_sampler(place)
    return found


def _product_sampler(place: Place[matmul.Product]) -> Sampler:
    return lambda calls: place.ask(matmul.Product.sample, calls)


def _sampler(place: Place[_Held], what: str) -> Sampler:
    return lambda calls: place.ask(_sample, what, calls)


def _inputs(first: Place[_Held], settings: Settings) -> dict[str, Any]:
    shape = settings.pixel_shape or first.ask(_pixel_shape)
    given: dict[str, Any] = {IMAGES: inputs.pixels(settings.batch_size, shape)}
    if settings.texts:
        given[TEXTS] = inputs.texts(settings.batch_size)
    return given


def _pixel_shape(held: _Held) -> tuple[int, ...]:
    preprocess = getattr(held.model, "preprocess")  # noqa: B009 (only an Embedder has it)
    shape: tuple[int, ...] = preprocess(Image.new("RGB", (32, 32))).shape
    return shape


def _take(held: _Held, what: str, given: Any) -> np.ndarray:
    held.given[what] = given
    return _embed(held, what)


def _embed(held: _Held, what: str) -> np.ndarray:
    if what == IMAGES:
        return held.model.embed_pixels(held.given[what])
    return held.model.embed_texts(held.given[what])


def _sample(held: _Held, what: str, calls: int) -> int:
    return sample(lambda: _embed(held, what), calls)


def _agreement(
    places: Mapping[str, Place[_Held]], what: str, batch: Any
) -> dict[str, dict[str, float]]:
    first, found = next(iter(places)), {}
    ours: np.ndarray | None = None
    for name, place in places.items():
        vectors = place.ask(_take, what, batch)
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
    found: dict[str, Any], samples: Samples, units: Mapping[str, float], tower: ImageTower
) -> None:
    """What part of the peak each candidate reaches with the tower's operations."""
    best = found["peak"]["best"]
    found["flop_per_image"], found["tower"] = tower.flops, asdict(tower)
    for name, one in found[IMAGES]["candidates"].items():
        done = {name: units[name] * tower.flops, best: units[best]}
        one["of_float32_peak"] = record.rate_ratio(samples, name, best, units=done)


def _overhead(samples: Samples, names: Sequence[str]) -> dict[str, float]:
    """What timing costs: a call of nothing, timed alike, beside the shortest call of something."""
    null = float(np.median(samples.of(NULL)))
    shortest = min(float(np.median(samples.of(name))) for name in names)
    return {"null_ns": record.significant(null), "fraction": record.significant(null / shortest)}
