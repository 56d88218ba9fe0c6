"""A program: what eight devices compute, and how far it is from what one does. Prints JSON."""

from __future__ import annotations

import json
from typing import Any

import jax
import numpy as np

from rsicd_embed.train.collectives import collective_bytes
from rsicd_embed.train.distributed import place
from rsicd_embed.train.mesh import layout
from rsicd_embed.train.step import gradients, jitted_step, make_step

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
    (loss, _), found = run(begin(of), batch(side=side))
    return float(loss), flat(found)


def distances(name: str, settings: dict[str, Any]) -> dict[str, float]:
    """One device, the whole batch at once, against eight."""
    keep, side = (0.5, SIZE + 2) if name == "data" else (1.0, SIZE)
    plain = {key: value for key, value in settings.items() if key == "step__loss"}
    loss, one = gradient(recipe(config(**plain), keep=keep), side)
    other, eight = gradient(recipe(config(**settings), jax.devices(), keep=keep), side)
    largest = float(np.abs(one).max())
    return {"loss": abs(loss - other), "gradient": float(np.abs(one - eight).max()) / largest}


def run_of(settings: dict[str, Any], devices: Any) -> list[float]:
    """Losses of a few steps."""
    of = recipe(config(optimizer__learning_rate=1e-3, **settings), devices)
    step, state, losses = make_step(of), begin(of), []
    for number in range(3):
        state, metrics = step(state, batch(number))
        losses.append(float(metrics["loss"]))
    return losses


def memory(shard: str) -> dict[str, Any]:
    """Of a step on eight devices: bytes of its state on each, and what is sent between them."""
    of = recipe(config(step__shard=shard), jax.devices())
    state = begin(of)
    compiled: Any = jitted_step(of).lower(state, place(of.layout, batch())).compile()
    analysis = compiled.memory_analysis()
    return {
        "state": sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(state)),
        "output": analysis.output_size_in_bytes,
        "alias": analysis.alias_size_in_bytes,
        "collectives": collective_bytes(compiled.as_text()),
    }


if __name__ == "__main__":
    found = {name: distances(name, settings) for name, settings in CASES.items()}
    runs = {
        "one": run_of({}, jax.devices()[:1]),
        "data": run_of({}, jax.devices()),
        "fsdp": run_of({"step__shard": "fsdp"}, jax.devices()),
    }
    kinds = {shard: memory(shard) for shard in ("data", "fsdp")}
    shapes = ((64, 128), (128, 64), (63, 72), (63, 65), (8, 8), ())
    where = layout("fsdp")
    specs = {str(shape): str(list(where.parameter(shape).spec)) for shape in shapes}
    said = {"distances": found, "runs": runs, "memory": kinds, "specs": specs}
    print(json.dumps(said))  # noqa: T201
