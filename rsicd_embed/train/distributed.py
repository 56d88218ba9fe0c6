"""How a step is spread over devices, and a run over several processes."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from rsicd_embed.embedder.clip.backends.on_jax import Placement, place_on
from rsicd_embed.errors import TrainError, first_line

COORDINATOR = "JAX_COORDINATOR_ADDRESS"  # host:port of process 0
PROCESSES, PROCESS = "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"

T = TypeVar("T")

# Smaller arrays are replicated: gathering them takes more time than they save memory.
_MIN_SHARDED_SIZE = 4096


@dataclass(frozen=True)
class DeviceLayout:
    """One axis of devices over which batches and, if `sharded`, parameters are split.

    Sharding applies to the parameters, their average and the optimiser state, each along its
    longest axis divisible by the number of devices (fully sharded data parallelism, ZeRO:
    arXiv:1910.02054). The step is written for whole arrays; XLA inserts the communication.
    """

    placement: Placement
    sharded: bool

    @property
    def devices(self) -> int:
        """Number of devices; a batch must be divisible by it."""
        return self.placement.devices

    def state(self, tree: Any) -> Any:
        """The sharding of each array of a state, by its shape alone."""
        return jax.tree.map(lambda leaf: self.parameter(leaf.shape), tree)

    def parameter(self, shape: tuple[int, ...]) -> NamedSharding:
        """The sharding of a parameter with this shape."""
        axes = [axis for axis, side in enumerate(shape) if side and side % self.devices == 0]
        if not self.sharded or not axes or math.prod(shape) < _MIN_SHARDED_SIZE:
            return self.placement.everywhere
        return self.rows(max(axes, key=lambda axis: shape[axis]))

    def rows(self, axis: int) -> NamedSharding:
        """The sharding of an array that is split along `axis`."""
        spec = PartitionSpec(*[None] * axis, "data")  # type: ignore[no-untyped-call]
        return NamedSharding(self.placement.by_batch.mesh, spec)

    def pinned(self, tree: Any) -> Any:
        """Within the step: constrains the arrays of a state to their previous sharding."""
        return _constrained(tree, self.state(tree))

    def split(self, array: jax.Array, axis: int) -> jax.Array:
        """Within the step: splits an array along an axis that runs over images or texts."""
        return _constrained(array, self.rows(axis))

    def gathered(self, array: jax.Array) -> jax.Array:
        """Within the step: replicates a parameter on every device."""
        return _constrained(array, self.placement.everywhere) if self.sharded else array


def layout(shard: str, devices: Sequence[Any] | None = None) -> DeviceLayout:
    """Lays a step out over devices.

    Args:
        shard: see `StepConfig`.
        devices: JAX devices; all by default, including those of other processes.
    """
    return DeviceLayout(place_on(jax.devices() if devices is None else devices), shard == "fsdp")


def abstract(shape: tuple[int, ...], dtype: Any, sharding: Any = None) -> jax.ShapeDtypeStruct:
    """Describes an array without its data."""
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)  # type: ignore[no-untyped-call]


def connect(*, detect: bool = False) -> None:
    """Connects to the other processes of a run, once, before any device is used.

    The same program runs on every host, with COORDINATOR, PROCESSES and PROCESS in its environment.
    Without the first this does nothing, unless `detect` is set.

    Args:
        detect: let jax.distributed detect the cluster (TPU pod, Slurm, MPI, Kubernetes) if the
            environment does not describe it.
    """
    address = os.environ.get(COORDINATOR)
    if jax.distributed.is_initialized() or (address is None and not detect):
        return
    count, index = (None, None) if address is None else (_number(PROCESSES), _number(PROCESS))
    try:
        jax.distributed.initialize(address, count, index)
    except (RuntimeError, ValueError) as error:
        reason = first_line(error).rstrip(".")
        remedy = f"; without a cluster, set {COORDINATOR}, {PROCESSES} and {PROCESS}"
        raise TrainError(
            f"cannot connect to the other processes of this run: {reason}"
            f"{'' if address else remedy}"
        ) from error


def is_writer() -> bool:
    """Whether this process writes the run's files; each writes its part of a checkpoint."""
    return jax.process_index() == 0


def own_rows(layout: DeviceLayout, batch_size: int) -> np.ndarray:
    """Returns the rows of a global batch that this process feeds, in the order `place` expects.

    Returns:
        int64 (rows,), ascending; all rows if there is one process.
    """
    indices = layout.rows(0).addressable_devices_indices_map((batch_size,))
    every = np.arange(batch_size)
    return np.unique(np.concatenate([every[index] for index in indices.values()]))


def place(layout: DeviceLayout, arrays: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """Assembles the global batch, split over all devices, from each process's own rows."""
    sharding = layout.rows(0)
    assemble: Callable[..., jax.Array] = jax.make_array_from_process_local_data
    return {name: assemble(sharding, array) for name, array in arrays.items()}


def any_process(condition: bool) -> bool:
    """Whether `condition` is true on any process. Every process must call it."""
    if jax.process_count() == 1:
        return condition
    return bool(np.any(multihost_utils.process_allgather(np.asarray(condition))))


def wait_for_all(name: str) -> None:
    """Waits until every process has reached this point, which errors call `name`."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def _constrained(tree: T, sharding: Any) -> T:
    constrained: T = jax.lax.with_sharding_constraint(tree, sharding)  # type: ignore[no-untyped-call]
    return constrained


def _number(variable: str) -> int:
    text = os.environ.get(variable, "")
    if not text.isdecimal():
        raise TrainError(
            f"expected {variable} to be a whole number, since {COORDINATOR} is set, found {text!r}"
        )
    return int(text)
