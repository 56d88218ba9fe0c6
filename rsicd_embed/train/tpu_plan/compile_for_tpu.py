"""The training step, compiled ahead of time for TPUs that need not be there.

XLA's compiler for TPUs comes with libtpu and runs on any machine.
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
from rsicd_embed.train.mesh import abstract, layout
from rsicd_embed.train.objective import contrastive
from rsicd_embed.train.step import Recipe, jitted_step
from rsicd_embed.train.tpu_plan.collectives import collective_bytes
from rsicd_embed.train.tpu_plan.step_flops import abstract_arguments, embedding_flops
from rsicd_embed.train.tpu_plan.topology import KNOWN, Topology

_STEPS = 1000  # in a run; it only sets constants of the learning rate's schedule
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@dataclass(frozen=True)
class StepWorkload:
    """A training step.

    Attributes:
        config: of the run that it is a step of.
        keep_patches: fraction of the patches each image keeps. With 1, as in the last epochs of a
            run, the step needs the most memory.
    """

    config: TrainConfig
    keep_patches: float = 1.0

    @property
    def model(self) -> str:
        """What the model is called."""
        return self.config.model.init or self.config.model.shape

    def rounded(self, global_batch: int, devices: int) -> int:
        """The largest batch up to this one that devices can share, in whole parts; 0 for none."""
        parts = devices * self.config.step.chunk
        unit = parts if 0 < parts <= global_batch else devices
        return global_batch // unit * unit

    def recipe(self, devices: Sequence[Any], global_batch: int) -> Recipe:
        """The step on these devices.

        Raises:
            TrainError: they cannot share the batch.
            ModelError: the checkpoint to start from is none.
        """
        config = dataclasses.replace(self.config, batch_size=global_batch)
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
    """What XLA says of a compiled step; bytes and FLOPs are those of one device.

    Attributes:
        global_batch: images a step, over all devices.
        argument_bytes: the device's part of the state and of the batch.
        output_bytes: the next state, as far as it is not written over the old one.
        state_bytes: the next state.
        temporary_bytes: activations, gradients and all else that lives within the step.
        flops: of a step; the compiler may count less than `flops.step_flops`, where it found a
            cheaper way, or more, where it computes something twice.
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

    @property
    def batch_bytes(self) -> int:
        """Of the arguments, the device's part of the batch."""
        return self.argument_bytes - self.state_bytes


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
    everywhere = layout("data", devices).placement.everywhere
    too_much = abstract((1 << 40,), jnp.uint8, everywhere)
    try:
        jax.jit(lambda x: x + 1).lower(too_much).compile()
    except jax.errors.JaxRuntimeError as error:
        if told := re.search(r"available HBM \(([\d.]+)([KMGT])\)", str(error)):
            return int(float(told[1]) * _UNITS[told[2]])
    return None


def compile_step(
    workload: StepWorkload, devices: Sequence[Any], global_batch: int
) -> Compiled | None:
    """Compiles the step that `train` runs; None if the compiler finds that it does not fit."""
    recipe = workload.recipe(devices, global_batch)
    try:
        program = lower_step(recipe).compile()
    except jax.errors.JaxRuntimeError as error:
        if str(error).startswith("RESOURCE_EXHAUSTED"):
            return None
        raise
    found = measure(program, global_batch)
    if recipe.parts == 1:
        return found
    # XLA counts a loop's body once.
    uncounted = embedding_flops(recipe) * (1 - 1 / recipe.parts) / recipe.layout.devices
    return dataclasses.replace(found, flops=found.flops + uncounted)


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


def lower_step(recipe: Recipe) -> Any:
    """The step that `train` runs, lowered with the shapes of its arguments alone."""
    return jitted_step(recipe).lower(*abstract_arguments(recipe))
