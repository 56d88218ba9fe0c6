"""What the evaluations share: options, vectors with progress, and how results are told."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rsicd_embed.cli.base import (
    F,
    backend_option,
    batch_size_option,
    json_option,
    note,
    precision_option,
    report_skipped,
    report_source,
    save_and_show,
)
from rsicd_embed.cli.bench.base import command_line

if TYPE_CHECKING:
    import numpy as np

    from rsicd_embed.datasets.base import Example, Skipped
    from rsicd_embed.embedder.base import Embedder
    from rsicd_embed.evaluation.dataset import EvalSet
    from rsicd_embed.evaluation.embedding import Embedded

# `datasets.classes.PROMPT`; importing it would slow down `--help`.
PROMPT = "An aerial photograph of {category}"
_TOLD = 3  # one line an image would bury what comes after them

dataset_option = click.option(
    "--dataset",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="A folder like RSICD's (dataset_*.json beside the images), a folder with one folder of "
    "images a class, a manifest, or a folder with one manifest with captions.",
)
split_option = click.option(
    "--split", help="One of the data set's splits, or all.  [default: test, or all without splits]"
)
every_label_option = click.option(
    "--every-label",
    is_flag=True,
    help="Use all labelled images of a folder like RSICD's; by default only those whose file name "
    "tells their class, if there are any, as in the published protocol.",
)
skip_option = click.option(
    "--skip-unreadable",
    is_flag=True,
    help="Leave out images that cannot be read, and list them; without it they are an error.",
)
prompt_option = click.option(
    "--prompt",
    "prompts",
    multiple=True,
    default=(PROMPT,),
    show_default=True,
    help="With {category} where the class goes; several are averaged.",
)


def evaluation_options(command: F) -> F:
    """What every evaluation takes last: how the model runs, intervals, and where results go."""
    for option in (
        json_option,
        click.option(
            "-o",
            "--output",
            type=click.Path(file_okay=False, path_type=Path),
            help="Folder of the record, a JSON file named after the evaluation.",
        ),
        click.option(
            "--seed", default=0, show_default=True, type=click.IntRange(0), help="Random seed."
        ),
        click.option(
            "--resamples",
            default=2000,
            show_default=True,
            type=click.IntRange(100),
            help="Bootstrap samples for the intervals.",
        ),
        precision_option,
        backend_option,
        batch_size_option,
    ):
        command = option(command)
    return command


@dataclass(frozen=True)
class How:
    """What `evaluation_options` says, and the seconds that parts of the work took."""

    resamples: int
    seed: int
    batch_size: int
    precision: Any
    backend: Any
    output: Path | None
    as_json: bool
    seconds: dict[str, float]

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> How:
        """From the command's arguments; a folder that cannot be written to is refused at once."""
        if given["output"] is not None:
            from rsicd_embed.reports import record

            record.claim(given["output"])
        return cls(**given, seconds={})

    @property
    def bootstrap(self) -> Any:
        """How intervals are drawn."""
        from rsicd_embed.evaluation.bootstrap import Bootstrap

        return Bootstrap(self.resamples, self.seed)

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Adds the time a block takes to `seconds`."""
        started = time.perf_counter()
        yield
        spent = time.perf_counter() - started
        self.seconds[what] = round(self.seconds.get(what, 0.0) + spent, 3)

    def load(self, model: str | None) -> Embedder:
        """The embedder of `--model`."""
        import rsicd_embed

        with self.timed("load"):
            return rsicd_embed.load_embedder(
                model, batch_size=self.batch_size, precision=self.precision, backend=self.backend
            )

    def embed(
        self, embedder: Embedder, examples: Sequence[Example], *, skip_unreadable: bool = False
    ) -> Embedded:
        """Images as vectors, with progress; those that cannot be read are told."""
        from rsicd_embed.cli.progress import image_progress
        from rsicd_embed.evaluation.embedding import embed_examples

        with self.timed("images"), image_progress("images", len(examples)) as advance:
            found = embed_examples(
                embedder, examples, skip_unreadable=skip_unreadable, progress=advance
            )
        report_skipped(found.skipped)
        return found

    def embed_texts(self, embedder: Embedder, texts: Sequence[str]) -> np.ndarray:
        """Captions as vectors, with progress."""
        from rsicd_embed.cli.progress import image_progress
        from rsicd_embed.evaluation.embedding import embed_texts

        with self.timed("texts"), image_progress("captions", len(texts), "captions") as advance:
            return embed_texts(embedder, texts, advance)


def open_set(dataset: Path, *, every_label: bool = False) -> EvalSet:
    """A data set; what is in its folder and is no example is told."""
    from rsicd_embed.evaluation.dataset import open_set as read

    found = read(dataset, every_label=every_label)
    report_skipped(found.skipped[:_TOLD])
    if len(found.skipped) > _TOLD:
        note(f"skipped {len(found.skipped) - _TOLD:,} more")
    report_source(found.unread, found.notes)
    return found


def document(task: str, settings: Mapping[str, Any], how: How) -> dict[str, Any]:
    """The head of a record: the command, the machine and what was set."""
    from rsicd_embed.reports import record
    from rsicd_embed.reports.machine import nvidia_gpus

    shared = {"batch_size": how.batch_size, "precision": how.precision, "backend": how.backend}
    return record.document(
        task,
        {**settings, **shared},
        command=command_line(click.get_current_context()),
        accelerators=nvidia_gpus(),
    )


def model_of(embedder: Embedder) -> dict[str, str]:
    """What a record says of a model."""
    return {"model": embedder.name, "fingerprint": embedder.fingerprint}


def as_skipped(skipped: Sequence[Skipped]) -> list[dict[str, str]]:
    """What a record says of images that were left out."""
    return [asdict(one) for one in skipped]


def finish(run: dict[str, Any], how: How, lines: Callable[[Any], list[str]]) -> None:
    """Saves the record where that is asked for, and shows what is in it."""
    run["seconds"] = how.seconds
    for one in run.get("notes", ()):
        note(f"note: {one}")
    save_and_show(run, how.output, f"eval-{run['task']}", lines, as_json=how.as_json)


def metric_table(run: Mapping[str, Any], columns: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Metrics with their intervals, and further columns by their heading."""
    from rsicd_embed.reports.record import table

    rows = [("", run["split"], f"{run['bootstrap']['level']:.0%}", *columns)]
    for name, value in run["metrics"].items():
        ends = "–".join(_figure(name, one) for one in run["intervals"][name])
        more = (_figure(name, some.get(name)) for some in columns.values())
        rows.append((name, _figure(name, value), ends, *more))
    return table(rows)


def bootstrap_line(run: Mapping[str, Any]) -> str:
    """How the intervals were drawn."""
    drawn = run["bootstrap"]
    return (
        f"intervals: {drawn['level']:.0%}, percentile bootstrap over images, "
        f"{drawn['resamples']:,} resamples, seed {drawn['seed']}"
    )


def _figure(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:g}" if name.endswith("rank") else f"{value:.3f}"
