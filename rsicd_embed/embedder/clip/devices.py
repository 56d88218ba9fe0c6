"""How batches lie on devices: one axis of data, everything else on all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from rsicd_embed.embedder.clip.backends.engine_names import Precision


@dataclass(frozen=True)
class Placement:
    """Where arrays go: split along their first axis, or whole on every device."""

    by_batch: NamedSharding
    everywhere: NamedSharding

    @property
    def devices(self) -> int:
        """Number of devices; a batch must be divisible by it."""
        return int(self.by_batch.mesh.size)


def place_on(devices: Sequence[Any]) -> Placement:
    """A mesh of one axis. Its type is Auto: programs are written for the whole batch."""
    mesh = Mesh(np.asarray(devices), ("data",), axis_types=(AxisType.Auto,))
    split, whole = PartitionSpec("data"), PartitionSpec()  # type: ignore[no-untyped-call]
    return Placement(NamedSharding(mesh, split), NamedSharding(mesh, whole))


def compute_dtype(precision: Precision | None) -> Any:
    """What is computed in: bfloat16 on TPUs and GPUs, float32 on CPUs, unless said."""
    if precision is None:
        return jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    return jnp.dtype(precision)
