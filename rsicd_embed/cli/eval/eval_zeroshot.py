"""`rsicd-embed eval zeroshot`: classification by prompts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from rsicd_embed.cli.base import model_option, warn
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
    prompt_option,
    skip_option,
    split_option,
)
from rsicd_embed.cli.record_output import Recorded
from rsicd_embed.parallel import share_one_heap

if TYPE_CHECKING:
    from rsicd_embed.datasets.base import Example
    from rsicd_embed.evaluation.dataset import EvalSet
    from rsicd_embed.reports.evaluation_types import EvaluationRecord, ZeroShotScores

_MODEL_OPTIONS = ("model", "prompts", "raw_names", "skip_unreadable")
_Scores = tuple["ZeroShotScores", Mapping[str, object]]


@click.command(cls=Recorded)
@dataset_option
@split_option
@model_option("the bundled model")
@prompt_option
@click.option("--raw-names", is_flag=True, help="Use class names as the dataset writes them.")
@every_label_option
@skip_option
@click.option(
    "--predictions",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Score this file instead of a model: for each image, a line of image, class, and pairs of "
    "predicted class and score, best first, separated by tabs.",
)
@evaluation_options
@click.pass_context
def zeroshot(
    context: click.Context,
    /,
    dataset: Path,
    split: str | None,
    model: str | None,
    prompts: tuple[str, ...],
    raw_names: bool,
    every_label: bool,
    skip_unreadable: bool,
    predictions: Path | None,
    **options: Any,
) -> None:
    """Classify images by the most similar prompt: top-k accuracy.

    The predicted class is the one whose prompt is most similar to the image; ties count against the
    right class. On RSICD this is CLIP-rsicd's protocol: the images whose file name contains their
    class, 30 classes. With -o, confusion.png shows which classes are mistaken for which.
    """
    share_one_heap()
    from rsicd_embed.evaluation.zeroshot import require_matplotlib, require_prompts

    evaluation = EvalContext.of(options)
    if evaluation.output is not None:
        require_matplotlib()
    require_prompts(prompts)
    evalset = open_set(dataset, every_label=every_label)
    name, examples = evalset.split(split)
    settings: dict[str, object] = {"every_label": every_label}
    if predictions is None:
        settings |= {"prompts": prompts, "raw_names": raw_names}
    head = evaluation.document("zeroshot", settings)
    if predictions is not None:
        _refuse_model_options(context)
        scores, details = _score(evaluation, predictions, evalset, examples)
    else:
        scores, details = _classify(
            evaluation,
            model,
            evalset,
            examples,
            prompts,
            raw=raw_names,
            skip_unreadable=skip_unreadable,
        )
    if evaluation.output is not None:
        title = f"{evalset.name} {name}: top-1 {scores['metrics']['top1']:.3f}"
        _draw(scores, title, evaluation.output / "confusion.png")
    subject = {"dataset": evalset.name, "split": name}
    evaluation.finish(head, _lines, subject, scores, details)


def _classify(
    evaluation: EvalContext,
    model: str | None,
    evalset: EvalSet,
    examples: tuple[Example, ...],
    prompts: tuple[str, ...],
    *,
    raw: bool,
    skip_unreadable: bool,
) -> _Scores:
    from rsicd_embed.embedder.base import word_warnings
    from rsicd_embed.evaluation.dataset import labelled
    from rsicd_embed.evaluation.zeroshot import class_names, class_vectors, classify, report

    chosen = labelled(evalset, examples)
    embedder = evaluation.load(model)
    wanted = [examples[row] for row in chosen.rows]
    images = evaluation.embed(embedder, wanted, skip_unreadable=skip_unreadable)
    label_of = {e.id: label for e, label in zip(wanted, chosen.labels, strict=True)}
    with evaluation.timed("texts"):
        names = class_names(chosen.classes, raw=raw)
        vectors = class_vectors(embedder, names, prompts)
    for line in word_warnings(embedder, names):
        warn(line)
    with evaluation.timed("metrics"):
        import numpy as np

        labels = np.array([label_of[example.id] for example in images.examples])
        outcome = classify(images.vectors, vectors, labels, chosen.classes)
        scores = report(outcome, evaluation.bootstrap)
    return scores, {
        **model_of(embedder),
        "names": names,
        "labelled": chosen.rule,
        "left_out": chosen.left_out,
        "skipped": as_skipped(images.skipped),
    }


def _score(
    evaluation: EvalContext, path: Path, evalset: EvalSet, examples: tuple[Example, ...]
) -> _Scores:
    from rsicd_embed.evaluation.dataset import labelled
    from rsicd_embed.evaluation.metrics import ZEROSHOT_KS
    from rsicd_embed.evaluation.zeroshot import read_predictions, report

    chosen = labelled(evalset, examples)
    wanted = [examples[row] for row in chosen.rows]
    predicted = read_predictions(path, wanted, chosen.labels, chosen.classes)
    ks = [k for k in ZEROSHOT_KS if k <= predicted.depth]
    scores = report(predicted.outcome, evaluation.bootstrap, ks)
    missing = [f"top{k}" for k in ZEROSHOT_KS if k not in ks]
    if missing:
        listed = f"{path.name} lists {predicted.depth} classes per image"
        scores["notes"].append(f"{listed}: {', '.join(missing)} cannot be scored")
    scores["ties"] = "resolved by the order in the file"
    return scores, {
        "predictions": path.name,
        "labelled": chosen.rule,
        "left_out": chosen.left_out,
    }


def _refuse_model_options(context: click.Context) -> None:
    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        if option.name in _MODEL_OPTIONS and source == ParameterSource.COMMANDLINE:
            raise click.UsageError(f"expected --predictions or {option.opts[0]}, found both")


def _draw(scores: ZeroShotScores, title: str, path: Path) -> None:
    import numpy as np

    from rsicd_embed.evaluation.zeroshot import draw_confusion

    names = [row["class"] for row in scores["per_class"]]
    draw_confusion(np.array(scores["confusion"]), names, title, path)


def _lines(run: EvaluationRecord) -> list[str]:
    from rsicd_embed.reports.record import table

    settings = run["settings"]
    subject = run.get("model") or run["predictions"]
    names = "as in the dataset" if settings.get("raw_names") else "readable"
    tops = list(run["metrics"])
    rows = [("class", "images", *tops, "mistaken for")]
    for row in run["per_class"]:
        shares = [row.get(top) for top in tops]
        accuracies = ("" if share is None else f"{share:.3f}" for share in shares)
        mistaken = f"{row['most_mistaken_for']} {row['mistaken']}" if row["mistaken"] else ""
        rows.append((row["class"], str(row["n"]), *accuracies, mistaken))
    return [
        f"{subject} on {run['dataset']} {run['split']}: {run['n']:,} images of {run['classes']} "
        "classes",
        f"images: {run['labelled']}; {run['left_out']:,} others left out",
        *(f"prompt: {prompt}; class names {names}" for prompt in settings.get("prompts", ())),
        "",
        *metric_table(run),
        "",
        *table(rows),
        "",
        f"ties: {run['ties']}",
        bootstrap_line(run),
    ]
