"""`rsicd-embed eval forgetting`: two models on several data sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rsicd_embed.cli.base import model_option, note
from rsicd_embed.cli.bench.base import Recorded
from rsicd_embed.cli.eval.base import (
    How,
    bootstrap_line,
    document,
    evaluation_options,
    every_label_option,
    finish,
    open_set,
    prompt_option,
)
from rsicd_embed.parallel import share_one_heap

if TYPE_CHECKING:
    from rsicd_embed.embedder.base import Embedder
    from rsicd_embed.evaluation.forgetting import Answers, Tasks

_SHOWN = ("zeroshot_top1", "zeroshot_top5", "i2t_r1", "t2i_r1", "mr")


@click.command(cls=Recorded)
@click.option(
    "--dataset",
    "datasets",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="As `eval zeroshot` takes it; repeatable. The first is the domain of the fine-tuning, "
    "if you like.",
)
@click.option(
    "--split",
    "splits",
    multiple=True,
    help="Of all data sets, or, given as often as --dataset, of each in turn.  "
    "[default: test, or all without splits]",
)
@model_option("the bundled model")
@click.option("--baseline", required=True, metavar="MODEL", help="What --model is compared with.")
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
    **given: Any,
) -> None:
    """Compare two models on several data sets: what fine-tuning gained, and what it lost.

    Each data set is asked what it can be: zero-shot accuracy where it has classes, retrieval R@k
    where it has captions. Intervals are of the difference on the same images.
    """
    share_one_heap()
    from rsicd_embed.evaluation import forgetting as bench
    from rsicd_embed.evaluation.zeroshot import require_prompts

    how = How.of(given)
    require_prompts(prompts)
    sets = [open_set(path, every_label=every_label) for path in datasets]
    asked = [bench.tasks(*one) for one in zip(sets, _each(splits, len(sets)), strict=True)]
    settings = {"prompts": prompts, "every_label": every_label}
    run = document("forgetting", settings, how)
    answers, names = [], []
    for which in (baseline, model):
        embedder = how.load(which)
        answers.append([_answer(one, embedder, prompts, how) for one in asked])
        names.append((embedder.name, embedder.fingerprint))
    (run["baseline"], run["baseline_fingerprint"]), (run["model"], run["fingerprint"]) = names
    with how.timed("metrics"):
        run["datasets"] = [
            {
                "dataset": one.name,
                "split": some.split,
                "n": len(some.examples),
                "metrics": bench.report(some, theirs, ours, how.bootstrap),
            }
            for one, some, ours, theirs in zip(sets, asked, *answers, strict=True)
        ]
    run["bootstrap"] = how.bootstrap.as_json()
    run["notes"] = [reason for some in asked for reason in some.left_out]
    if run["fingerprint"] == run["baseline_fingerprint"]:
        note("note: both models are the same")
    finish(run, how, _lines)


def _each(splits: tuple[str, ...], datasets: int) -> list[str | None]:
    if len(splits) not in (0, 1, datasets):
        raise click.UsageError(
            f"expected one --split, or one for each of {datasets} data sets, found {len(splits)}"
        )
    return list(splits) if len(splits) == datasets else [*(splits or (None,))] * datasets


def _answer(asked: Tasks, embedder: Embedder, prompts: tuple[str, ...], how: How) -> Answers:
    from rsicd_embed.evaluation import forgetting as bench

    images = how.embed(embedder, asked.examples).vectors
    texts = None
    if asked.captioned is not None:
        texts = how.embed_texts(embedder, asked.captioned[1].distinct)
    with how.timed("metrics"):
        return bench.answer(asked, embedder, images, texts, prompts)


def _lines(run: dict[str, Any]) -> list[str]:
    from rsicd_embed.reports.record import table

    level = f"{run['bootstrap']['level']:.0%}"
    rows = [("data set", "metric", "baseline", "model", "difference", level, "")]
    for one in run["datasets"]:
        for name in (name for name in _SHOWN if name in one["metrics"]):
            found = one["metrics"][name]
            low, high = found["interval"]
            rows.append(
                (
                    f"{one['dataset']} {one['split']} ({one['n']:,})",
                    name,
                    f"{found['baseline']:.3f}",
                    f"{found['model']:.3f}",
                    f"{found['difference']:+.3f}",
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
        "gained, lost: the interval of the difference leaves 0 out",
        bootstrap_line(run),
    ]
