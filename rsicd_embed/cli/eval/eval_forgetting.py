"""`rsicd-embed eval forgetting`: a model compared with a baseline on several datasets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rsicd_embed.cli.base import model_option, note
from rsicd_embed.cli.eval.base import (
    EvalContext,
    bootstrap_line,
    datasets_option,
    evaluation_options,
    every_label_option,
    open_set,
    prompt_option,
    split_per_dataset,
    splits_option,
)
from rsicd_embed.cli.record_output import Recorded
from rsicd_embed.parallel import share_one_heap

if TYPE_CHECKING:
    from rsicd_embed.embedder.base import Embedder
    from rsicd_embed.evaluation.forgetting import ModelRanks, Tasks
    from rsicd_embed.reports.evaluation_types import DatasetChanges, EvaluationRecord

_SHOWN = ("zeroshot_top1", "zeroshot_top5", "i2t_r1", "t2i_r1", "mr")


@click.command(cls=Recorded)
@datasets_option(
    "Dataset, as for `eval zeroshot`; repeatable. Include some that the model was not trained on."
)
@splits_option
@model_option("the bundled model")
@click.option("--baseline", required=True, metavar="MODEL", help="Model to compare --model with.")
@prompt_option
@every_label_option
@evaluation_options
def forgetting(
    datasets: tuple[Path, ...],
    splits: tuple[str, ...],
    model: str | None,
    baseline: str,
    prompts: tuple[str, ...],
    every_label: bool,
    **options: Any,
) -> None:
    """Compare two models on several datasets, to see the gains and losses of fine-tuning.

    Each dataset is evaluated as far as possible: zero-shot accuracy if it has classes, retrieval
    R@k if it has captions. Intervals are for the difference on the same images.
    """
    share_one_heap()
    from rsicd_embed.evaluation import forgetting as protocol
    from rsicd_embed.evaluation.zeroshot import require_prompts

    context = EvalContext.of(options)
    require_prompts(prompts)
    sets = [open_set(path, every_label=every_label) for path in datasets]
    split_of = split_per_dataset(splits, len(sets))
    tasks = [protocol.tasks(*pair) for pair in zip(sets, split_of, strict=True)]
    head = context.document("forgetting", {"prompts": prompts, "every_label": every_label})
    ranks, embedders = [], []
    for name in (baseline, model):
        embedder = context.load(name)
        ranks.append([_ranks(context, embedder, each, prompts) for each in tasks])
        embedders.append({"model": embedder.name, "fingerprint": embedder.fingerprint})
    with context.timed("metrics"):
        changes: list[DatasetChanges] = [
            {
                "dataset": evalset.name,
                "split": each.split,
                "n": len(each.examples),
                "metrics": protocol.report(each, after, before, context.bootstrap),
            }
            for evalset, each, before, after in zip(sets, tasks, *ranks, strict=True)
        ]
    first, second = embedders
    if first["fingerprint"] == second["fingerprint"]:
        note("note: both models are the same")
    context.finish(
        head,
        _lines,
        {"baseline": first["model"], "baseline_fingerprint": first["fingerprint"], **second},
        {
            "datasets": changes,
            "bootstrap": context.bootstrap.as_json(),
            "notes": [reason for each in tasks for reason in each.left_out],
        },
    )


def _ranks(
    context: EvalContext, embedder: Embedder, tasks: Tasks, prompts: tuple[str, ...]
) -> ModelRanks:
    from rsicd_embed.evaluation.forgetting import model_ranks

    images = context.embed(embedder, tasks.examples).vectors
    texts = None
    if tasks.captioned is not None:
        texts = context.embed_texts(embedder, tasks.captioned[1].distinct)
    with context.timed("metrics"):
        return model_ranks(tasks, embedder, images, texts, prompts)


def _lines(run: EvaluationRecord) -> list[str]:
    from rsicd_embed.reports.record import table

    level = f"{run['bootstrap']['level']:.0%}"
    rows = [("dataset", "metric", "baseline", "model", "difference", level, "")]
    for changes in run["datasets"]:
        for name in (name for name in _SHOWN if name in changes["metrics"]):
            change = changes["metrics"][name]
            low, high = change["interval"]
            rows.append(
                (
                    f"{changes['dataset']} {changes['split']} ({changes['n']:,})",
                    name,
                    f"{change['baseline']:.3f}",
                    f"{change['model']:.3f}",
                    f"{change['difference']:+.3f}",
                    f"{low:+.3f} to {high:+.3f}",
                    "gained" if low > 0 else "lost" if high < 0 else "",
                )
            )
    return [
        f"baseline: {run['baseline']}",
        f"model: {run['model']}",
        "",
        *table(rows),
        "",
        "gained, lost: the interval of the difference excludes 0",
        bootstrap_line(run),
    ]
