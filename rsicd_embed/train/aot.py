"""The training step, compiled ahead of time for TPUs that need not be there.

XLA's compiler for TPUs comes with libtpu and runs on any machine.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.experimental import topologies
from jax.sharding import NamedSharding

from rsicd_embed.embedder.clip.backends.base import Precision
from rsicd_embed.embedder.clip.devices import place_on
from rsicd_embed.embedder.clip.model import Clip
from rsicd_embed.embedder.preprocess import Preprocessor
from rsicd_embed.errors import TrainError
from rsicd_embed.train.collectives import collective_bytes
from rsicd_embed.train.config import TrainConfig
from rsicd_embed.train.data import stored_side
from rsicd_embed.train.shapes import SHAPES
from rsicd_embed.train.step import first_state, jitted_step
from rsicd_embed.train.topology import KNOWN, Topology

_STEPS = 1000  # in a run; it only sets constants of the learning rate's schedule
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@dataclass(frozen=True)
class Workload:
    """A training step.

    Attributes:
        model: a name of SHAPES.
        keep_patches: fraction of the patches each image keeps. With 1, as in the last epochs of a
            run, the step needs the most memory.
        precision: what the towers compute in; parameters and their updates are float32.
    """

    model: str
    keep_patches: float = 1.0
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        if self.model not in SHAPES:
            raise TrainError(f"expected a model of {', '.join(SHAPES)}, found {self.model!r}")
        if not 0 < self.keep_patches <= 1:
            raise TrainError(f"expected keep_patches in (0, 1], found {self.keep_patches}")


@dataclass(frozen=True)
class Compiled:
    """What XLA says of a compiled step; bytes and FLOPs are those of one device.

    Attributes:
        global_batch: images a step, over all devices.
        argument_bytes: the state, and the device's part of the batch.
        output_bytes: the next state, as far as it is not written over the old one.
        state_bytes: the next state.
        temporary_bytes: activations, gradients and all else that lives within the step.
        flops: of a step.
        collectives: see `collective_bytes`.
    """

    global_batch: int
    argument_bytes: int
    output_bytes: int
    state_bytes: int
    temporary_bytes: int
    flops: float
    collectives: dict[str, int]

    @property
    def hbm_bytes(self) -> int:
        """All that lies in a device's memory."""
        return self.argument_bytes + self.output_bytes + self.temporary_bytes


def tpu_devices(topology: Topology) -> Sequence[Any]:
    """Devices that can be compiled for, not run on. `topology.ENVIRONMENT` should be set.

    Raises:
        TrainError: libtpu is not installed, or knows no such topology.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise TrainError(
            "compiling for TPUs needs libtpu, which is not installed: "
            "pip install 'rsicd-embed[train,tpu]'"
        )
    how: dict[str, Any] = {"chips_per_host_bounds": topology.chips_per_host}
    if topology.chip.cores_joined:
        how["chip_config_name"] = "megacore"
    try:
        found = topologies.get_topology_desc(topology.name, "tpu", **how)
    except jax.errors.JaxRuntimeError as error:
        if not str(error).startswith("INVALID_ARGUMENT"):
            raise
        raise TrainError(
            f"expected a topology that libtpu knows, found {topology.name} ({error}); "
            f"give one of {KNOWN}"
        ) from error
    return found.devices


def compiler_limit(devices: Sequence[Any]) -> int | None:
    """What the compiler gives to a program of a device's memory, in bytes; None if it is not told.

    It keeps some for itself, and says how much is left only when a program asks for more.
    """
    too_much = _array((1 << 40,), jnp.uint8, place_on(devices).everywhere)
    try:
        jax.jit(lambda x: x + 1).lower(too_much).compile()
    except jax.errors.JaxRuntimeError as error:
        if told := re.search(r"available HBM \(([\d.]+)([KMGT])\)", str(error)):
            return int(float(told[1]) * _UNITS[told[2]])
    return None


def compile_step(workload: Workload, devices: Sequence[Any], global_batch: int) -> Compiled | None:
    """Compiles the step that `train` runs; None if the compiler finds that it does not fit."""
    try:
        program = lower_step(workload, devices, global_batch).compile()
    except jax.errors.JaxRuntimeError as error:
        if str(error).startswith("RESOURCE_EXHAUSTED"):
            return None
        raise
    return measure(program, global_batch)


def measure(program: jax.stages.Compiled, global_batch: int) -> Compiled:
    """What XLA says of a compiled step with this batch."""
    memory: Any = program.memory_analysis()
    costs: Any = program.cost_analysis()
    return Compiled(
        global_batch,
        argument_bytes=memory.argument_size_in_bytes,
        output_bytes=memory.output_size_in_bytes - memory.alias_size_in_bytes,
        state_bytes=memory.output_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
        flops=costs["flops"],
        collectives=collective_bytes(program.as_text() or ""),
    )


def lower_step(workload: Workload, devices: Sequence[Any], global_batch: int) -> Any:
    """The step that `train` runs, lowered for `devices` with the shapes of its arguments alone."""
    model = SHAPES[workload.model]
    config = TrainConfig(batch_size=global_batch)
    dtype = jnp.dtype(workload.precision)
    graph, params = nnx.split(
        nnx.eval_shape(lambda: Clip(model, dtype=dtype, rngs=nnx.Rngs(config.seed)))
    )
    size, side = model.image_size, stored_side(model.image_size)
    step = jitted_step(
        graph,
        model,
        config,
        Preprocessor(size, (size, size)),
        _STEPS,
        keep_patches=workload.keep_patches,
    )
    place = place_on(devices)
    state = jax.tree.map(
        lambda one: _array(one.shape, one.dtype, place.everywhere),
        jax.eval_shape(lambda: first_state(params, config, _STEPS)),
    )
    pixels = _array((global_batch, side, side, 3), jnp.uint8, place.by_batch)
    tokens = _array((global_batch, model.context_length), jnp.int32, place.by_batch)
    groups = _array((global_batch,), jnp.int32, place.by_batch)
    return step.lower(state, pixels, tokens, groups)


def _array(shape: tuple[int, ...], dtype: Any, where: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=where)  # type: ignore[no-untyped-call]
