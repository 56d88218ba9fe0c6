"""`rsicd-embed train plan`: compiles the training step for TPUs, without a TPU."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from rsicd_embed.cli.base import json_option, note, print_json, show
from rsicd_embed.cli.number_range import NumberRange
from rsicd_embed.cli.train.train_settings import config_options, read_config
from rsicd_embed.embedder.clip.backends import PRECISIONS
from rsicd_embed.errors import TrainError
from rsicd_embed.train.config import SHAPES, ModelConfig, StepConfig, TrainConfig, parse

if TYPE_CHECKING:
    from rsicd_embed.train.tpu_plan.plan import TpuPlan


# The step of CLIP-rsicd, unless settings or options override it.
_DEFAULTS = TrainConfig(
    ModelConfig(shape="vit-b-32"), step=StepConfig(loss="auto"), batch_size=1024
)


@click.command()
@click.option(
    "--topology",
    required=True,
    help="TPU slice: v2-8, v3-8, v4-8, v5e-8, v5p-8, v6e-8 and larger, or a shape such as v5e:2x4.",
)
@config_options
@click.option(
    "--shape",
    type=click.Choice(list(SHAPES)),
    help=f"Model shape; overrides the settings.  [default: {_DEFAULTS.model.shape}]",
)
@click.option(
    "--global-batch",
    type=click.IntRange(1),
    help=f"Images per step, over all devices.  [default: {_DEFAULTS.batch_size}]",
)
@click.option(
    "--keep-patches",
    type=NumberRange(0, 1, min_open=True),
    help="Fraction of the patches kept.  [default: the largest that the settings use]",
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    help=f"Dtype that the towers compute in.  [default: {_DEFAULTS.step.precision}]",
)
@click.option(
    "--verify", is_flag=True, help="Compile the largest batch too instead of estimating it."
)
@json_option
def plan(
    topology: str,
    config_file: str | None,
    assignments: tuple[str, ...],
    shape: str | None,
    global_batch: int | None,
    keep_patches: float | None,
    precision: str | None,
    verify: bool,
    as_json: bool,
) -> None:
    """Compile the training step for TPUs, without a TPU.

    This is the step of `train` with the same settings, except for the teacher. Prints the
    memory it needs, whether it fits, its FLOPs, the bytes sent between devices, and the largest
    batch. Takes a minute or two for a ViT-B/32.
    """
    from rsicd_embed.train.tpu_plan.topology import ENVIRONMENT
    from rsicd_embed.train.tpu_plan.topology import parse as parse_topology

    parse_topology(topology)  # reports errors before JAX is loaded
    os.environ.update(ENVIRONMENT)
    try:
        from rsicd_embed.train.tpu_plan.compile_for_tpu import StepWorkload
        from rsicd_embed.train.tpu_plan.plan import plan as make_plan
    except ModuleNotFoundError as error:
        raise TrainError(
            f"planning needs {error.name}, which is not installed: "
            "pip install 'rsicd-embed[train,tpu]'"
        ) from error

    options: dict[str, Any] = {
        "model.shape": shape,
        "batch_size": global_batch,
        "step.precision": precision,
    }
    given = {name: value for name, value in options.items() if value is not None}
    if shape is not None:
        given["model.init"] = None
    config = parse.replaced(read_config(config_file, assignments, base=_DEFAULTS), given)
    if keep_patches is None:
        keep_patches = 1.0 if config.step.unmasked else config.step.keep_patches
    if config.teacher.model is not None:
        note("the plan leaves out the teacher's part of the step and its memory")
    workload = StepWorkload(config, keep_patches)
    result = make_plan(topology, workload, config.batch_size, verify=verify)
    if as_json:
        print_json(dataclasses.asdict(result))
    else:
        for line in lines(result):
            show(line)


def lines(plan: TpuPlan) -> Iterator[str]:
    """Formats a plan for people."""
    exact = plan.compiled_global_batch == plan.global_batch
    source = f"estimated from a batch of {plan.compiled_global_batch:,}"
    parts = (
        f"arguments {_gib(plan.argument_bytes)} + outputs {_gib(plan.output_bytes)} "
        f"+ temporaries {_gib(plan.temporary_bytes)}"
    )
    yield (
        f"{plan.model}, {plan.precision}, {plan.shard}, "
        f"global batch {plan.global_batch:,} on {plan.topology}, {plan.devices} devices"
    )
    yield (
        f"memory per device: {_gib(plan.hbm_bytes_per_device)} GiB ({parts if exact else source}) "
        f"of {_gib(plan.hbm_limit_bytes)} for programs and {_gib(plan.hbm_capacity_bytes)} in all: "
        f"{'fits' if plan.fits else 'does not fit'}"
    )
    yield (
        f"FLOPs per step: {_si(plan.flops_per_step)}, {_si(plan.flops_per_device)} per device"
        f"{'' if exact else f', {source}'}"
    )
    sent = plan.collective_bytes_per_device
    kinds = ", ".join(f"{kind} {_si(size)}B" for kind, size in sent.items())
    yield (
        f"collectives per step and device: {kinds or 'none'}"
        f"{'' if exact else f', with a batch of {plan.compiled_global_batch:,}'}"
    )
    yield f"largest global batch: {plan.largest_global_batch:,}, " + (
        "an estimate (--verify compiles it)" if plan.largest_is_estimate else "compiled"
    )
    yield f"compiled in {plan.compile_seconds:.0f} s"


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f}"


def _si(value: float) -> str:
    """Formats three digits and an SI prefix: 45.3 T."""
    for unit in ("", "k", "M", "G", "T"):
        if value < 999.5:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} P"
