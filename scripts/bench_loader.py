"""Throughput of the input pipeline, alone and feeding a training step.

    python scripts/bench_loader.py --dataset rsicd -o DIR

The rate of the loader alone excludes the first batch. Waiting is the fraction of time that a step
waits for a batch; steps are not overlapped.
"""

from __future__ import annotations

import json
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import click
import jax

from rsicd_embed.embedder.preprocess import Preprocessor
from rsicd_embed.reports import record
from rsicd_embed.reports.machine import CpuTimes, cpu_contention
from rsicd_embed.train import mesh
from rsicd_embed.train.config import AugmentConfig, DataConfig, StepConfig, TrainConfig
from rsicd_embed.train.config.augment_config import ENGINES
from rsicd_embed.train.config.data_config import CACHES
from rsicd_embed.train.distributed import own_rows
from rsicd_embed.train.initialization import Start, from_nothing, learn_vocabulary
from rsicd_embed.train.input.captioned_images import CaptionedImages
from rsicd_embed.train.input.training_data import training_source, weighted
from rsicd_embed.train.objective import contrastive
from rsicd_embed.train.shapes import SHAPES
from rsicd_embed.train.state import initial_state
from rsicd_embed.train.step import Recipe, make_step


@click.command()
@click.option("--dataset", "datasets", multiple=True, required=True, metavar="PATH[=WEIGHT]")
@click.option("--shape", default="vit-b-32", type=click.Choice(list(SHAPES)))
@click.option("--batch-size", default=128, help="Batch size of the loader alone.")
@click.option("--step-batch-size", default=16, help="Batch size with a training step.")
@click.option("--steps", default=4, help="Steps to measure; 0 for the loader alone.")
@click.option("--workers", multiple=True, type=int, default=(0, 1, 2))
@click.option("--engine", "engines", multiple=True, default=("device", "torchvision"),
              type=click.Choice(ENGINES))  # fmt: skip
@click.option("--cache", default="disk", type=click.Choice(CACHES))
@click.option("-o", "--output", required=True, type=click.Path(file_okay=False, path_type=Path))
def main(
    datasets: tuple[str, ...],
    shape: str,
    batch_size: int,
    step_batch_size: int,
    steps: int,
    workers: tuple[int, ...],
    engines: tuple[str, ...],
    cache: str,
    output: Path,
) -> None:
    """Measures each engine with each number of worker processes."""
    settings = {"shape": shape, "batch_size": batch_size, "step_batch_size": step_batch_size}
    settings |= {"steps": steps, "cache": cache, "engines": engines, "workers": workers}
    cpu_times = CpuTimes.now()
    run = record.document("loader", settings, command=shlex.join(["python", *sys.argv]))
    data = training_source([weighted(dataset) for dataset in datasets])
    captions = [caption for example in data.train for caption in example.captions]
    start = from_nothing(shape, learn_vocabulary(captions, shape), 0)
    rows: list[dict[str, Any]] = []
    for engine in engines:
        config = TrainConfig(
            augment=AugmentConfig(engine),
            step=StepConfig(keep_patches=1.0),
            batch_size=step_batch_size,
        )
        for count in workers:
            with CaptionedImages(
                data.train,
                start.tokenizer,
                image_size=start.shape.image_size,
                seed=0,
                weights=data.weights,
                data=DataConfig(cache=cache, workers=count),
                augment=config.augment,
            ) as images:
                row = {"engine": engine, "cache": cache, "workers": count}
                row |= alone(images, batch_size)
                if steps:
                    row |= with_step(images, start, config, steps)
            rows.append(row)
            click.echo(json.dumps(row), err=True)
    run["machine"]["others_share"] = cpu_contention(cpu_times)
    run |= {"complete": True, "rows": rows}
    click.echo(f"record: {record.save(output, 'loader', run)}")


def alone(images: CaptionedImages, batch_size: int) -> dict[str, Any]:
    """Measures the loader alone, for at most ten seconds."""
    started = time.perf_counter()
    batches = images.epoch(0, batch_size)
    next(batches)
    begun, done = time.perf_counter(), 0
    for _ in batches:
        done += 1
        if time.perf_counter() - begun > 10:
            break
    seconds = time.perf_counter() - begun
    return {
        "first_batch_s": begun - started,
        "ms_per_batch": seconds / done * 1e3,
        "images_per_s": done * batch_size / seconds,
    }


def with_step(
    images: CaptionedImages, start: Start, config: TrainConfig, steps: int
) -> dict[str, Any]:
    """Measures the loader feeding a step, after two steps for compilation and prefetching."""
    objective, layout = contrastive(config.step), mesh.layout(config.step.shard)
    state = initial_state(start.params, config, 100, objective, layout)
    size = start.shape.image_size
    pixels = Preprocessor(size, (size, size))
    step = make_step(Recipe(start.shape, config, pixels, 100, objective, layout))
    own = own_rows(layout, config.batch_size)
    waits, computations = [], []
    batches = images.epoch(1, config.batch_size)
    for _ in range(2 + steps):
        started = time.perf_counter()
        batch = next(batches)
        received = time.perf_counter()
        state, figures = step(state, batch.arrays(own))
        jax.block_until_ready(figures)
        waits.append(received - started)
        computations.append(time.perf_counter() - received)
    waiting, computing = sum(waits[2:]), sum(computations[2:])
    return {
        "step_batch_size": config.batch_size,
        "step_ms": computing / steps * 1e3,
        "waiting": waiting / (waiting + computing),
    }


if __name__ == "__main__":
    main()
