"""Several processes, as on several hosts: how they meet, share a batch, and agree."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import jax
import numpy as np
from jax.experimental import multihost_utils

from rsicd_embed.errors import TrainError, first_line
from rsicd_embed.train.mesh import DeviceLayout

COORDINATOR = "JAX_COORDINATOR_ADDRESS"  # host:port of process 0
PROCESSES, PROCESS = "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"


def connect(*, detect: bool = False) -> None:
    """Meets the other processes, once; to be called before any device is used.

    The environment says who they are: COORDINATOR, PROCESSES and PROCESS, the same program being
    started once on every host. Without the first, nothing is done unless `detect`.

    Args:
        detect: ask the cluster where the environment does not say it (TPU pod, Slurm, MPI,
            Kubernetes), as jax.distributed does.

    Raises:
        TrainError: the environment does not say enough, there is no cluster, or the others cannot
            be reached.
    """
    address = os.environ.get(COORDINATOR)
    if jax.distributed.is_initialized() or (address is None and not detect):
        return
    count, own = (None, None) if address is None else (_number(PROCESSES), _number(PROCESS))
    try:
        jax.distributed.initialize(address, count, own)
    except (RuntimeError, ValueError) as error:
        reason = first_line(error).rstrip(".")
        remedy = f"; where no cluster says it, set {COORDINATOR}, {PROCESSES} and {PROCESS}"
        raise TrainError(
            f"the other processes of this run were not met: {reason}{'' if address else remedy}"
        ) from error


def is_writer() -> bool:
    """Whether this process writes the run's files; each writes its part of a checkpoint."""
    return jax.process_index() == 0


def own_rows(layout: DeviceLayout, batch_size: int) -> np.ndarray:
    """Which rows of a global batch this process feeds, in the order in which `place` takes them.

    Returns:
        int64 (rows,), ascending; all of them where there is one process.
    """
    indices = layout.rows(0).addressable_devices_indices_map((batch_size,))
    every = np.arange(batch_size)
    return np.unique(np.concatenate([every[index] for index in indices.values()]))


def place(layout: DeviceLayout, arrays: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """Every process's own rows → the arrays of the global batch, split over all devices."""
    where = layout.rows(0)
    place_one: Callable[..., jax.Array] = jax.make_array_from_process_local_data
    return {name: place_one(where, array) for name, array in arrays.items()}


def any_process(said: bool) -> bool:
    """Whether any process said so. Every process must call it, and gets the same answer."""
    if jax.process_count() == 1:
        return said
    return bool(np.any(multihost_utils.process_allgather(np.asarray(said))))


def wait_for_all(name: str) -> None:
    """Returns once every process is here; `name` says where, in errors."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def _number(variable: str) -> int:
    text = os.environ.get(variable, "")
    if not text.isdecimal():
        raise TrainError(
            f"expected {variable} to be a whole number, since {COORDINATOR} is set, found {text!r}"
        )
    return int(text)
