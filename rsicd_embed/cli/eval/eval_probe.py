"""`rsicd-embed eval probe`: a linear probe and nearest neighbours on frozen features."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rsicd_embed.cli.base import model_option
from rsicd_embed.cli.eval.base import (
    EvalContext,
    as_skipped,
    bootstrap_line,
    dataset_option,
    evaluation_options,
    every_label_option,
    metric_table,
    model_of,
    open_set,
    skip_option,
    split_option,
)
from rsicd_embed.cli.record_output import Recorded
from rsicd_embed.parallel import share_one_heap

if TYPE_CHECKING:
    from rsicd_embed.reports.evaluation_types import EvaluationRecord, FittedProbe


@click.command(cls=Recorded)
@dataset_option
@split_option
@click.option("--train-split", default="train", show_default=True, help="Split to fit on.")
@model_option("the bundled model")
@every_label_option
@skip_option
@evaluation_options
def probe(
    dataset: Path,
    split: str | None,
    train_split: str,
    model: str | None,
    every_label: bool,
    skip_unreadable: bool,
    **options: Any,
) -> None:
    """Fit classifiers on labelled images, to probe the frozen features.

    linear: logistic regression; knn: the nearest images vote. C and k are chosen on val, or, if
    there is no val or it is the split to score, on a fifth of each class of the training images. A
    dataset without splits is scored on a fifth of each class.
    """
    share_one_heap()
    from rsicd_embed.cli.progress import image_progress
    from rsicd_embed.evaluation import probe_protocol
    from rsicd_embed.evaluation.probe import require_sklearn

    context = EvalContext.of(options)
    require_sklearn()
    evalset = open_set(dataset, every_label=every_label)
    plan = probe_protocol.plan(evalset, split, train_split, context.seed)
    head = context.document("probe", {"every_label": every_label})
    embedder = context.load(model)
    images = context.embed(embedder, plan.examples, skip_unreadable=skip_unreadable)
    vectors = dict(zip((e.id for e in images.examples), images.vectors, strict=True))
    with context.timed("fits"), image_progress("fits", probe_protocol.STEPS, "fits") as advance:
        scores = probe_protocol.report(plan, vectors, context.bootstrap, advance)
    context.finish(
        head,
        _lines,
        {"dataset": evalset.name, **model_of(embedder)},
        scores,
        {"skipped": as_skipped(images.skipped)},
    )


def _lines(run: EvaluationRecord) -> list[str]:
    return [
        f"{run['model']} on {run['dataset']} {run['split']}: {run['n']:,} images of "
        f"{run['classes']} classes, {run['largest_class']:.3f} of them in the largest class",
        f"fitted on {run['train_split']}, {run['n_train']:,} images; C and k chosen on "
        f"{run['chosen_on']}, {run['n_chosen_on']:,} images",
        "",
        *metric_table(run),
        "",
        "C  " + _tried(run["linear"], "c"),
        "k  " + _tried(run["knn"], "k"),
        "ties: a wrong class as likely as the right one ranks above it",
        bootstrap_line(run),
    ]


def _tried(probe: FittedProbe, name: str) -> str:
    chosen = probe["c"] if name == "c" else probe["k"]
    return "  ".join(
        f"{tried[name]:g}: {tried['top1']:.3f}{' (chosen)' if tried[name] == chosen else ''}"
        for tried in probe["tried"]
    )
