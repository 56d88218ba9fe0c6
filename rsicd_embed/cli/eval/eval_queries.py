"""`rsicd-embed eval queries`: precision of search for everyday queries."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rsicd_embed.cli.base import count_option, model_option
from rsicd_embed.cli.eval.base import (
    EvalContext,
    as_skipped,
    datasets_option,
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
@click.argument(
    "file", required=False, metavar="[FILE]", type=click.Path(dir_okay=False, path_type=Path)
)
@datasets_option(
    "Dataset with classes, as for `eval zeroshot`; repeatable: the images of all "
    "datasets are searched together."
)
@split_option
@model_option("the bundled model")
@count_option("-k", default=10, help="Number of results per query.")
@skip_option
@evaluation_options
def queries(
    file: Path | None,
    datasets: tuple[Path, ...],
    split: str | None,
    model: str | None,
    k: int,
    skip_unreadable: bool,
    **options: Any,
) -> None:
    """Search labelled images for queries as people type them: precision@k.

    FILE is CSV with the columns query and classes; a result is right if its class is one of the
    query's classes, which are separated by semicolons. Without FILE, 150 everyday queries for the
    classes of RSICD and UC Merced are used.
    """
    share_one_heap()
    from rsicd_embed.evaluation import query_precision
    from rsicd_embed.evaluation.dataset import class_labels, require_distinct

    context = EvalContext.of(options)
    path = file or query_precision.EVERYDAY_QUERIES
    wanted = query_precision.read(path)
    opened = [(evalset.name, *evalset.split(split)) for evalset in map(open_set, datasets)]
    pooled = [
        (example, label)
        for _, _, examples in opened
        for example, label in zip(examples, class_labels(examples, by_file_name=False), strict=True)
        if label is not None
    ]
    require_distinct([example for example, _ in pooled])
    head = context.document("queries", {"queries_file": path.name, "k": k})
    embedder = context.load(model)
    images = context.embed(embedder, [e for e, _ in pooled], skip_unreadable=skip_unreadable)
    skipped = {skip.uri for skip in images.skipped}
    labels = [label for example, label in pooled if example.uri not in skipped]
    texts = context.embed_texts(embedder, [query.text for query in wanted])
    with context.timed("metrics"):
        scores = query_precision.report(wanted, labels, images.vectors, texts, k, context.bootstrap)
    names, splits = zip(*((name, chosen) for name, chosen, _ in opened), strict=True)
    context.finish(
        head,
        _lines,
        {
            "dataset": ", ".join(names),
            "split": ", ".join(dict.fromkeys(splits)),
            **model_of(embedder),
        },
        scores,
        {"skipped": as_skipped(images.skipped)},
    )


def _lines(run: EvaluationRecord) -> list[str]:
    from rsicd_embed.reports.record import table

    rows = sorted(run["per_query"], key=lambda row: (row["precision"], row["query"]))
    bootstrap = run["bootstrap"]
    return [
        f"{run['model']} on {run['dataset']} {run['split']}: {run['queries']} queries, "
        f"{run['n']:,} images",
        "",
        *table(
            [
                ("query", "precision", "classes"),
                *((r["query"], f"{r['precision']:.2f}", ", ".join(r["classes"])) for r in rows),
            ]
        ),
        "",
        *metric_table(run),
        "",
        f"queries without a right result: {run['without_hits']}",
        f"intervals: {bootstrap['level']:.0%}, percentile bootstrap over queries, "
        f"{bootstrap['resamples']:,} resamples, seed {bootstrap['seed']}",
    ]
