"""`rsicd-embed bench embed`: throughput of the model alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from rsicd_embed.cli.base import note
from rsicd_embed.cli.bench.base import (
    Variant,
    finish,
    model_or_shape,
    one_process_option,
    precision_option,
    record_options,
    shape_option,
    variants,
)
from rsicd_embed.cli.record_output import Recorded, command_line
from rsicd_embed.files import temporary_folder

if TYPE_CHECKING:
    from rsicd_embed.bench.embed_rates import EmbedSettings, TimedEmbedder
    from rsicd_embed.bench.flops import Tower
    from rsicd_embed.bench.reference_models import ClipDirectory, ReferenceChoice
    from rsicd_embed.reports.record_types import EmbedRecord, EmbedResults

_MATMUL_SIDE = 4096


@dataclass(frozen=True)
class ModelSource:
    """A model, or a shape with random weights; the bundled model if both are None."""

    model: str | None
    shape: str | None

    @property
    def name(self) -> str:
        """Name in the record."""
        return self.model or self.shape or "bundled"


@click.command(cls=Recorded)
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="MODEL",
    help="Hugging Face id, or a directory in its CLIP layout; repeatable.  "
    "[default: the bundled model]",
)
@shape_option("--shape", "shapes", multiple=True)
@precision_option
@click.option(
    "--batch-size",
    "batch_sizes",
    multiple=True,
    default=(64,),
    show_default="64",
    type=click.IntRange(1),
    help="Images per batch; repeatable.",
)
@record_options
@click.option(
    "--backend",
    "backends",
    multiple=True,
    metavar="NAME[:PRECISION]",
    help="Backend of the model; repeatable. The others are compared with the first.",
)
@click.option(
    "--against",
    metavar="NAMES",
    help="References with the same weights: torch,onnxruntime,openvino or none.  "
    "[default: those installed]",
)
@click.option("--texts", is_flag=True, help="Time texts as well.")
@click.option(
    "--matmul-side",
    type=click.IntRange(0),
    help="Side of the square matrices whose product gives the float32 peak; 0 to leave it out.  "
    f"[default: {_MATMUL_SIDE}; 0 with a GPU]",
)
@one_process_option
def embed(
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
    """Time the model alone, on decoded pixels, next to references with the same weights.

    All candidates embed the same batch, from bytes to unit vectors, and must agree. Each runs in
    its own process; every round runs all of them, in a new random order. Several models or batch
    sizes are timed one after the other.
    """
    from rsicd_embed.bench import embed_rates, reference_models
    from rsicd_embed.cli.progress import status_printer
    from rsicd_embed.reports import record
    from rsicd_embed.reports.machine import nvidia_gpus
    from rsicd_embed.reports.timing import TimingPlan

    if models and shapes:
        raise click.UsageError("expected --model or --shape, found both")
    choice = reference_models.choose(against, reference_models.CLIP_NEEDS)
    record.claim(output)
    gpus = nvidia_gpus()
    if matmul_side is None:
        matmul_side = 0 if gpus else _MATMUL_SIDE
    sources = [ModelSource(model, None) for model in dict.fromkeys(models)]
    sources += [ModelSource(None, shape) for shape in dict.fromkeys(shapes)]
    sources = sources or [ModelSource(None, None)]
    sizes = list(dict.fromkeys(batch_sizes))
    pairs = list(itertools.product(sources, sizes))
    head = record.document(
        "embed",
        {"model": ", ".join(source.name for source in sources)}
        | {"batch_size": sizes[0] if len(sizes) == 1 else sizes}
        | {"rounds": rounds, "seed": seed, "texts": texts, "one_process": one_process},
        command=command_line(),
        accelerators=gpus,
    )
    runs: dict[str, EmbedResults] = {}
    left_out: dict[str, str] = {}
    tell = status_printer()
    try:
        for source, size in pairs:
            settings = embed_rates.EmbedSettings(size, texts, one_process, matmul_side or None)
            label = f"{source.name}, {size} a call"
            with (
                model_or_shape(source.model, source.shape) as model,
                temporary_folder() as graphs,
            ):
                ours = variants(model, size, backends, precision)
                tower, candidates, missing = _candidates(ours, choice, graphs, settings)
                suffix = f" for {source.name}" if len(sources) > 1 else ""
                left_out |= {f"{name}{suffix}": reason for name, reason in missing.items()}
                runs[label] = embed_rates.run(
                    candidates, settings, TimingPlan(rounds, seed), tower=tower, progress=tell
                )
            if not runs[label]["complete"]:
                break
    except KeyboardInterrupt:
        if not runs:
            raise
    results = embed_rates.combined(runs)
    results["complete"] &= len(runs) == len(pairs)
    for name, reason in left_out.items():
        note(f"left out: {name} {reason}")
    run = cast("EmbedRecord", {**head, **results, "left_out": left_out})
    finish(run, output, "bench-embed", _lines, as_json=as_json)


def _candidates(
    ours: list[Variant], choice: ReferenceChoice, graphs: Path, settings: EmbedSettings
) -> tuple[Tower | None, dict[str, Callable[[], TimedEmbedder]], dict[str, str]]:
    """The image tower, the candidates by name, and the references left out with reasons."""
    from rsicd_embed.bench import reference_models, synthetic_inputs

    candidates: dict[str, Callable[[], TimedEmbedder]] = {v.name: v for v in ours}
    described = describe_clip(ours[0].model)
    if described is None:
        reason = "needs a CLIP in the Hugging Face layout"
        return None, candidates, choice.left_out | dict.fromkeys(choice.chosen, reason)
    tower, directory = described
    if directory is None:
        reason = "needs a CLIP with a ViT in the Hugging Face layout"
        return tower, candidates, choice.left_out | dict.fromkeys(choice.chosen, reason)
    texts = synthetic_inputs.texts(settings.batch_size) if settings.texts else []
    candidates |= reference_models.clip_references(
        choice.chosen, directory, graphs, settings.batch_size, texts
    )
    return tower, candidates, choice.left_out


def describe_clip(model: str | None) -> tuple[Tower, ClipDirectory | None] | None:
    """Tower and directory of a CLIP.

    Returns:
        None for plug-in embedders; no directory for models that references cannot read.
    """
    from rsicd_embed import plugins
    from rsicd_embed.bench.flops import ConvolutionalTower, ImageTower
    from rsicd_embed.bench.reference_models import ClipDirectory
    from rsicd_embed.embedder import preprocess
    from rsicd_embed.embedder.clip import config, parts
    from rsicd_embed.embedder.clip.resnet_config import ResNetConfig
    from rsicd_embed.embedder.locate import locate
    from rsicd_embed.files import read_json

    name, colon, argument = str(model).partition(":")
    if colon and name in plugins.names(plugins.EMBEDDERS):
        if name != "clip":
            return None
        model = argument
    located = locate(model)
    path = located.directory
    if located.file is not None or not (path / "config.json").is_file():
        read = parts.read(located)
        clip, pixels = read.config, read.preprocessor
    else:
        clip = config.from_hf(read_json(path / "config.json"))
        pixels = preprocess.from_hf(read_json(path / "preprocessor_config.json"))
    vision = clip.vision
    if isinstance(vision, ResNetConfig):
        products = tuple(
            (side**2, layer.inputs * layer.side**2, layer.outputs)
            for layer, side in vision.maps(clip.image_size)
        )
        return ConvolutionalTower(clip.image_size, products, clip.dim), None
    tower = ImageTower(
        clip.image_size, clip.patch_size, vision.width, vision.layers, vision.mlp_width, clip.dim
    )
    if located.file is not None or config.hf_architecture(clip) != "CLIPModel":
        return tower, None
    directory = ClipDirectory(
        path, clip.image_size, clip.context_length, pixels.scale, pixels.mean, pixels.std
    )
    return tower, directory


def _lines(run: EmbedRecord) -> list[str]:
    """A table for images, one for texts, and the peak."""
    from rsicd_embed.bench.embed_rates import ratios_to_first
    from rsicd_embed.reports.record import table
    from rsicd_embed.reports.record_types import MODALITIES

    lines = []
    for unit in MODALITIES:
        rates = run.get(unit)
        if rates is None:
            continue
        ratios = ratios_to_first(rates)
        rows = [("", f"{unit}/s", "95%", "best", "× first", "95%", "of peak", "least cosine")]
        for name, rate in rates["candidates"].items():
            ratio, peak = ratios[name], rate.get("of_float32_peak")
            rows.append(
                (
                    name,
                    f"{rate['per_s']:.1f}",
                    "{:.1f}–{:.1f}".format(*rate["per_s_interval"]),
                    f"{rate['per_s_best']:.1f}",
                    f"{ratio['ratio']:.3f}",
                    "{:.3f}–{:.3f}".format(*ratio["interval"]),
                    f"{peak['ratio']:.1%}" if peak else "",
                    f"{rate['agreement_with_first']['least_cosine']:.6f}",
                )
            )
        lines += table(rows)
        overhead = rates["overhead"]
        lines.append(
            f"timing costs {overhead['null_ns']:.0f} ns per call, "
            f"{overhead['fraction']:.2g} of the shortest"
        )
    if float_peak := run.get("peak"):
        lines.append(
            f"float32 peak: {float_peak['gflop_per_s']:.1f} GFLOP/s ({float_peak['best']})"
        )
    return lines
