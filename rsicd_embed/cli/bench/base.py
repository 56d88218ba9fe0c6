"""What the benchmarks' commands share: options, models, and what they say meanwhile."""

from __future__ import annotations

import re
import shlex
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rsicd_embed.cli.base import (
    F,
    batch_size_option,
    json_option,
    model_option,
    note,
    save_and_show,
)
from rsicd_embed.embedder.clip.backends import PRECISIONS
from rsicd_embed.train.shapes import PUBLISHED_SHAPES

if TYPE_CHECKING:
    from rsicd_embed.embedder.base import Embedder

# Least load before a run, and least part of all processors that others take meanwhile, at which
# figures are not to be trusted.
_QUIET, _QUIET_MEANWHILE = 0.25, 0.05
_ARGUMENTS = "rsicd_embed.bench.arguments"
_CPU_TIMES = "rsicd_embed.bench.cpu_times"


def record_options(command: F) -> F:
    """What every benchmark takes: rounds, a seed, where the record goes, and `--json`."""
    for option in (
        json_option,
        click.option(
            "-o",
            "--output",
            required=True,
            type=click.Path(file_okay=False, path_type=Path),
            help="Folder of the record, a JSON file named after the benchmark.",
        ),
        click.option(
            "--seed", default=0, show_default=True, type=click.IntRange(0), help="Random seed."
        ),
        click.option(
            "--rounds",
            default=10,
            show_default=True,
            type=click.IntRange(1),
            help="Samples of each candidate.",
        ),
    ):
        command = option(command)
    return command


precision_option = click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    help="Of the backends that do not say.  [default: each backend's own]",
)


def embedding_bench_options(command: F) -> F:
    """What a benchmark of one model takes."""
    for option in (
        record_options,
        batch_size_option,
        precision_option,
        click.option(
            "--shape",
            type=click.Choice(PUBLISHED_SHAPES),
            help="Instead of a model, one of this shape with random weights, made on the spot.",
        ),
        model_option("the bundled model"),
    ):
        command = option(command)
    return command


def finish(
    output: Path,
    name: str,
    run: dict[str, Any],
    lines: Callable[[Any], list[str]],
    *,
    as_json: bool,
) -> None:
    """Saves a record and its page, and shows what is in it; status 1 where it was interrupted."""
    from rsicd_embed.reports.machine import cpu_contention

    start = click.get_current_context().meta[_CPU_TIMES]
    run["machine"]["others_share"] = cpu_contention(start)
    path = save_and_show(run, output, name, lines, as_json=as_json)
    _tell_noise(run)
    if not run["complete"]:
        note(f"what was measured until then is in {path}")
        raise click.Abort


def counts(context: click.Context, option: click.Parameter, value: str | None) -> tuple[int, ...]:
    """`1000,10000` → (1000, 10000), each once; nothing where the option is not given."""
    words = value.split(",") if value is not None else []
    if not all(re.fullmatch(r"\s*0*[1-9][0-9]{0,8}\s*", word) for word in words):
        raise click.BadParameter(f"expected counts such as 1000,10000, found {value!r}")
    return tuple(dict.fromkeys(int(word) for word in words))


@dataclass(frozen=True)
class Variant:
    """A model on one backend in one precision. Picklable; called, it loads the embedder."""

    model: str | None
    batch_size: int
    backend: str | None
    precision: str | None

    @property
    def name(self) -> str:
        """Of the candidate."""
        return f"rsicd-embed {self.backend or 'default'} {self.precision or ''}".rstrip()

    def __call__(self) -> Embedder:
        """Loads it."""
        import rsicd_embed

        how: dict[str, Any] = {"precision": self.precision, "backend": self.backend}
        return rsicd_embed.load_embedder(self.model, batch_size=self.batch_size, **how)


def variants(
    model: str | None, batch_size: int, backends: tuple[str, ...], precision: str | None
) -> list[Variant]:
    """One for each `--backend NAME[:PRECISION]`; the default backend where none is given."""
    found = []
    for text in dict.fromkeys(backends or ("",)):
        backend, _, own = text.partition(":")
        found.append(Variant(model, batch_size, backend or None, own or precision))
    return found


@contextmanager
def model_or_shape(model: str | None, shape: str | None) -> Iterator[str | None]:
    """What `--model` and `--shape` mean; the directory of a shape lasts as long as the block."""
    if shape is None:
        yield model
        return
    if model is not None:
        raise click.UsageError("expected --model or --shape, found both")
    from rsicd_embed.bench.inputs import texts
    from rsicd_embed.bench.workers import once
    from rsicd_embed.train.initialization import write_random_checkpoint

    with tempfile.TemporaryDirectory(prefix="rsicd-embed-") as folder:
        directory = Path(folder, shape)
        once(f"making a {shape}", partial(write_random_checkpoint, directory, shape, texts(512)))
        yield str(directory)


class Recorded(click.Command):
    """A command that keeps its arguments as they were typed, and watches the machine."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keeps them for `command_line`."""
        ctx.meta[_ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Notes the CPU times for `finish`."""
        from rsicd_embed.reports.machine import CpuTimes

        ctx.meta[_CPU_TIMES] = CpuTimes.now()
        return super().invoke(ctx)


def command_line(context: click.Context) -> str:
    """The command as it can be given again, without where its record went."""
    words = ["rsicd-embed", *context.command_path.split()[1:]]
    given = iter(context.meta[_ARGUMENTS])
    for word in given:
        if word in ("-o", "--output"):
            next(given, None)
        elif word != "--json" and not word.startswith(("-o", "--output=")):
            words.append(word)
    return shlex.join(words)


def _tell_noise(run: Mapping[str, Any]) -> None:
    """Says so where the machine had something else to do."""
    load, cores = run["machine"]["load_1min"], run["machine"]["cores"]
    if load is not None and load > _QUIET * cores:
        note(f"the load average was {load} on {cores} processors before the run: not quiet")
    others = run["machine"]["others_share"]
    if others is not None and others > _QUIET_MEANWHILE:
        note(f"others took {others:.0%} of the processors meanwhile: not quiet, figures are off")
