"""`rsicd-embed train plan`: the training step compiled for TPUs, without one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from rsicd_embed.cli.base import PRECISIONS, SHAPES, json_option, print_json, show
from rsicd_embed.errors import TrainError

if TYPE_CHECKING:
    from rsicd_embed.embedder.clip.backends.base import Precision
    from rsicd_embed.train.plan import Plan


@click.command()
@click.option(
    "--topology",
    required=True,
    help="TPUs: v2-8, v3-8, v4-8, v5e-8, v5p-8, v6e-8 and larger, or a shape such as v5e:2x4.",
)
@click.option(
    "--shape", type=click.Choice(SHAPES), default="vit-b-32", show_default=True, help="The model."
)
@click.option(
    "--global-batch",
    default=1024,
    show_default=True,
    type=click.IntRange(1),
    help="Images a step, over all devices.",
)
@click.option(
    "--keep-patches",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True),
    help="Fraction of the patches kept; the last epochs of a run keep all.",
)
@click.option(
    "--precision",
    default="float32",
    show_default=True,
    type=click.Choice(PRECISIONS),
    help="What the towers compute in; `train` uses float32.",
)
@click.option(
    "--verify", is_flag=True, help="Compile the largest batch too, instead of estimating it."
)
@json_option
def plan(
    topology: str,
    shape: str,
    global_batch: int,
    keep_patches: float,
    precision: Precision,
    verify: bool,
    as_json: bool,
) -> None:
    """Compile the training step for TPUs, without a TPU.

    Prints what memory it needs and whether that is there, its FLOPs, what it sends between devices,
    and the largest batch. Takes a minute or two for a ViT-B/32.
    """
    from rsicd_embed.train.topology import ENVIRONMENT, parse

    parse(topology)  # told before JAX is loaded
    os.environ.update(ENVIRONMENT)
    try:
        from rsicd_embed.train.aot import Workload
        from rsicd_embed.train.plan import plan as make_plan
    except ModuleNotFoundError as error:
        raise TrainError(
            f"planning needs {error.name}, which is not installed: "
            "pip install 'rsicd-embed[train,tpu]'"
        ) from error

    workload = Workload(shape, keep_patches, precision)
    found = make_plan(topology, workload, global_batch, verify=verify)
    if as_json:
        print_json(found.as_json())
    else:
        for line in lines(found):
            show(line)


def lines(plan: Plan) -> Iterator[str]:
    """What is printed without `--json`."""
    exact = plan.compiled_global_batch == plan.global_batch
    source = f"estimated from a batch of {plan.compiled_global_batch:,}"
    parts = (
        f"arguments {_gib(plan.argument_bytes)} + outputs {_gib(plan.output_bytes)} "
        f"+ temporaries {_gib(plan.temporary_bytes)}"
    )
    yield (
        f"{plan.model}, {plan.precision}, global batch {plan.global_batch:,} "
        f"on {plan.topology}, {plan.devices} devices"
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
