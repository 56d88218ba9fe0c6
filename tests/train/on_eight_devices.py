"""A program that compares eight devices with one, and prints JSON."""

from __future__ import annotations

import functools
import json
from typing import Any

import jax
import numpy as np

from rsicd_embed.train.distributed import layout, place
from rsicd_embed.train.step import gradients, jitted_step
from rsicd_embed.train.tpu_plan.step_costs import collective_bytes

from .steps import SIZE, batch, begin, config, flat, recipe

CASES: dict[str, dict[str, Any]] = {
    "data": {},
    "sigmoid": {"step__loss": "sigmoid"},
    "chunk": {"step__chunk": 1},
    "fsdp": {"step__shard": "fsdp"},
    "fsdp-chunk-remat": {"step__shard": "fsdp", "step__chunk": 1, "step__remat": "blocks"},
}


def gradient(of: Any, side: int) -> tuple[float, np.ndarray]:
    run = jax.jit(lambda state, arrays: gradients(of, state, arrays))
    (loss, _), gradient_tree = run(begin(of), batch(side=side))
    return float(loss), flat(gradient_tree)


@functools.cache  # shared by several cases
def on_one_device(loss: str, keep: float, side: int) -> tuple[float, np.ndarray]:
    return gradient(recipe(config(step__loss=loss), keep=keep), side)


def distances(name: str, settings: dict[str, Any]) -> dict[str, float]:
    """Distance between one device, with the whole batch at once, and eight."""
    keep, side = (0.5, SIZE + 2) if name == "data" else (1.0, SIZE)
    loss, single = on_one_device(settings.get("step__loss", "softmax"), keep, side)
    other, eight = gradient(recipe(config(**settings), jax.devices(), keep=keep), side)
    largest = float(np.abs(single).max())
    return {"loss": abs(loss - other), "gradient": float(np.abs(single - eight).max()) / largest}


def run_of(shard: str, devices: Any) -> dict[str, Any]:
    """Losses of a few steps, state size per device, and bytes of collectives."""
    of = recipe(config(optimizer__learning_rate=1e-3, step__shard=shard), devices)
    state, losses = begin(of), []
    size = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(state))
    step: Any = jitted_step(of).lower(state, place(of.layout, batch())).compile()
    for number in range(3):
        state, metrics = step(state, place(of.layout, batch(number)))
        losses.append(float(metrics["loss"]))
    analysis = step.memory_analysis()
    return {
        "losses": losses,
        "state": size,
        "output": analysis.output_size_in_bytes,
        "alias": analysis.alias_size_in_bytes,
        "collectives": collective_bytes(step.as_text()),
    }


if __name__ == "__main__":
    by_case = {name: distances(name, settings) for name, settings in CASES.items()}
    runs = {
        "one": run_of("data", jax.devices()[:1]),
        "data": run_of("data", jax.devices()),
        "fsdp": run_of("fsdp", jax.devices()),
    }
    shapes = ((64, 128), (128, 64), (63, 72), (63, 65), (8, 8), ())
    where = layout("fsdp")
    specs = {str(shape): str(list(where.parameter(shape).spec)) for shape in shapes}
    print(json.dumps({"distances": by_case, "runs": runs, "specs": specs}))  # noqa: T201
