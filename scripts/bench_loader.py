"""Times the input pipeline, alone and feeding the training step.

    python scripts/bench_loader.py --dataset rsicd -o DIR

Images/s of the loader alone exclude the first batch. Waiting is the fraction of the time in which
a step could run but no batch is ready; each step runs to its end before the next batch is fetched.
"""

from __future__ import annotations

import json
import shlex
import sys
import time
from pathlib import Path
from typing import Any, get_args

import click
import jax

from rsicd_embed.embedder.preprocess import Preprocessor
from rsicd_embed.reports import record
from rsicd_embed.reports.machine import CpuTimes, cpu_contention
from rsicd_embed.train.config import (
    SHAPES,
    AugmentConfig,
    Cache,
    DataConfig,
    Engine,
    StepConfig,
    TrainConfig,
)
from rsicd_embed.train.distributed import layout, own_rows
from rsicd_embed.train.initialization import Start, from_scratch, learn_vocabulary
from rsicd_embed.train.input.captioned_images import CaptionedImages
from rsicd_embed.train.input.training_data import training_source, weighted
from rsicd_embed.train.objective import contrastive
from rsicd_embed.train.state import initial_state
from rsicd_embed.train.step import Recipe, make_step


@click.command()
@click.option("--dataset", "datasets", multiple=True, required=True, metavar="PATH[=WEIGHT]")
@click.option("--shape", default="vit-b-32", type=click.Choice(list(SHAPES)))
@click.option("--batch-size", default=128, help="Batch size of the loader alone.")
@click.option("--step-batch-size", default=16, help="Batch size beside a step.")
@click.option(
    "--steps", default=4, help="Steps to time beside the loader; 0 times the loader alone."
)
@click.option("--workers", multiple=True, type=int, default=(0, 1, 2))
@click.option("--engine", "engines", multiple=True, default=("device", "torchvision"),
              type=click.Choice(get_args(Engine)))  # fmt: skip
@click.option("--cache", default="disk", type=click.Choice(get_args(Cache)))
@click.option("-o", "--output", required=True, type=click.Path(file_okay=False, path_type=Path))
def main(
    datasets: tuple[str, ...],
    shape: str,
    batch_size: int,
    step_batch_size: int,
    steps: int,
    workers: tuple[int, ...],
    engines: tuple[Engine, ...],
    cache: Cache,
    output: Path,
) -> None:
    """Measures each engine with each number of workers."""
    settings = {"shape": shape, "batch_size": batch_size, "step_batch_size": step_batch_size}
    settings |= {"steps": steps, "cache": cache, "engines": engines, "workers": workers}
    cpu_times = CpuTimes.now()
    run = record.document("loader", settings, command=shlex.join(["python", *sys.argv]))
    data = training_source([weighted(text) for text in datasets])
    captions = [caption for example in data.train for caption in example.captions]
    start = from_scratch(shape, learn_vocabulary(captions, SHAPES[shape].vocab_size), 0)
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
                    row |= beside(images, start, config, steps)
            rows.append(row)
            click.echo(json.dumps(row), err=True)
    run["machine"]["others_share"] = cpu_contention(cpu_times)
    run |= {"complete": True, "rows": rows}
    click.echo(f"record: {record.save(output, 'loader', run)}")


def alone(images: CaptionedImages, batch_size: int) -> dict[str, Any]:
    """Times the loader alone, for at most ten seconds."""
    start = time.perf_counter()
    batches = images.epoch(0, batch_size)
    next(batches)
    first, done = time.perf_counter(), 0
    for _ in batches:
        done += 1
        if time.perf_counter() - first > 10:
            break
    seconds = time.perf_counter() - first
    return {
        "first_batch_s": first - start,
        "ms_per_batch": seconds / done * 1e3,
        "images_per_s": done * batch_size / seconds,
    }


def beside(
    images: CaptionedImages, start: Start, config: TrainConfig, steps: int
) -> dict[str, Any]:
    """Times loader and step together, after two steps that compile and fill the queue."""
    objective, where = contrastive(config.step), layout(config.step.shard)
    state = initial_state(start.params, config, 100, objective, where)
    size = start.shape.image_size
    pixels = Preprocessor(size, (size, size))
    step = make_step(Recipe(start.shape, config, pixels, 100, objective, where))
    own = own_rows(where, config.batch_size)
    waited, computed = [], []
    batches = images.epoch(1, config.batch_size)
    for _ in range(2 + steps):
        start_wait = time.perf_counter()
        batch = next(batches)
        start_step = time.perf_counter()
        state, metrics = step(state, batch.arrays(own))
        jax.block_until_ready(metrics)
        waited.append(start_step - start_wait)
        computed.append(time.perf_counter() - start_step)
    waiting, computing = sum(waited[2:]), sum(computed[2:])
    return {
        "step_batch_size": config.batch_size,
        "step_ms": computing / steps * 1e3,
        "waiting": waiting / (waiting + computing),
    }


if __name__ == "__main__":
    main()
