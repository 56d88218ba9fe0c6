"""`rsicd-embed eval probe`: a linear probe and nearest neighbours on frozen features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rsicd_embed.cli.base import model_option
from rsicd_embed.cli.bench.base import Recorded
from rsicd_embed.cli.eval.base import (
    How,
    as_skipped,
    bootstrap_line,
    dataset_option,
    document,
    evaluation_options,
    every_label_option,
    finish,
    metric_table,
    model_of,
    open_set,
    skip_option,
    split_option,
)
from rsicd_embed.parallel import share_one_heap


@click.command(cls=Recorded)
@dataset_option
@split_option
@click.option("--train-split", default="train", show_default=True, help="What is fitted.")
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
    **given: Any,
) -> None:
    """Classify by what labelled images look like: what the frozen features know.

    linear: logistic regression; knn: the nearest images vote. C and k are chosen on val, or, where
    there is none or it is what is scored, on a fifth of each class held out of what is fitted. A
    data set without splits is scored on a fifth of each class.
    """
    share_one_heap()
    from rsicd_embed.cli.progress import image_progress
    from rsicd_embed.evaluation import probe_protocol
    from rsicd_embed.evaluation.probe import require_library

    how = How.of(given)
    require_library()
    evalset = open_set(dataset, every_label=every_label)
    plan = probe_protocol.plan(evalset, split, train_split, how.seed)
    run = document("probe", {"every_label": every_label}, how)
    embedder = how.load(model)
    found = how.embed(embedder, plan.examples, skip_unreadable=skip_unreadable)
    vectors = dict(zip((e.id for e in found.examples), found.vectors, strict=True))
    with how.timed("fits"), image_progress("fits", probe_protocol.STEPS, "fits") as advance:
        told = probe_protocol.report(plan, vectors, how.bootstrap, advance)
    run |= {"dataset": evalset.name, **model_of(embedder), **told}
    run["skipped"] = as_skipped(found.skipped)
    finish(run, how, _lines)


def _lines(run: dict[str, Any]) -> list[str]:
    return [
        f"{run['model']} on {run['dataset']} {run['split']}: {run['n']:,} images of "
        f"{run['classes']} classes, the largest {run['largest_class']:.3f} of them",
        f"fitted on {run['train_split']}, {run['n_train']:,} images; C and k chosen on "
        f"{run['chosen_on']}, {run['n_chosen_on']:,} images",
        "",
        *metric_table(run, {}),
        "",
        "C  " + _tried(run["linear"], "c"),
        "k  " + _tried(run["knn"], "k"),
        "ties: a wrong class as likely as the right one stands before it",
        bootstrap_line(run),
    ]


def _tried(told: dict[str, Any], name: str) -> str:
    return "  ".join(
        f"{one[name]:g}: {one['top1']:.3f}{' (chosen)' if one[name] == told[name] else ''}"
        for one in told["tried"]
    )
