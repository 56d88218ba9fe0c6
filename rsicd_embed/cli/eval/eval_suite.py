"""`rsicd-embed eval suite`: several models on several datasets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rsicd_embed.cli.eval.base import (
    EvalContext,
    bootstrap_line,
    datasets_option,
    evaluation_options,
    every_label_option,
    model_of,
    open_set,
    prompt_option,
    split_per_dataset,
    splits_option,
)
from rsicd_embed.cli.record_output import Recorded
from rsicd_embed.parallel import share_one_heap

if TYPE_CHECKING:
    from rsicd_embed.evaluation.suite import Task
    from rsicd_embed.reports.evaluation_types import EvaluationRecord, SuiteModel, SuiteResult

# `evaluation.suite.TASKS`; importing it would slow down `--help`.
_TASKS = ("zeroshot", "retrieval", "probe")


@click.command(cls=Recorded)
@datasets_option("Dataset, as for `eval zeroshot`; repeatable.")
@splits_option
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="MODEL",
    help="Model, as for `ingest`; repeatable.  [default: the bundled model]",
)
@click.option(
    "--task",
    "tasks",
    multiple=True,
    type=click.Choice(_TASKS),
    help="Task to evaluate; repeatable.  [default: all that a dataset supports]",
)
@prompt_option
@every_label_option
@evaluation_options
def suite(
    datasets: tuple[Path, ...],
    splits: tuple[str, ...],
    models: tuple[str, ...],
    tasks: tuple[Task, ...],
    prompts: tuple[str, ...],
    every_label: bool,
    **options: Any,
) -> None:
    """Compare models on several datasets, in one table and one page.

    Each dataset is evaluated as far as possible: zero-shot accuracy and a probe if it has classes,
    retrieval if it has captions. A mark tells whether a model saw images of the dataset in
    training, according to `rsicd-embed models`.
    """
    share_one_heap()
    from rsicd_embed.embedder import known_models
    from rsicd_embed.embedder.base import engine_of
    from rsicd_embed.evaluation import suite as protocol
    from rsicd_embed.evaluation.probe import require_sklearn
    from rsicd_embed.evaluation.zeroshot import require_prompts

    context = EvalContext.of(options)
    require_prompts(prompts)
    chosen = tasks or protocol.TASKS
    if "probe" in chosen:
        require_sklearn()
    sets = [open_set(path, every_label=every_label) for path in datasets]
    split_of = split_per_dataset(splits, len(sets))
    plans = [
        protocol.plan(evalset, split, chosen, context.seed)
        for evalset, split in zip(sets, split_of, strict=True)
    ]
    head = context.document(
        "suite", {"prompts": prompts, "every_label": every_label, "tasks": list(chosen)}
    )
    described: list[SuiteModel] = []
    results: list[SuiteResult] = []
    for name in dict.fromkeys(models or (None,)):
        embedder = context.load(name)
        named = embedder.name
        known = known_models.find(named) or known_models.published_at(named, None)
        identity = model_of(embedder)
        described.append(
            {
                "model": identity["model"],
                "fingerprint": identity["fingerprint"],
                "engine": engine_of(embedder),
            }
        )
        for plan in plans:
            images = context.embed(embedder, plan.examples)
            texts = context.embed_texts(embedder, plan.captions)
            by_id = dict(zip((e.id for e in images.examples), images.vectors, strict=True))
            with context.timed("metrics"):
                metrics, intervals = protocol.scores(
                    plan, embedder, by_id, texts, prompts, context.bootstrap
                )
            results.append(
                {
                    "model": embedder.name,
                    "dataset": plan.dataset,
                    "split": plan.split,
                    "n": plan.images,
                    "seen": None if known is None else known.saw(plan.dataset),
                    "metrics": metrics,
                    "intervals": intervals,
                }
            )
    context.finish(
        head,
        _lines,
        {
            "models": described,
            "results": results,
            "bootstrap": context.bootstrap.as_json(),
            "notes": [f"{plan.dataset}: {reason}" for plan in plans for reason in plan.left_out],
        },
    )


def _lines(run: EvaluationRecord) -> list[str]:
    from rsicd_embed.reports.record import table
    from rsicd_embed.reports.suite_table import SEEN, suite_rows

    lines = []
    for title, rows in suite_rows(run["results"]):
        lines += [title, *table(rows), ""]
    return [*lines, SEEN, bootstrap_line(run)]
