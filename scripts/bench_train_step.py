"""Times a training step: images per second, and its FLOPs as a fraction of the device's peak.

    python scripts/bench_train_step.py --batch-size 1024 --precision bfloat16 --product 8192 -o DIR

This is the step of `rsicd-embed train`, keeping all patches, on the local devices. Recomputation
that saves memory does not count towards its FLOPs (model FLOPs utilisation; PaLM, arXiv:2204.02311,
appendix B). The peak is measured by multiplying two matrices in the same precision on one device,
in the same rounds, and is scaled by the number of devices. On a CPU in float32, NumPy and PyTorch
multiply too, and the fastest counts.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from rsicd_embed.bench.flops import LIMITING_VARIABLES, MatmulShape, Products, blas_libraries
from rsicd_embed.bench.workers import ProcessWorker
from rsicd_embed.embedder.clip.backends import PRECISIONS
from rsicd_embed.embedder.clip.model import Clip
from rsicd_embed.embedder.preprocess import Preprocessor
from rsicd_embed.reports import record
from rsicd_embed.reports.machine import CpuTimes, cpu_contention
from rsicd_embed.reports.timing import (
    Sampler,
    TimingPlan,
    measure,
    paired_ratio,
    rate_summary,
    ratio_summary,
    sampler,
)
from rsicd_embed.train.config import SHAPES, StepConfig, TrainConfig
from rsicd_embed.train.distributed import layout
from rsicd_embed.train.input.captioned_images import batch_side
from rsicd_embed.train.objective import contrastive
from rsicd_embed.train.state import initial_state
from rsicd_embed.train.step import Recipe, make_step
from rsicd_embed.train.tpu_plan.step_costs import step_flops

STEP = "step"
_STEPS = 1000
_SAMPLE_S = 1.0


def step_of(recipe: Recipe) -> Callable[[], object]:
    """Returns a function that trains a step on random images and texts."""
    rng = np.random.default_rng(0)
    size, model = recipe.config.batch_size, recipe.model
    side = batch_side(model.image_size, recipe.config.augment)
    tokens = rng.integers(1, model.eos_token_id, (size, model.context_length), dtype=np.int32)
    tokens[:, -1] = model.eos_token_id
    batch = {
        "pixels": rng.integers(0, 256, (size, side, side, 3), dtype=np.uint8),
        "tokens": tokens,
        "groups": np.stack([np.arange(size, dtype=np.int32)] * 2, axis=1),
    }
    params = nnx.state(Clip(model, rngs=nnx.Rngs(0)))
    state = initial_state(params, recipe.config, _STEPS, recipe.objective, recipe.layout)
    step = make_step(recipe)

    def run() -> None:
        nonlocal state
        state, metrics = step(state, batch)
        jax.block_until_ready(metrics)

    return run


def products_of(stack: ExitStack, side: int, precision: str) -> dict[str, Sampler]:
    """Samplers of products of two square matrices on the first device."""
    first, second = (
        jax.random.normal(jax.random.key(seed), (side, side), jnp.dtype(precision))
        for seed in (0, 1)
    )
    product = jax.jit(jnp.matmul)
    samplers = {"product by jax": sampler(lambda: jax.block_until_ready(product(first, second)))}
    if jax.default_backend() == "cpu" and precision == "float32":
        shape = MatmulShape(side, side, side)
        for library in blas_libraries():
            make = partial(Products, library, [shape])
            products = ProcessWorker(f"product by {library}", make, without=LIMITING_VARIABLES)
            stack.callback(products.close)
            samplers[f"product by {library}"] = partial(products.call, Products.sample, shape)
    return samplers


def main() -> None:
    """Reads the command line, measures, and saves the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--shape", default="vit-b-32", choices=SHAPES)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--chunk", type=int, default=0, help="images embedded at a time")
    parser.add_argument("--precision", default="float32", choices=PRECISIONS)
    parser.add_argument("--product", type=int, default=2048, help="side of the matrices")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    start = CpuTimes.now()
    step = StepConfig(precision=options.precision, chunk=options.chunk, keep_patches=1.0)
    config = TrainConfig(step=step, batch_size=options.batch_size)
    model, where = SHAPES[options.shape], layout(step.shard)
    pixels = Preprocessor(model.image_size, (model.image_size, model.image_size))
    recipe = Recipe(model, config, pixels, _STEPS, contrastive(step), where)
    with ExitStack() as stack:
        products = products_of(stack, options.product, options.precision)
        flops = dict.fromkeys(products, 2.0 * options.product**3 * where.devices)
        flops[STEP] = step_flops(recipe)
        samplers = {STEP: sampler(step_of(recipe)), **products}
        samples = measure(samplers, TimingPlan(options.rounds, least_s=_SAMPLE_S))
    fastest = min(products, key=lambda name: median(samples.of(name)))
    part = paired_ratio(
        [flops[STEP] / ns for ns in samples.of(STEP)],
        [flops[fastest] / ns for ns in samples.of(fastest)],
    )
    settings = {name: value for name, value in vars(options).items() if name != "output"}
    command = shlex.join(["python", *sys.argv])
    run: dict[str, Any] = record.document("train-step", settings, command=command)
    run["machine"]["others_share"] = cpu_contention(start)
    run["complete"] = samples.complete
    run["devices"] = [device.device_kind for device in jax.devices()]
    run["candidates"] = {
        STEP: rate_summary(samples, STEP, options.batch_size, "images"),
        **{name: rate_summary(samples, name, 1, "products") for name in products},
    }
    run["flops"] = flops
    run["of_peak"] = {"by": fastest, **ratio_summary(part)}
    for name, candidate in run["candidates"].items():
        print(
            f"{name}: {candidate['per_s']:.3g} {candidate['unit']}/s, "
            f"{flops[name] / candidate['ns']['median'] / 1e3:.3g} TFLOP/s"
        )
    print(f"step: {part.median:.1%} ({part.low:.1%}–{part.high:.1%}) of the {fastest}")
    print(f"record: {record.save(options.output, 'bench-train-step', run)}")


if __name__ == "__main__":
    main()
