"""`rsicd-embed eval retrieval`: retrieval R@k between images and captions."""

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
    metric_table,
    model_of,
    open_set,
    skip_option,
    split_option,
)
from rsicd_embed.cli.record_output import Recorded
from rsicd_embed.parallel import share_one_heap

if TYPE_CHECKING:
    from rsicd_embed.reports.evaluation_types import EvaluationRecord


@click.command(cls=Recorded)
@dataset_option
@split_option
@model_option("the bundled model")
@click.option(
    "--credit-duplicates",
    is_flag=True,
    help="Count a caption shared by several images as right for each of them. By default, as in "
    "the published protocol, it is right only for the image it is queried for.",
)
@skip_option
@evaluation_options
def retrieval(
    dataset: Path,
    split: str | None,
    model: str | None,
    credit_duplicates: bool,
    skip_unreadable: bool,
    **options: Any,
) -> None:
    """Rank all images for each caption, and all captions for each image: retrieval R@k.

    i2t: image→text, whether one of the image's captions is among the k best; t2i: text→image,
    whether the caption's image is; mr: the mean of the six. Ties count against the right candidate.
    The ceiling is the score of a perfect model, below 1 if images share captions.
    """
    share_one_heap()
    from rsicd_embed.evaluation.dataset import with_captions
    from rsicd_embed.evaluation.retrieval import CaptionPairs, rank, report

    context = EvalContext.of(options)
    evalset = open_set(dataset)
    name, examples = evalset.split(split)
    captioned = [examples[row] for row in with_captions(evalset, examples)]
    head = context.document("retrieval", {"credit_duplicates": credit_duplicates})
    embedder = context.load(model)
    images = context.embed(embedder, captioned, skip_unreadable=skip_unreadable)
    captions = CaptionPairs.of(images.examples)
    texts = context.embed_texts(embedder, captions.distinct)
    with context.timed("metrics"):
        ranks, in_order = (
            rank(
                images.vectors,
                texts,
                captions,
                credit_duplicates=credit_duplicates,
                in_order=in_order,
            )
            for in_order in (False, True)
        )
        scores = report(
            ranks, in_order, captions, context.bootstrap, credit_duplicates=credit_duplicates
        )
    context.finish(
        head,
        _lines,
        {"dataset": evalset.name, "split": name, **model_of(embedder)},
        scores,
        {
            "without_captions": len(examples) - len(captioned),
            "skipped": as_skipped(images.skipped),
        },
    )


def _lines(run: EvaluationRecord) -> list[str]:
    without = run["without_captions"]
    left_out = f"; {without} images without captions left out" if without else ""
    return [
        f"{run['model']} on {run['dataset']} {run['split']}: {run['n']:,} images × "
        f"{run['captions']:,} captions, {run['distinct_captions']:,} of them distinct, "
        f"{run['shared_captions']:,} shared by several images{left_out}",
        "",
        *metric_table(run, {"argsort": run["argsort"], "ceiling": run["ceiling"]}),
        "",
        f"ties: {run['ties']}",
        f"argsort: {run['argsort_ties']}",
        f"duplicates: {run['duplicates']}",
        bootstrap_line(run),
    ]
