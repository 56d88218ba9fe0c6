"""Plans a training step for TPUs: whether it fits, its costs, and the largest batch."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rsicd_embed.errors import TrainError
from rsicd_embed.train.tpu_plan.compile_for_tpu import (
    Compiled,
    StepWorkload,
    compile_step,
    compiler_limit,
    tpu_devices,
)
from rsicd_embed.train.tpu_plan.topology import parse

# The loss and its gradient keep three float32 arrays as large as the logits: measured on the loss
# alone, compiled for v3-8, with batches of 16,384 (3.3) and 65,536 (3.1).
_LOGITS_BYTES = 3 * 4
_COPIES = 2


@dataclass(frozen=True)
class MemoryModel:
    """Memory of a device in bytes, `fixed + each · n + squared · n²` for a global batch n."""

    fixed: float
    each: float
    squared: float

    def at(self, batch: int) -> int:
        """Memory with this global batch, in bytes."""
        return round(self.fixed + self.each * batch + self.squared * batch**2)

    def largest(self, limit: int, devices: int) -> int:
        """The largest global batch within `limit` bytes, a multiple of `devices`; 0 for none."""
        free = limit - self.fixed
        if free <= 0:
            return 0
        root = math.sqrt(self.each**2 + 4 * self.squared * free)
        return int(2 * free / (self.each + root)) // devices * devices


def memory_model(compiled: Compiled, devices: int, *, in_parts: bool = False) -> MemoryModel:
    """Extrapolates memory from a compiled batch to other batch sizes.

    The state is constant; the logits, split over devices by rows, grow with the square of the
    batch; everything else is assumed to grow linearly. The estimate assumes no recomputation and
    gets rougher with distance; the compiler fits still larger batches by recomputing activations,
    at the cost of FLOPs. With `in_parts`, activations do not grow, only the batch itself and a copy
    of it in the order of its parts.
    """
    n, squared = compiled.global_batch, _LOGITS_BYTES / devices
    rest = compiled.hbm_bytes - compiled.state_bytes - compiled.output_bytes - squared * n**2
    growing = min(max(0, rest), _COPIES * compiled.batch_bytes) if in_parts else max(0, rest)
    each = growing / n
    return MemoryModel(compiled.hbm_bytes - each * n - squared * n**2, each, squared)


@dataclass(frozen=True)
class TpuPlan:
    """Whether a step fits a topology, and its costs.

    Attributes:
        topology: the topology as requested.
        devices: number of JAX devices.
        hbm_bytes_per_device: memory for arguments, temporaries, and outputs that do not reuse the
            memory of arguments.
        hbm_capacity_bytes: memory of a device.
        hbm_limit_bytes: the part of it that is available to programs.
        flops_per_step: operations over all devices.
        collective_bytes_per_device: see `collective_bytes`.
        compiled_global_batch: the batch that was compiled. If it differs from `global_batch`, that
            one did not fit: hbm_bytes_per_device and the FLOPs are scaled to it, and all other
            values except the largest batch are those of the compiled one.
        largest_global_batch: a multiple of the devices; see `memory_model`.
        largest_is_estimate: whether it was extrapolated instead of compiled.
        compile_seconds: total compilation time.
    """

    topology: str
    model: str
    precision: str
    shard: str
    keep_patches: float
    devices: int
    global_batch: int
    fits: bool
    hbm_bytes_per_device: int
    hbm_capacity_bytes: int
    hbm_limit_bytes: int
    argument_bytes: int
    output_bytes: int
    temporary_bytes: int
    flops_per_step: int
    flops_per_device: int
    collective_bytes_per_device: dict[str, int]
    compiled_global_batch: int
    largest_global_batch: int
    largest_is_estimate: bool
    compile_seconds: float


def plan(
    topology: str, workload: StepWorkload, global_batch: int, *, verify: bool = False
) -> TpuPlan:
    """Compiles the step for a TPU topology and reports its requirements.

    A batch that does not fit is halved until one does.

    Args:
        topology: see `topology.parse`.
        workload: the step.
        global_batch: images per step, over all devices.
        verify: whether to compile the largest batch too, reducing it until it fits.

    Raises:
        TrainError: the topology is unknown, its devices cannot share the batch, libtpu is missing,
            or the model does not fit with one image per device.
    """
    target = parse(topology)
    count = target.devices
    if global_batch < 1 or workload.rounded(global_batch, count) != global_batch:
        chunk = workload.config.step.chunk
        chunks = f" in chunks of {chunk} images" if chunk else ""
        raise TrainError(
            f"expected a batch divisible by the {count} devices of {topology}{chunks}, "
            f"found {global_batch}; give another --global-batch"
        )
    devices = tpu_devices(target)
    limit = min(target.hbm_bytes, compiler_limit(devices) or target.hbm_bytes)
    started = time.perf_counter()
    compiled = _compile_at_most(workload, devices, global_batch)
    if compiled is None:
        raise TrainError(
            f"expected a model that fits {topology} with one image per device, found "
            f"{workload.model}, which does not; give a topology with more memory per device"
        )
    model = memory_model(compiled, count, in_parts=workload.config.step.chunk > 0)
    exact = compiled.global_batch == global_batch
    hbm_bytes = compiled.hbm_bytes if exact else model.at(global_batch)
    fits = exact and hbm_bytes <= limit
    largest = workload.rounded(model.largest(limit, count), count)
    largest = (
        max(largest, global_batch)
        if fits
        else min(largest, workload.rounded(global_batch - count, count))
    )
    if verify:
        largest = _accepted(workload, devices, largest, limit, global_batch if fits else 0)
    flops = round(compiled.flops * global_batch / compiled.global_batch)
    return TpuPlan(
        topology=topology,
        model=workload.model,
        precision=workload.config.step.precision,
        shard=workload.config.step.shard,
        keep_patches=workload.keep_patches,
        devices=count,
        global_batch=global_batch,
        fits=fits,
        hbm_bytes_per_device=hbm_bytes,
        hbm_capacity_bytes=target.hbm_bytes,
        hbm_limit_bytes=limit,
        argument_bytes=compiled.argument_bytes,
        output_bytes=compiled.output_bytes,
        temporary_bytes=compiled.temporary_bytes,
        flops_per_step=flops * count,
        flops_per_device=flops,
        collective_bytes_per_device=compiled.collectives,
        compiled_global_batch=compiled.global_batch,
        largest_global_batch=largest,
        largest_is_estimate=not verify,
        compile_seconds=round(time.perf_counter() - started, 1),
    )


def _compile_at_most(workload: StepWorkload, devices: Sequence[Any], batch: int) -> Compiled | None:
    """Halves the batch until the step compiles; None if it never does."""
    while batch:
        if compiled := compile_step(workload, devices, batch):
            return compiled
        batch = workload.rounded(batch // 2, len(devices))
    return None


def _accepted(
    workload: StepWorkload, devices: Sequence[Any], batch: int, limit: int, proven: int
) -> int:
    """Shrinks the batch by a sixteenth until it fits or reaches the `proven` one."""
    while batch > proven:
        compiled = compile_step(workload, devices, batch)
        if compiled and compiled.hbm_bytes <= limit:
            return batch
        batch = workload.rounded(batch * 15 // 16, len(devices))
    return proven
