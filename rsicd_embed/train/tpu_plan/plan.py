"""Does a training step fit the memory of TPUs, what does it cost, and how large may a batch be?"""

from __future__ import annotations

import dataclasses
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
    """Bytes of a device as `fixed + each · n + squared · n²`, where n is the global batch."""

    fixed: float
    each: float
    squared: float

    def at(self, batch: int) -> int:
        """Bytes with this global batch."""
        return round(self.fixed + self.each * batch + self.squared * batch**2)

    def largest(self, limit: int, devices: int) -> int:
        """The largest global batch within `limit` bytes, a multiple of the devices; 0 for none."""
        free = limit - self.fixed
        if free <= 0:
            return 0
        root = math.sqrt(self.each**2 + 4 * self.squared * free)
        return int(2 * free / (self.each + root)) // devices * devices


def memory_model(one: Compiled, devices: int, *, in_parts: bool = False) -> MemoryModel:
    """Memory by batch, from one that was compiled.

    The state is always there; the logits, split over the devices by rows, grow with the square of
    the batch; all else is taken to grow with the batch. From a batch with room to spare that is
    what larger ones need without recomputing anything, told the more roughly the larger they are.
    The compiler takes still larger ones, recomputing activations, which costs
    FLOPs. With a batch embedded `in_parts` activations do not grow: what does is the batch itself,
    with a copy of it in the order of its parts.
    """
    n, squared = one.global_batch, _LOGITS_BYTES / devices
    rest = max(0, one.hbm_bytes - one.state_bytes - one.output_bytes - squared * n**2)
    growing = min(rest, _COPIES * one.batch_bytes) if in_parts else rest
    each = growing / n
    return MemoryModel(one.hbm_bytes - each * n - squared * n**2, each, squared)


@dataclass(frozen=True)
class TpuPlan:
    """Whether a step fits, and what it costs.

    Attributes:
        topology: as it was asked for.
        devices: number of JAX devices.
        hbm_bytes_per_device: arguments, temporaries, and outputs as far as they are not written
            over arguments.
        hbm_capacity_bytes: memory of a device.
        hbm_limit_bytes: what of it a program may take.
        flops_per_step: over all devices.
        collective_bytes_per_device: see `collectives.collective_bytes`.
        compiled_global_batch: the batch that was compiled. Where it is not `global_batch`, the
            compiler has refused that one, and all figures but the largest batch are those of the
            compiled one, except hbm_bytes_per_device and the FLOPs, which are scaled.
        largest_global_batch: a multiple of the devices; see `memory_model`.
        largest_is_estimate: whether it was derived from the compiled batch, not compiled.
        compile_seconds: of all that was compiled.
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

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return dataclasses.asdict(self)


def plan(
    topology: str, workload: StepWorkload, global_batch: int, *, verify: bool = False
) -> TpuPlan:
    """Compiles the step for a TPU topology, and says what it needs.

    A batch that the compiler refuses is halved until it accepts one.

    Args:
        topology: see `topology.parse`.
        workload: the step.
        global_batch: images a step, over all devices.
        verify: whether the largest batch is compiled too, and made smaller until it fits.

    Raises:
        TrainError: no such topology, a batch that its devices cannot share, no libtpu, or a model
            that does not fit with one image a device.
    """
    target = parse(topology)
    count = target.devices
    if global_batch < 1 or workload.rounded(global_batch, count) != global_batch:
        chunk = workload.config.step.chunk
        each = f", {chunk} images of each at a time" if chunk else ""
        raise TrainError(
            f"expected a batch divisible by the {count} devices of {topology}{each}, "
            f"found {global_batch}; give another --global-batch"
        )
    devices = tpu_devices(target)
    limit = min(target.hbm_bytes, compiler_limit(devices) or target.hbm_bytes)
    started = time.perf_counter()
    one = _compile_at_most(workload, devices, global_batch)
    if one is None:
        raise TrainError(
            f"expected a model that fits {topology} with one image a device, found "
            f"{workload.model}, which does not; give a topology with more memory a device"
        )
    model = memory_model(one, count, in_parts=workload.config.step.chunk > 0)
    bytes_there = one.hbm_bytes if one.global_batch == global_batch else model.at(global_batch)
    fits = one.global_batch == global_batch and bytes_there <= limit
    largest = workload.rounded(model.largest(limit, count), count)
    largest = (
        max(largest, global_batch)
        if fits
        else min(largest, workload.rounded(global_batch - count, count))
    )
    if verify:
        largest = _accepted(workload, devices, largest, limit, global_batch if fits else 0)
    flops = round(one.flops * global_batch / one.global_batch)
    return TpuPlan(
        topology=topology,
        model=workload.model,
        precision=workload.config.step.precision,
        shard=workload.config.step.shard,
        keep_patches=workload.keep_patches,
        devices=count,
        global_batch=global_batch,
        fits=fits,
        hbm_bytes_per_device=bytes_there,
        hbm_capacity_bytes=target.hbm_bytes,
        hbm_limit_bytes=limit,
        argument_bytes=one.argument_bytes,
        output_bytes=one.output_bytes,
        temporary_bytes=one.temporary_bytes,
        flops_per_step=flops * count,
        flops_per_device=flops,
        collective_bytes_per_device=one.collectives,
        compiled_global_batch=one.global_batch,
        largest_global_batch=largest,
        largest_is_estimate=not verify,
        compile_seconds=round(time.perf_counter() - started, 1),
    )


def _compile_at_most(workload: StepWorkload, devices: Sequence[Any], batch: int) -> Compiled | None:
    """The step with this batch, or half of it, or half of that …; None if none is accepted."""
    while batch:
        if compiled := compile_step(workload, devices, batch):
            return compiled
        batch = workload.rounded(batch // 2, len(devices))
    return None


def _accepted(
    workload: StepWorkload, devices: Sequence[Any], batch: int, limit: int, proven: int
) -> int:
    """This batch, or one a sixteenth smaller, and so on until it fits or is the `proven` one."""
    while batch > proven:
        compiled = compile_step(workload, devices, batch)
        if compiled and compiled.hbm_bytes <= limit:
            return batch
        batch = workload.rounded(batch * 15 // 16, len(devices))
    return proven
