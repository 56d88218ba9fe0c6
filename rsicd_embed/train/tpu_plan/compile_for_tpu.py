"""Ahead-of-time compilation of the training step for TPUs, without a TPU.

XLA's TPU compiler is part of libtpu and runs on any machine.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import topologies

from rsicd_embed.embedder.preprocess import Preprocessor
from rsicd_embed.errors import TrainError
from rsicd_embed.train import initialization
from rsicd_embed.train.config import TrainConfig
from rsicd_embed.train.distributed import abstract, layout
from rsicd_embed.train.objective import contrastive
from rsicd_embed.train.step import Recipe, jitted_step
from rsicd_embed.train.tpu_plan.step_costs import (
    abstract_arguments,
    collective_bytes,
    embedding_flops,
)
from rsicd_embed.train.tpu_plan.topology import KNOWN, Topology

_STEPS = 1000  # steps of the run, which only affect constants of the learning-rate schedule
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@dataclass(frozen=True)
class StepWorkload:
    """A training step to compile.

    Attributes:
        config: settings of the run.
        keep_patches: fraction of the patches that each image keeps. A step needs most memory with
            1, as in the last epochs of a run.
    """

    config: TrainConfig
    keep_patches: float = 1.0

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.config.model.init or self.config.model.shape

    def rounded(self, global_batch: int, devices: int) -> int:
        """The largest batch up to this one that divides over devices and chunks; 0 for none."""
        parts = devices * self.config.step.chunk
        unit = parts if 0 < parts <= global_batch else devices
        return global_batch // unit * unit

    def recipe(self, devices: Sequence[Any], global_batch: int) -> Recipe:
        """The step on these devices."""
        config = dataclasses.replace(
            initialization.with_own_loss(self.config), batch_size=global_batch
        )
        model = initialization.shape_of(config.model)
        return Recipe(
            model,
            config,
            Preprocessor(model.image_size, (model.image_size, model.image_size)),
            _STEPS,
            contrastive(config.step),
            layout(config.step.shard, devices),
            self.keep_patches,
        )


@dataclass(frozen=True)
class Compiled:
    """XLA's analysis of a compiled step, per device.

    Attributes:
        global_batch: images per step, over all devices.
        argument_bytes: the device's part of the state and the batch.
        output_bytes: the part of the next state that does not reuse the old one's memory.
        state_bytes: the next state.
        temporary_bytes: activations, gradients and everything else within the step.
        flops: operations per step; fewer than `step_flops` where the compiler found a cheaper way,
            more where it recomputes.
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
        """Memory that the step uses on a device."""
        return self.argument_bytes + self.output_bytes + self.temporary_bytes

    @property
    def batch_bytes(self) -> int:
        """The device's part of the batch."""
        return self.argument_bytes - self.state_bytes


def tpu_devices(topology: Topology) -> Sequence[Any]:
    """Returns devices to compile for; `topology.ENVIRONMENT` must be set."""
    if importlib.util.find_spec("libtpu") is None:
        raise TrainError(
            "compiling for TPUs needs libtpu, which is not installed: "
            "pip install 'rsicd-embed[train,tpu]'"
        )
    options: dict[str, Any] = {"chips_per_host_bounds": topology.chips_per_host}
    if topology.chip.cores_joined:
        options["chip_config_name"] = "megacore"
    try:
        description = topologies.get_topology_desc(topology.name, "tpu", **options)
    except jax.errors.JaxRuntimeError as error:
        if not str(error).startswith("INVALID_ARGUMENT"):
            raise
        raise TrainError(
            f"expected a topology that libtpu knows, found {topology.name} ({error}); "
            f"give one of {KNOWN}"
        ) from error
    return description.devices


def compiler_limit(devices: Sequence[Any]) -> int | None:
    """Device memory that the compiler leaves to programs, in bytes; None if unknown.

    The compiler reports it only when a program asks for too much.
    """
    everywhere = layout("data", devices).placement.everywhere
    too_much = abstract((1 << 40,), jnp.uint8, everywhere)
    try:
        jax.jit(lambda x: x + 1).lower(too_much).compile()
    except jax.errors.JaxRuntimeError as error:
        if match := re.search(r"available HBM \(([\d.]+)([KMGT])\)", str(error)):
            return int(float(match[1]) * _UNITS[match[2]])
    return None


def compile_step(
    workload: StepWorkload, devices: Sequence[Any], global_batch: int
) -> Compiled | None:
    """Compiles the step that `train` runs; returns None if it does not fit."""
    recipe = workload.recipe(devices, global_batch)
    try:
        program = jitted_step(recipe).lower(*abstract_arguments(recipe)).compile()
    except jax.errors.JaxRuntimeError as error:
        if str(error).startswith("RESOURCE_EXHAUSTED"):
            return None
        raise
    compiled = measure(program, global_batch)
    if recipe.parts == 1:
        return compiled
    # XLA counts a loop's body once.
    uncounted = embedding_flops(recipe) * (1 - 1 / recipe.parts) / recipe.layout.devices
    return dataclasses.replace(compiled, flops=compiled.flops + uncounted)


def measure(program: jax.stages.Compiled, global_batch: int) -> Compiled:
    """Reads XLA's analysis of a compiled step."""
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
