"""How a step lies on devices: batches by rows, parameters whole or in parts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
from jax.sharding import NamedSharding, PartitionSpec

from rsicd_embed.embedder.clip.backends.on_jax import Placement, place_on

T = TypeVar("T")

# Smaller arrays are on every device: to gather them costs more time than they take memory.
_LEAST_SIZE = 4096


@dataclass(frozen=True)
class DeviceLayout:
    """One axis of devices, over which batches are split, and with `sharded` parameters too.

    Sharded are parameters, the average of them, and the optimiser's memory, each along its longest
    axis that the devices divide (fully sharded data parallelism, ZeRO: arXiv:1910.02054). The step
    is written for whole arrays; XLA puts in what is sent between devices.
    """

    placement: Placement
    sharded: bool

    @property
    def devices(self) -> int:
        """Number of devices; a batch must be divisible by it."""
        return self.placement.devices

    def state(self, tree: Any) -> Any:
        """Where each array of a state goes, by its shape alone."""
        return jax.tree.map(lambda leaf: self.parameter(leaf.shape), tree)

    def parameter(self, shape: tuple[int, ...]) -> NamedSharding:
        """Where an array of this shape goes."""
        axes = [axis for axis, side in enumerate(shape) if side and side % self.devices == 0]
        if not self.sharded or not axes or math.prod(shape) < _LEAST_SIZE:
            return self.placement.everywhere
        longest = max(axes, key=lambda axis: shape[axis])
        return self._along(longest)

    def rows(self, axis: int) -> NamedSharding:
        """Split along an axis that runs over images or texts."""
        return self._along(axis)

    def kept(self, tree: Any) -> Any:
        """Within the step: the arrays of a state, where they were."""
        return _constrained(tree, self.state(tree))

    def split(self, array: jax.Array, axis: int) -> jax.Array:
        """Within the step: an array, split along an axis that runs over images or texts."""
        return _constrained(array, self.rows(axis))

    def gathered(self, array: jax.Array) -> jax.Array:
        """Within the step: a parameter, whole on every device."""
        return _constrained(array, self.placement.everywhere) if self.sharded else array

    def _along(self, axis: int) -> NamedSharding:
        spec = PartitionSpec(*[None] * axis, "data")  # type: ignore[no-untyped-call]
        return NamedSharding(self.placement.by_batch.mesh, spec)


def _constrained(tree: T, where: Any) -> T:
    found: T = jax.lax.with_sharding_constraint(tree, where)  # type: ignore[no-untyped-call]
    return found


def abstract(shape: tuple[int, ...], dtype: Any, where: Any = None) -> jax.ShapeDtypeStruct:
    """An array that is not there."""
    return jax.ShapeDtypeStruct(shape, dtype, sharding=where)  # type: ignore[no-untyped-call]


def layout(shard: str, devices: Sequence[Any] | None = None) -> DeviceLayout:
    """A layout over `devices`, by default all of them, other processes' too.

    Args:
        shard: see StepConfig.
        devices: of JAX.
    """
    return DeviceLayout(place_on(jax.devices() if devices is None else devices), shard == "fsdp")
