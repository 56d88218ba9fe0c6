"""`rsicd-embed bench embed`: images a second of the model alone."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rsicd_embed.cli.base import note
from rsicd_embed.cli.bench.base import (
    Recorded,
    Variant,
    command_line,
    embedding_bench_options,
    finish,
    model_or_shape,
    teller,
    variants,
)

if TYPE_CHECKING:
    from rsicd_embed.bench.flops import Tower
    from rsicd_embed.bench.references import Choice
    from rsicd_embed.bench.torch_clip import ClipDirectory

NAME = "bench-embed"
_MATMUL_SIDE = 4096


@click.command(cls=Recorded)
@embedding_bench_options
@click.option(
    "--backend",
    "backends",
    multiple=True,
    metavar="NAME[:PRECISION]",
    help="What the model runs on; repeatable. The first is what the others are compared with.",
)
@click.option(
    "--against",
    metavar="NAMES",
    help="References on the same weights: torch,onnxruntime,openvino or none.  "
    "[default: those that are installed]",
)
@click.option("--texts", is_flag=True, help="Time texts too.")
@click.option(
    "--matmul-side",
    type=click.IntRange(0),
    help="Side of the square matrices whose product gives the float32 peak; 0 for none.  "
    f"[default: {_MATMUL_SIDE}; 0 where there is a GPU]",
)
@click.option("--one-process", is_flag=True, help="Not each candidate in a process of its own.")
@click.pass_context
def embed(
    context: click.Context,
    model: str | None,
    shape: str | None,
    backends: tuple[str, ...],
    precision: str | None,
    batch_size: int,
    rounds: int,
    seed: int,
    against: str | None,
    texts: bool,
    matmul_side: int | None,
    one_process: bool,
    output: Path,
    as_json: bool,
) -> None:
    """Time the model alone, on pixels that are ready, beside references on the same weights.

    All candidates embed the same batch, from bytes to unit vectors, and must agree. Each has a
    process of its own; every round runs all of them, in an order drawn anew.
    """
    from rsicd_embed.bench import embed as bench
    from rsicd_embed.bench import record, references
    from rsicd_embed.bench.machine import nvidia_gpus
    from rsicd_embed.bench.timing import Plan

    choice = references.choose(against)
    record.claim(output)
    gpus = nvidia_gpus()
    if matmul_side is None:
        matmul_side = 0 if gpus else _MATMUL_SIDE
    settings = bench.Settings(batch_size, texts, one_process, matmul_side or None)
    run = record.document(
        "embed",
        {"model": model or shape or "bundled", "rounds": rounds, "seed": seed}
        | {"batch_size": batch_size, "texts": texts, "one_process": one_process},
        command=command_line(context),
        accelerators=gpus,
    )
    with model_or_shape(model, shape) as source, tempfile.TemporaryDirectory() as graphs:
        ours = variants(source, batch_size, backends, precision)
        tower, candidates, left_out = _candidates(ours, choice, Path(graphs), settings)
        plan = Plan(rounds, seed)
        run |= bench.run(candidates, settings, plan, tower=tower, progress=teller())
    run["left_out"] = left_out
    for name, why in left_out.items():
        note(f"left out: {name} {why}")
    finish(output, NAME, run, _lines, as_json=as_json)


def _candidates(
    ours: list[Variant], choice: Choice, graphs: Path, settings: Any
) -> tuple[Tower | None, dict[str, Any], dict[str, str]]:
    """The image tower, candidates by name, and what is left out and why."""
    from rsicd_embed.bench import inputs, references

    found: dict[str, Any] = {variant.name: variant for variant in ours}
    described = _describe(ours[0].model)
    if described is None:
        reason = "needs a CLIP in the Hugging Face layout"
        return None, found, choice.left_out | dict.fromkeys(choice.chosen, reason)
    tower, directory = described
    if directory is None:
        reason = "needs a CLIP with a ViT: transformers has none with a ResNet"
        return tower, found, choice.left_out | dict.fromkeys(choice.chosen, reason)
    texts = inputs.texts(settings.batch_size) if settings.texts else []
    found |= references.makers(choice.chosen, directory, graphs, settings.batch_size, texts)
    return tower, found, choice.left_out


def _describe(
    model: str | None,
) -> tuple[Tower, ClipDirectory | None] | None:
    """Shape of a CLIP, and its place if a reference reads it; None for what a plug-in embeds."""
    from rsicd_embed import plugins
    from rsicd_embed.bench.flops import ConvolutionalTower, ImageTower
    from rsicd_embed.bench.torch_clip import ClipDirectory
    from rsicd_embed.embedder import preprocess
    from rsicd_embed.embedder.clip import config
    from rsicd_embed.embedder.clip.resnet_config import ResNetConfig
    from rsicd_embed.embedder.jsonfile import read_json
    from rsicd_embed.embedder.locate import locate

    name, colon, argument = str(model).partition(":")
    if colon and name in plugins.names(plugins.EMBEDDERS):
        if name != "clip":
            return None
        model = argument
    path = locate(model).directory
    clip = config.from_hf(read_json(path / "config.json"))
    pixels = preprocess.from_hf(read_json(path / "preprocessor_config.json"))
    vision = clip.vision
    if isinstance(vision, ResNetConfig):
        products = tuple(
            (side**2, one.inputs * one.side**2, one.outputs)
            for one, side in vision.maps(clip.image_size)
        )
        return ConvolutionalTower(clip.image_size, products, clip.dim), None
    tower = ImageTower(
        clip.image_size, clip.patch_size, vision.width, vision.layers, vision.mlp_width, clip.dim
    )
    directory = ClipDirectory(
        path, clip.image_size, clip.context_length, pixels.scale, pixels.mean, pixels.std
    )
    return tower, directory


def _lines(run: dict[str, Any]) -> list[str]:
    from rsicd_embed.bench.record import table

    lines = []
    for what in ("images", "texts"):
        if what not in run:
            continue
        first = next(iter(run[what]["candidates"]))
        to_first = {one["of"]: one for one in run[what]["ratios"] if one["to"] == first}
        rows = [("", f"{what}/s", "95%", "best", "× first", "95%", "of peak", "least cosine")]
        for name, one in run[what]["candidates"].items():
            ratio = to_first.get(name, {"ratio": 1.0, "interval": (1.0, 1.0)})
            peak = one.get("of_float32_peak")
            rows.append(
                (
                    name,
                    f"{one['per_s']:.1f}",
                    "{:.1f}–{:.1f}".format(*one["per_s_interval"]),
                    f"{one['per_s_best']:.1f}",
                    f"{ratio['ratio']:.3f}",
                    "{:.3f}–{:.3f}".format(*ratio["interval"]),
                    f"{peak['ratio']:.1%}" if peak else "",
                    f"{one['agreement_with_first']['least_cosine']:.6f}",
                )
            )
        lines += table(rows)
        overhead = run[what]["overhead"]
        lines.append(
            f"timing costs {overhead['null_ns']:.0f} ns a call, "
            f"{overhead['fraction']:.2g} of the shortest"
        )
    if run.get("peak"):
        peak = run["peak"]
        lines.append(f"float32 peak: {peak['gflop_per_s']:.1f} GFLOP/s ({peak['best']})")
    return lines
