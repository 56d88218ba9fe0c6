"""`rsicd-embed train plan`: the training step compiled for TPUs, without one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from rsicd_embed.cli.base import SHAPES, json_option, note, print_json, show
from rsicd_embed.cli.train.train_settings import config_options, read_config
from rsicd_embed.embedder.clip.backends import PRECISIONS
from rsicd_embed.errors import TrainError
from rsicd_embed.train.config import ModelConfig, TrainConfig, parse

if TYPE_CHECKING:
    from rsicd_embed.train.tpu_plan.plan import TpuPlan


# The step of CLIP-rsicd, where neither settings nor options say otherwise.
_DEFAULTS = TrainConfig(ModelConfig(shape="vit-b-32"), batch_size=1024)


@click.command()
@click.option(
    "--topology",
    required=True,
    help="TPUs: v2-8, v3-8, v4-8, v5e-8, v5p-8, v6e-8 and larger, or a shape such as v5e:2x4.",
)
@config_options
@click.option(
    "--shape",
    type=click.Choice(SHAPES),
    help=f"The model, instead of the settings'.  [default: {_DEFAULTS.model.shape}]",
)
@click.option(
    "--global-batch",
    type=click.IntRange(1),
    help=f"Images a step, over all devices.  [default: {_DEFAULTS.batch_size}]",
)
@click.option(
    "--keep-patches",
    type=click.FloatRange(0, 1, min_open=True),
    help="Fraction of the patches kept.  [default: the most that the settings ever keep]",
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    help=f"What the towers compute in.  [default: {_DEFAULTS.step.precision}]",
)
@click.option(
    "--verify", is_flag=True, help="Compile the largest batch too, instead of estimating it."
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

    It is the step of `train` with the same settings, but without a teacher. Prints what memory it
    needs and whether that is there, its FLOPs, what it sends between devices, and the largest
    batch. Takes a minute or two for a ViT-B/32.
    """
    from rsicd_embed.train.tpu_plan.topology import ENVIRONMENT
    from rsicd_embed.train.tpu_plan.topology import parse as parse_topology

    parse_topology(topology)  # told before JAX is loaded
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
        note("the teacher's part of the step is left out, and the memory of its similarities")
    workload = StepWorkload(config, keep_patches)
    found = make_plan(topology, workload, config.batch_size, verify=verify)
    if as_json:
        print_json(found.as_json())
    else:
        for line in lines(found):
            show(line)


def lines(plan: TpuPlan) -> Iterator[str]:
    """What is printed without `--json`."""
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
        f"{'' if exact else f', of a batch of {plan.compiled_global_batch:,}'}"
    )
    yield f"largest global batch: {plan.largest_global_batch:,}, " + (
        "an estimate (--verify compiles it)" if plan.largest_is_estimate else "compiled"
    )
    yield f"compiled in {plan.compile_seconds:.0f} s"


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f}"


def _si(value: float) -> str:
    """Three digits and a power of a thousand: 45.3 T."""
    for unit in ("", "k", "M", "G", "T"):
        if value < 999.5:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} P"
