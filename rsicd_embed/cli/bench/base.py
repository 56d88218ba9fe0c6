"""Shared parts of the benchmark commands: options, models, and warnings about a busy machine."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rsicd_embed.cli import record_output
from rsicd_embed.cli.base import (
    F,
    batch_size_option,
    count_option,
    json_option,
    model_option,
    note,
)
from rsicd_embed.cli.record_output import RecordT, cpu_times_at_start, output_option, seed_option
from rsicd_embed.embedder.clip.backends import PRECISIONS
from rsicd_embed.files import temporary_folder
from rsicd_embed.train.config import PUBLISHED_SHAPES

if TYPE_CHECKING:
    from rsicd_embed.embedder.base import Embedder

# Load per CPU before a run, and fraction of CPU time used by other processes during it, above which
# results are unreliable.
_MOST_LOAD, _MOST_OTHERS = 0.25, 0.05

one_process_option = click.option(
    "--one-process", is_flag=True, help="Run all contenders in this process."
)
precision_option = click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    help="Precision of backends given without one.  [default: each backend's own]",
)


def shape_option(*names: str, multiple: bool = False) -> Callable[[F], F]:
    """`--shape`, a model with random weights."""
    return click.option(
        *names,
        type=click.Choice(PUBLISHED_SHAPES),
        multiple=multiple,
        help="Use a model of this shape with random weights"
        + ("; repeatable." if multiple else "."),
    )


def record_options(command: F) -> F:
    """The options of every benchmark: rounds, seed, output folder and `--json`."""
    for option in (
        json_option,
        output_option(required=True),
        seed_option,
        count_option("--rounds", default=10, help="Samples of each candidate."),
    ):
        command = option(command)
    return command


def embedding_bench_options(command: F) -> F:
    """The options of a benchmark of one model."""
    for option in (
        record_options,
        batch_size_option,
        precision_option,
        shape_option("--shape"),
        model_option("the bundled model"),
    ):
        command = option(command)
    return command


def finish(
    run: RecordT, output: Path, name: str, lines: Callable[[RecordT], list[str]], *, as_json: bool
) -> None:
    """Warns about a busy machine, then saves and prints the record; see `record_output.finish`."""
    from rsicd_embed.reports.machine import cpu_contention

    machine = run["machine"]
    machine["others_share"] = others = cpu_contention(cpu_times_at_start())
    load, cores = machine["load_1min"], machine["cores"]
    if load is not None and load > _MOST_LOAD * cores:
        note(f"the machine was busy: load average {load} on {cores} CPUs before the run")
    if others is not None and others > _MOST_OTHERS:
        note(
            f"the machine was busy: other processes used {others:.0%} of the CPU time; "
            "the results are unreliable"
        )
    record_output.finish(run, output, name, lines, as_json=as_json)


def counts(context: click.Context, option: click.Parameter, value: str | None) -> tuple[int, ...]:
    """Parses `1000,10000` into distinct counts; empty if the option is not given."""
    words = value.split(",") if value is not None else []
    if not all(re.fullmatch(r"\s*0*[1-9][0-9]{0,8}\s*", word) for word in words):
        raise click.BadParameter(f"expected counts such as 1000,10000, found {value!r}")
    return tuple(dict.fromkeys(int(word) for word in words))


@dataclass(frozen=True)
class Variant:
    """A model on one backend in one precision. Picklable; calling it loads the embedder."""

    model: str | None
    batch_size: int
    backend: str | None
    precision: str | None

    @property
    def name(self) -> str:
        """Name of the candidate."""
        return f"rsicd-embed {self.backend or 'default'} {self.precision or ''}".rstrip()

    def __call__(self) -> Embedder:
        """Loads the embedder."""
        import rsicd_embed

        options: dict[str, Any] = {"precision": self.precision, "backend": self.backend}
        return rsicd_embed.load_embedder(self.model, batch_size=self.batch_size, **options)


def variants(
    model: str | None, batch_size: int, backends: tuple[str, ...], precision: str | None
) -> list[Variant]:
    """A variant for each `--backend NAME[:PRECISION]`; the default backend if none is given."""
    parsed = []
    for text in dict.fromkeys(backends or ("",)):
        backend, _, own = text.partition(":")
        parsed.append(Variant(model, batch_size, backend or None, own or precision))
    return parsed


@contextmanager
def model_or_shape(model: str | None, shape: str | None) -> Iterator[str | None]:
    """Yields the model of `--model` or `--shape`; the latter exists only within the block."""
    if shape is None:
        yield model
        return
    if model is not None:
        raise click.UsageError("expected --model or --shape, found both")
    from rsicd_embed.bench.synthetic_inputs import texts
    from rsicd_embed.bench.workers import once
    from rsicd_embed.train.initialization import write_random_checkpoint

    with temporary_folder() as folder:
        directory = folder / shape
        once(f"creating a {shape}", partial(write_random_checkpoint, directory, shape, texts(512)))
        yield str(directory)
