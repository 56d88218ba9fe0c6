"""`rsicd-embed bench embed`: images a second of the model alone."""

from __future__ import annotations

import itertools
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rsicd_embed.cli.base import note
from rsicd_embed.cli.bench.base import (
    Recorded,
    Variant,
    command_line,
    finish,
    model_or_shape,
    precision_option,
    record_options,
    variants,
)
from rsicd_embed.cli.bench.embed_lines import lines
from rsicd_embed.train.shapes import PUBLISHED_SHAPES

if TYPE_CHECKING:
    from rsicd_embed.bench.flops import Tower
    from rsicd_embed.bench.reference_choice import ReferenceChoice
    from rsicd_embed.bench.torch_clip import ClipDirectory

NAME = "bench-embed"
_MATMUL_SIDE = 4096


@dataclass(frozen=True)
class ModelSource:
    """A model, or a shape with random weights; neither for the bundled model."""

    model: str | None
    shape: str | None

    @property
    def name(self) -> str:
        """In the record."""
        return self.model or self.shape or "bundled"


@click.command(cls=Recorded)
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="MODEL",
    help="A Hugging Face id or a directory in its CLIP layout; repeatable. "
    "[default: the bundled model]",
)
@click.option(
    "--shape",
    "shapes",
    multiple=True,
    type=click.Choice(PUBLISHED_SHAPES),
    help="Instead of a model, one of this shape with random weights; repeatable.",
)
@precision_option
@click.option(
    "--batch-size",
    "batch_sizes",
    multiple=True,
    default=(64,),
    show_default="64",
    type=click.IntRange(1),
    help="Images embedded at once; repeatable.",
)
@record_options
@click.option(
    "--backend",
    "backends",
    multiple=True,
    metavar="NAME[:PRECISION]",
    help="What a model runs on; repeatable. The first is what the others are compared with.",
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
    models: tuple[str, ...],
    shapes: tuple[str, ...],
    backends: tuple[str, ...],
    precision: str | None,
    batch_sizes: tuple[int, ...],
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
    process of its own; every round runs all of them, in an order drawn anew. Several models or
    batch sizes are timed one after the other.
    """
    from rsicd_embed.bench import combined, references
    from rsicd_embed.bench import embed_rates as bench
    from rsicd_embed.cli.progress import status_printer
    from rsicd_embed.reports import record
    from rsicd_embed.reports.machine import nvidia_gpus
    from rsicd_embed.reports.timing import TimingPlan

    if models and shapes:
        raise click.UsageError("expected --model or --shape, found both")
    choice = references.choose(against)
    record.claim(output)
    gpus = nvidia_gpus()
    if matmul_side is None:
        matmul_side = 0 if gpus else _MATMUL_SIDE
    sources: list[ModelSource] = [ModelSource(one, None) for one in dict.fromkeys(models)]
    sources += [ModelSource(None, one) for one in dict.fromkeys(shapes)]
    sizes = list(dict.fromkeys(batch_sizes))
    pairs = list(itertools.product(sources or [ModelSource(None, None)], sizes))
    run = record.document(
        "embed",
        {"model": ", ".join(dict.fromkeys(one.name for one, _ in pairs))}
        | {"batch_size": sizes[0] if len(sizes) == 1 else sizes}
        | {"rounds": rounds, "seed": seed, "texts": texts, "one_process": one_process},
        command=command_line(context),
        accelerators=gpus,
    )
    names = {source.name for source, _ in pairs}

    def of(name: str) -> str:
        return f" for {name}" if len(names) > 1 else ""

    runs: dict[str, dict[str, Any]] = {}
    left_out: dict[str, str] = {}
    tell = status_printer()
    try:
        for source, size in pairs:
            settings = bench.EmbedSettings(size, texts, one_process, matmul_side or None)
            label = f"{source.name}, {size} a call"
            with (
                model_or_shape(source.model, source.shape) as model,
                tempfile.TemporaryDirectory(prefix="rsicd-embed-") as graphs,
            ):
                ours = variants(model, size, backends, precision)
                tower, candidates, missing = _candidates(ours, choice, Path(graphs), settings)
                left_out |= {f"{one}{of(source.name)}": why for one, why in missing.items()}
                plan = TimingPlan(rounds, seed)
                runs[label] = bench.run(candidates, settings, plan, tower=tower, progress=tell)
            if not runs[label]["complete"]:
                break
    except KeyboardInterrupt:
        if not runs:
            raise
    run |= combined.merged(runs)
    run["complete"] &= len(runs) == len(pairs)
    run["left_out"] = left_out
    for name, why in left_out.items():
        note(f"left out: {name} {why}")
    finish(output, NAME, run, lines, as_json=as_json)


def _candidates(
    ours: list[Variant], choice: ReferenceChoice, graphs: Path, settings: Any
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
    from rsicd_embed.embedder.locate import locate
    from rsicd_embed.files import read_json

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
