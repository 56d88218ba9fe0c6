"""Shared parts of the evaluation commands: options, embedding with progress, and output."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from rsicd_embed.cli import record_output
from rsicd_embed.cli.base import (
    F,
    backend_option,
    batch_size_option,
    count_option,
    json_option,
    note,
    precision_option,
    report_skipped,
    report_source,
)
from rsicd_embed.cli.record_output import command_line, output_option, seed_option

if TYPE_CHECKING:
    import numpy as np

    from rsicd_embed.datasets.base import Example, Skipped
    from rsicd_embed.embedder.base import Embedder
    from rsicd_embed.evaluation.dataset import EvalSet
    from rsicd_embed.evaluation.embedding import Embedded
    from rsicd_embed.evaluation.metrics import Bootstrap
    from rsicd_embed.reports.evaluation_types import EvaluationRecord, SkippedImage
    from rsicd_embed.reports.record_types import RunRecord

# `datasets.classes.PROMPT`; importing it would slow down `--help`.
PROMPT = "An aerial photograph of {category}"
_MOST_SKIPPED = 3  # skipped files of a dataset that are listed

dataset_option = click.option(
    "--dataset",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="A folder like RSICD's (dataset_*.json next to the images), a folder with one folder of "
    "images per class, a manifest, or a folder with a manifest with captions.",
)
split_option = click.option(
    "--split", help="Split of the dataset, or all.  [default: test, or all without splits]"
)
every_label_option = click.option(
    "--every-label",
    is_flag=True,
    help="Use all labelled images of a folder like RSICD's. By default, only those whose file name "
    "contains their class are used, if there are any, as in the published protocol.",
)
splits_option = click.option(
    "--split",
    "splits",
    multiple=True,
    help="Split of all datasets or, if given once per --dataset, of each in turn.  "
    "[default: test, or all without splits]",
)
skip_option = click.option(
    "--skip-unreadable",
    is_flag=True,
    help="Skip images that cannot be read and list them, instead of failing.",
)
prompt_option = click.option(
    "--prompt",
    "prompts",
    multiple=True,
    default=(PROMPT,),
    show_default=True,
    help="Prompt with {category} for the class; several are averaged.",
)


def datasets_option(help: str) -> Callable[[F], F]:
    """Returns a `--dataset` that is given at least once, as `datasets`."""
    return click.option(
        "--dataset",
        "datasets",
        multiple=True,
        required=True,
        type=click.Path(path_type=Path),
        metavar="DIR",
        help=help,
    )


def split_per_dataset(splits: tuple[str, ...], datasets: int) -> list[str | None]:
    """The split of each dataset: none, one for all, or one for each."""
    if len(splits) not in (0, 1, datasets):
        raise click.UsageError(
            f"expected one --split, or one for each of {datasets} datasets, found {len(splits)}"
        )
    return list(splits) if len(splits) == datasets else [*(splits or (None,))] * datasets


def evaluation_options(command: F) -> F:
    """The options of every evaluation: backend, intervals, and output."""
    for option in (
        json_option,
        output_option(),
        seed_option,
        count_option(
            "--resamples", default=2000, least=100, help="Bootstrap resamples for the intervals."
        ),
        precision_option,
        backend_option,
        batch_size_option,
    ):
        command = option(command)
    return command


@dataclass(frozen=True)
class EvalContext:
    """The values of `evaluation_options`, and the seconds of each step of the evaluation."""

    resamples: int
    seed: int
    batch_size: int
    precision: Any
    backend: Any
    output: Path | None
    as_json: bool
    seconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> EvalContext:
        """From the options of the command; checks that the output folder is writable."""
        if options["output"] is not None:
            from rsicd_embed.reports import record

            record.claim(options["output"])
        return cls(**options)

    @property
    def bootstrap(self) -> Bootstrap:
        """Settings of the intervals."""
        from rsicd_embed.evaluation.metrics import Bootstrap

        return Bootstrap(self.resamples, self.seed)

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Adds the duration of the block to `seconds`."""
        started = time.perf_counter()
        yield
        elapsed = time.perf_counter() - started
        self.seconds[step] = round(self.seconds.get(step, 0.0) + elapsed, 3)

    def load(self, model: str | None) -> Embedder:
        """Loads the embedder of `--model`."""
        import rsicd_embed

        with self.timed("load"):
            return rsicd_embed.load_embedder(
                model, batch_size=self.batch_size, precision=self.precision, backend=self.backend
            )

    def embed(
        self, embedder: Embedder, examples: Sequence[Example], *, skip_unreadable: bool = False
    ) -> Embedded:
        """Embeds images, with progress, and lists those that were skipped."""
        from rsicd_embed.cli.progress import image_progress
        from rsicd_embed.evaluation.embedding import embed_examples

        with self.timed("images"), image_progress("images", len(examples)) as advance:
            embedded = embed_examples(
                embedder, examples, skip_unreadable=skip_unreadable, progress=advance
            )
        report_skipped(embedded.skipped)
        return embedded

    def embed_texts(self, embedder: Embedder, texts: Sequence[str]) -> np.ndarray:
        """Embeds captions, with progress."""
        from rsicd_embed.cli.progress import image_progress
        from rsicd_embed.evaluation.embedding import embed_texts

        with self.timed("texts"), image_progress("captions", len(texts), "captions") as advance:
            return embed_texts(embedder, texts, advance)

    def document(self, task: str, settings: Mapping[str, object]) -> RunRecord:
        """The head of a record: command, machine and settings."""
        from rsicd_embed.reports import record
        from rsicd_embed.reports.machine import nvidia_gpus

        shared = {"batch_size": self.batch_size, "precision": self.precision}
        return record.document(
            task,
            {**settings, **shared, "backend": self.backend},
            command=command_line(),
            accelerators=nvidia_gpus(),
        )

    def finish(
        self,
        head: RunRecord,
        lines: Callable[[EvaluationRecord], list[str]],
        *results: Mapping[str, object],
    ) -> None:
        """Combines the results into a record, saves it if wanted, and prints it."""
        record: dict[str, object] = dict(head)
        for fields in results:
            record |= fields
        run = cast("EvaluationRecord", record | {"seconds": self.seconds})
        for text in run.get("notes", ()):
            note(f"note: {text}")
        name = f"eval-{run['task']}"
        record_output.finish(run, self.output, name, lines, as_json=self.as_json)


def open_set(dataset: Path, *, every_label: bool = False) -> EvalSet:
    """Opens a dataset, and lists files that were skipped."""
    from rsicd_embed.evaluation import dataset as datasets

    evalset = datasets.open_set(dataset, every_label=every_label)
    report_skipped(evalset.skipped[:_MOST_SKIPPED])
    if len(evalset.skipped) > _MOST_SKIPPED:
        note(f"skipped {len(evalset.skipped) - _MOST_SKIPPED:,} more")
    report_source(evalset.unread, evalset.notes)
    return evalset


def model_of(embedder: Embedder) -> dict[str, str]:
    """The fields of a record that identify the model."""
    return {"model": embedder.name, "fingerprint": embedder.fingerprint}


def as_skipped(skipped: Sequence[Skipped]) -> list[SkippedImage]:
    """Skipped images for a record."""
    return [cast("SkippedImage", asdict(image)) for image in skipped]


def metric_table(
    run: EvaluationRecord, columns: Mapping[str, Mapping[str, float]] | None = None
) -> list[str]:
    """A table of metrics with their intervals, and of further columns by heading."""
    from rsicd_embed.reports.record import table

    columns = columns or {}
    rows = [("", run["split"], f"{run['bootstrap']['level']:.0%}", *columns)]
    for name, value in run["metrics"].items():
        ends = "–".join(_metric(name, end) for end in run["intervals"][name])
        more = (_metric(name, values.get(name)) for values in columns.values())
        rows.append((name, _metric(name, value), ends, *more))
    return table(rows)


def bootstrap_line(run: EvaluationRecord) -> str:
    """A line on how the intervals were computed."""
    bootstrap = run["bootstrap"]
    return (
        f"intervals: {bootstrap['level']:.0%}, percentile bootstrap over images, "
        f"{bootstrap['resamples']:,} resamples, seed {bootstrap['seed']}"
    )


def _metric(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:g}" if name.endswith("rank") else f"{value:.3f}"
