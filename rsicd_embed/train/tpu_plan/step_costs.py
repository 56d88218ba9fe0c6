"""Costs of a training step: its FLOPs, and the bytes sent between devices."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from functools import partial
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from rsicd_embed.embedder.clip.model import Clip
from rsicd_embed.train.config import TrainConfig
from rsicd_embed.train.distributed import abstract, layout
from rsicd_embed.train.input.captioned_images import batch_side
from rsicd_embed.train.state import TrainState, every_parameter, first_state
from rsicd_embed.train.step import Recipe, embed, jitted_step, rows_of

Shapes = dict[str, jax.ShapeDtypeStruct]

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)

_ARRAY = r"\w+\[[^\]]*\](?:\{[^}]*\})?"  # element type, dimensions, layout
_TUPLE = r"\((?:[^()]|\([^()]*\))*\)"  # layouts contain parentheses: T(8,128)
_INSTRUCTION = re.compile(
    rf"\s*(?:ROOT )?%?[\w.-]+ = (?P<shape>{_ARRAY}|{_TUPLE}) "
    rf"(?P<kind>{'|'.join(KINDS)})(?:-done)?\("
)
_COMPUTATION = re.compile(r"(?P<entry>ENTRY )?%?(?P<name>[\w.-]+) (?:\(.*)?\{$")
_BODY = re.compile(r" while\(.*\bbody=%?(?P<name>[\w.-]+)")
_CALLED = re.compile(
    r"\b(?:to_apply|calls|condition|true_computation|false_computation|branch_computations)="
    r"(?P<names>%?[\w.-]+|\{[^}]*\})"
)
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(?P<count>\d+)"\}')
_PART = re.compile(r"(\w+)\[([\d,<=]*)\]")


def abstract_arguments(recipe: Recipe) -> tuple[TrainState, Shapes]:
    """Arguments to lower a `jitted_step` with: shapes, dtypes and shardings.

    Arrays that only the objective reads are left out.
    """
    params = nnx.eval_shape(lambda: nnx.state(Clip(recipe.model, rngs=nnx.Rngs(0))))
    named = jax.eval_shape(partial(every_parameter, objective=recipe.objective), params)
    state = jax.eval_shape(partial(first_state, config=recipe.config, steps=recipe.steps), named)
    size = recipe.config.batch_size
    side = batch_side(recipe.model.image_size, recipe.config.augment)
    batch = {
        "pixels": ((size, side, side, 3), jnp.uint8),
        "tokens": ((size, recipe.model.context_length), jnp.int32),
        "groups": ((size, 2), jnp.int32),
    }
    shardings = recipe.layout.state(state)
    return (
        jax.tree.map(lambda x, sharding: abstract(x.shape, x.dtype, sharding), state, shardings),
        {
            name: abstract(shape, dtype, recipe.layout.rows(0))
            for name, (shape, dtype) in batch.items()
        },
    )


def step_flops(recipe: Recipe) -> float:
    """Floating-point operations of a step over all devices, excluding recomputation.

    Recomputation by `step.remat` and `step.chunk` is not counted, as in model FLOPs utilisation
    (PaLM, arXiv:2204.02311, appendix B). The objective must not need a teacher's arrays.
    """
    step = dataclasses.replace(recipe.config.step, remat="none", chunk=0)
    plain = _on_one_device(recipe, dataclasses.replace(recipe.config, step=step))
    return _flops(jitted_step(plain).lower(*abstract_arguments(plain)))


def embedding_flops(recipe: Recipe) -> float:
    """Operations in the towers of a step with `step.chunk`: two forward passes and one backward."""
    single = _on_one_device(recipe, recipe.config)
    state, batch = abstract_arguments(single)

    def forward(trained: Any, state: TrainState, batch: Any) -> Any:
        return embed(single, state, trained, rows_of(single, state, batch))

    def backward(state: TrainState, batch: Any) -> Any:
        embeddings, vjp = jax.vjp(lambda trained: forward(trained, state, batch), state.trained)
        return vjp(embeddings)

    once = jax.jit(forward).lower(state.trained, state, batch)
    return _flops(once) + _flops(jax.jit(backward).lower(state, batch))


def _on_one_device(recipe: Recipe, config: TrainConfig) -> Recipe:
    """The same step for one device, preferably a CPU, whose FLOPs XLA always counts."""
    try:
        devices = jax.devices("cpu")[:1]
    except RuntimeError:
        devices = jax.local_devices()[:1]
    return dataclasses.replace(recipe, config=config, layout=layout("data", devices))


def _flops(lowered: jax.stages.Lowered) -> float:
    costs: Any = lowered.cost_analysis()
    return float(costs["flops"])


def collective_bytes(hlo: str) -> dict[str, int]:
    """Sums the sizes of collective operations' results on each device, by kind of operation.

    The traffic on a link depends on the algorithm and may differ. An asynchronous pair counts at
    its end, where the result is. A loop counts as often as the compiler knows it to run, else once.

    Example:
        >>> collective_bytes("  %r.1 = bf16[8,4]{1,0:T(8,128)} all-reduce(%x), channel_id=1")
        {'all-reduce': 64}
    """
    entry, computations = _computations(hlo)
    totals: dict[str, int] = {}

    def add(name: str, times: int) -> None:
        for line in computations.get(name, ()):
            if collective := _INSTRUCTION.match(line):
                size = times * _bytes(_PART.findall(collective["shape"]))
                totals[collective["kind"]] = totals.get(collective["kind"], 0) + size
            if body := _BODY.search(line):
                trips = _TRIPS.search(line)
                add(body["name"], times * (int(trips["count"]) if trips else 1))
            elif collective is None:  # the reduction that a collective applies sends nothing
                for called in _CALLED.finditer(line):
                    for callee in re.findall(r"[\w.-]+", called["names"]):
                        add(callee, times)

    add(entry, 1)
    return totals


def _computations(hlo: str) -> tuple[str, dict[str, list[str]]]:
    """Name of the entry computation, and the lines of each computation by name."""
    name = entry = ""
    computations: dict[str, list[str]] = {name: []}
    for line in hlo.splitlines():
        if header := _COMPUTATION.match(line):
            name = header["name"]
            computations[name] = []
            entry = name if header["entry"] else entry
        else:
            computations[name].append(line)
    return entry, computations


def _bytes(arrays: Iterable[tuple[str, str]]) -> int:
    """Size of arrays, given by element type (f32, bf16, s4, pred) and dimensions."""
    total = 0
    for element, dimensions in arrays:
        width = re.search(r"\d+", element)
        bits = int(width[0]) if width else 8 if element == "pred" else 0
        sizes = [int(size) for size in re.findall(r"\d+", dimensions)]
        total += -(-prod(sizes) * bits // 8)
    return total
