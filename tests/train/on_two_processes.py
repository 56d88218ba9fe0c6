"""A program for two processes that train together; prints JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jax

from rsicd_embed.train import distributed
from rsicd_embed.train.checkpoint import Checkpoints
from rsicd_embed.train.step import make_step

from .steps import batch, begin, config, recipe

SETTINGS = {"optimizer__learning_rate": 1e-3, "optimizer__warmup": 0.0}


def losses(of: Any, state: Any, numbers: tuple[int, ...]) -> tuple[list[float], Any]:
    step, seen = make_step(of), []
    own = distributed.own_rows(of.layout, of.config.batch_size)
    for number in numbers:
        arrays = {name: array[own] for name, array in batch(number).items()}
        state, metrics = step(state, arrays)
        seen.append(float(metrics["loss"]))
    return seen, state


def main(folder: Path) -> dict[str, Any]:
    distributed.connect()
    both = recipe(config(step__shard="fsdp", **SETTINGS), jax.devices())
    together, state = losses(both, begin(both), (0, 1))
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(state, 2)
    with Checkpoints(folder) as checkpoints:
        again, step = checkpoints.restore(begin(both))
    last, _ = losses(both, again, (2,))
    alone = recipe(config(**SETTINGS), jax.local_devices()[:1])
    single, _ = losses(alone, begin(alone), (0, 1, 2))
    own = distributed.own_rows(both.layout, 16)
    agreed = distributed.any_process(distributed.is_writer())
    distributed.wait_for_all("the end")
    return {
        "processes": jax.process_count(),
        "writer": distributed.is_writer(),
        "own": own.tolist(),
        "step": step,
        "together": together + last,
        "alone": single,
        "agreed": agreed,
        "nobody": distributed.any_process(False),
        "sharded": not all(leaf.is_fully_replicated for leaf in jax.tree.leaves(again.trained)),
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))  # noqa: T201
