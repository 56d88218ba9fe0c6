"""`rsicd-embed eval zeroshot`: classification by prompts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from rsicd_embed.cli.base import model_option, warn
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
    prompt_option,
    skip_option,
    split_option,
)
from rsicd_embed.parallel import share_one_heap

if TYPE_CHECKING:
    from rsicd_embed.datasets.base import Example
    from rsicd_embed.evaluation.dataset import EvalSet

_PICTURE = "confusion.png"
_OF_THE_MODEL = ("model", "prompts", "raw_names", "skip_unreadable")


@click.command(cls=Recorded)
@dataset_option
@split_option
@model_option("the bundled model")
@prompt_option
@click.option("--raw-names", is_flag=True, help="Classes as the data set writes them.")
@every_label_option
@skip_option
@click.option(
    "--predictions",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Score this file instead of a model: image, class, and predicted class and score, best "
    "first, separated by tabs, a line an image.",
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
    **given: Any,
) -> None:
    """Classify images by the most similar prompt: top-k accuracy.

    An image is of the class whose prompt its vector is most similar to; a tie counts against. On
    RSICD this is CLIP-rsicd's protocol: the images whose file name tells their class, 30 classes.
    With -o, confusion.png shows which classes are taken for which.
    """
    share_one_heap()
    from rsicd_embed.evaluation import confusion
    from rsicd_embed.evaluation.zeroshot import require_prompts

    how = How.of(given)
    if how.output is not None:
        confusion.require_library()
    require_prompts(prompts)
    evalset = open_set(dataset, every_label=every_label)
    name, examples = evalset.split(split)
    settings: dict[str, Any] = {"every_label": every_label}
    if predictions is None:
        settings |= {"prompts": prompts, "raw_names": raw_names}
    run = document("zeroshot", settings, how) | {"dataset": evalset.name, "split": name}
    if predictions is not None:
        _refuse(context, _OF_THE_MODEL)
        run |= _score(predictions, evalset, examples, how)
    else:
        run |= _classify(
            model, evalset, examples, prompts, how, raw=raw_names, skip_unreadable=skip_unreadable
        )
    if how.output is not None:
        title = f"{run['dataset']} {run['split']}: top-1 {run['metrics']['top1']:.3f}"
        _draw(run, title, how.output / _PICTURE)
    finish(run, how, _lines)


def _classify(
    model: str | None,
    evalset: EvalSet,
    examples: tuple[Example, ...],
    prompts: tuple[str, ...],
    how: How,
    *,
    raw: bool,
    skip_unreadable: bool,
) -> dict[str, Any]:
    from rsicd_embed.embedder.base import word_warnings
    from rsicd_embed.evaluation import zeroshot as bench
    from rsicd_embed.evaluation.dataset import labelled

    chosen = labelled(evalset, examples)
    embedder = how.load(model)
    wanted = [examples[row] for row in chosen.rows]
    found = how.embed(embedder, wanted, skip_unreadable=skip_unreadable)
    right = {e.id: label for e, label in zip(wanted, chosen.labels, strict=True)}
    with how.timed("texts"):
        names = bench.class_names(chosen.classes, raw=raw)
        vectors = bench.class_vectors(embedder, names, prompts)
    for line in word_warnings(embedder, names):
        warn(line)
    with how.timed("metrics"):
        import numpy as np

        labels = np.array([right[example.id] for example in found.examples])
        outcome = bench.classify(found.vectors, vectors, labels, chosen.classes)
        told = bench.report(outcome, how.bootstrap)
    return {
        **model_of(embedder),
        **told,
        "names": names,
        "labelled": chosen.rule,
        "left_out": chosen.left_out,
        "skipped": as_skipped(found.skipped),
    }


def _score(path: Path, evalset: EvalSet, examples: tuple[Example, ...], how: How) -> dict[str, Any]:
    from rsicd_embed.evaluation import predictions
    from rsicd_embed.evaluation import zeroshot as bench
    from rsicd_embed.evaluation.dataset import labelled
    from rsicd_embed.evaluation.metrics import ZEROSHOT_KS

    chosen = labelled(evalset, examples)
    wanted = [examples[row] for row in chosen.rows]
    found = predictions.read(path, wanted, chosen.labels, chosen.classes)
    ks = [k for k in ZEROSHOT_KS if k <= found.depth]
    told = bench.report(found.outcome, how.bootstrap, ks)
    short = [f"top{k}" for k in ZEROSHOT_KS if k not in ks]
    if short:
        listed = f"{path.name} lists {found.depth} classes an image"
        told["notes"].append(f"{listed}: {', '.join(short)} cannot be scored")
    return {
        "predictions": path.name,
        **told,
        "ties": "the file's order counts",
        "labelled": chosen.rule,
        "left_out": chosen.left_out,
    }


def _refuse(context: click.Context, names: tuple[str, ...]) -> None:
    for option in context.command.params:
        given = context.get_parameter_source(option.name or "")
        if option.name in names and given == ParameterSource.COMMANDLINE:
            raise click.UsageError(f"expected --predictions or {option.opts[0]}, found both")


def _draw(run: dict[str, Any], title: str, path: Path) -> None:
    import numpy as np

    from rsicd_embed.evaluation import confusion

    names = [one["class"] for one in run["per_class"]]
    confusion.draw(np.array(run["confusion"]), names, title, path)


def _lines(run: dict[str, Any]) -> list[str]:
    from rsicd_embed.reports.record import table

    who = run.get("model") or run["predictions"]
    where = f"{run['dataset']} {run['split']}"
    names = "as the data set writes them" if run["settings"].get("raw_names") else "readable"
    lines = [
        f"{who} on {where}: {run['n']:,} images of {run['classes']} classes",
        f"images: {run['labelled']}; {run['left_out']:,} others left out",
        *(f"prompt: {one}; class names {names}" for one in run["settings"].get("prompts", ())),
        "",
        *metric_table(run, {}),
        "",
    ]
    tops = list(run["metrics"])
    rows = [("class", "images", *tops, "mistaken for")]
    for one in run["per_class"]:
        shares = ("" if one[top] is None else f"{one[top]:.3f}" for top in tops)
        wrong = f"{one['most_mistaken_for']} {one['mistaken']}" if one["mistaken"] else ""
        rows.append((one["class"], str(one["n"]), *shares, wrong))
    return [*lines, *table(rows), "", f"ties: {run['ties']}", bootstrap_line(run)]
