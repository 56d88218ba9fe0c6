"""`rsicd-embed eval retrieval`: captions find their images, and images their captions."""

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
@model_option("the bundled model")
@click.option(
    "--credit-duplicates",
    is_flag=True,
    help="A caption that stands with several images is right for each of them; without it, as in "
    "the published protocol, only for the image it is asked for.",
)
@skip_option
@evaluation_options
def retrieval(
    dataset: Path,
    split: str | None,
    model: str | None,
    credit_duplicates: bool,
    skip_unreadable: bool,
    **given: Any,
) -> None:
    """Rank all images for each caption, and all captions for each image: retrieval R@k.

    i2t: image→text, whether one of the image's captions is among the k best; t2i: text→image,
    whether the caption's image is; mr: the mean of the six. A tie counts against. The ceiling is
    what a perfect model could reach, since images may share a caption.
    """
    share_one_heap()
    from rsicd_embed.evaluation import retrieval as bench
    from rsicd_embed.evaluation.dataset import with_captions

    how = How.of(given)
    evalset = open_set(dataset)
    name, examples = evalset.split(split)
    wanted = [examples[row] for row in with_captions(evalset, examples)]
    run = document("retrieval", {"credit_duplicates": credit_duplicates}, how)
    embedder = how.load(model)
    images = how.embed(embedder, wanted, skip_unreadable=skip_unreadable)
    captions = bench.CaptionPairs.of(images.examples)
    texts = how.embed_texts(embedder, captions.distinct)
    with how.timed("metrics"):
        ranks = bench.rank(images.vectors, texts, captions, credit_duplicates=credit_duplicates)
        told = bench.report(ranks, captions, how.bootstrap, credit_duplicates=credit_duplicates)
    run |= {"dataset": evalset.name, "split": name, **model_of(embedder), **told}
    run["without_captions"] = len(examples) - len(wanted)
    run["skipped"] = as_skipped(images.skipped)
    finish(run, how, _lines)


def _lines(run: dict[str, Any]) -> list[str]:
    mute = run["without_captions"]
    left = f"; {mute} images without a caption left out" if mute else ""
    return [
        f"{run['model']} on {run['dataset']} {run['split']}: {run['n']:,} images × "
        f"{run['captions']:,} captions, {run['distinct_captions']:,} of them distinct, "
        f"{run['shared_captions']:,} shared by several images{left}",
        "",
        *metric_table(run, {"ceiling": run["ceiling"]}),
        "",
        f"ties: {run['ties']}",
        f"duplicates: {run['duplicates']}",
        bootstrap_line(run),
    ]
