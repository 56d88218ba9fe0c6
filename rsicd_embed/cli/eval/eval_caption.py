"""`rsicd-embed eval caption`: generated captions against the captions of a dataset."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rsicd_embed.cli.base import model_option
from rsicd_embed.cli.caption_command import captioner_option, decoding_of, decoding_options
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
    import numpy as np

    from rsicd_embed.datasets.base import Example
    from rsicd_embed.embedder.base import Embedder
    from rsicd_embed.evaluation.dataset import EvalSet
    from rsicd_embed.reports.evaluation_types import EvaluationRecord

_SAMPLES = 10
_DECODING = ("method", "beams", "temperature", "top_p", "max_words")
_NAMES = {"nearest": "nearest image's", "most_frequent": "most frequent"}


@click.command(cls=Recorded)
@dataset_option
@split_option
@captioner_option
@decoding_options
@model_option("the model that the captioner was trained on")
@click.option(
    "--baselines/--no-baselines",
    default=True,
    show_default=True,
    help="Also score two baselines: the caption of the nearest training image and the most "
    "frequent caption. This embeds the train split.",
)
@click.option(
    "--vectors",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder in which to cache the vectors of the train split.",
)
@skip_option
@evaluation_options
def caption(
    dataset: Path,
    split: str | None,
    captioner: str | None,
    model: str | None,
    baselines: bool,
    vectors: Path | None,
    skip_unreadable: bool,
    **options: Any,
) -> None:
    """Caption images and compare with their captions: BLEU, ROUGE-L and CIDEr-D.

    All captions of an image are references. BLEU is a figure of the whole split, ROUGE-L and
    CIDEr-D are means over images; metrics are computed as by pycocoevalcap. Baselines: the first
    caption of the most similar training image, and the most frequent training caption for all.
    """
    share_one_heap()
    chosen = {name: options.pop(name) for name in _DECODING}
    decoding = decoding_of(chosen | {"seed": options["seed"]})
    from rsicd_embed.captioning.loading_captioner import load_captioner
    from rsicd_embed.curation.caption_column import require_captioner_of
    from rsicd_embed.embedder.base import provenance
    from rsicd_embed.evaluation.caption_protocol import evaluate_captions
    from rsicd_embed.evaluation.dataset import with_captions

    context = EvalContext.of(options)
    evalset = open_set(dataset)
    name, examples = evalset.split(split)
    captioned = [examples[row] for row in with_captions(evalset, examples)]
    writer = load_captioner(captioner)
    shown = {key: value for key, value in asdict(decoding).items() if value is not None}
    head = context.document("caption", {"captioner": writer.name, "decoding": shown})
    embedder = context.load(model or writer.made_by.model)
    require_captioner_of(provenance(embedder), writer, f"model {embedder.name}")
    images = context.embed(embedder, captioned, skip_unreadable=skip_unreadable)
    with context.timed("captions"):
        generated = writer.caption_vectors(images.vectors, decoding)
    others: dict[str, list[str]] = {}
    notes: list[str] = []
    if baselines:
        others, notes = _baselines(context, embedder, evalset, images.vectors, vectors)
    references = [example.captions for example in images.examples]
    with context.timed("metrics"):
        scores = evaluate_captions(generated.texts, references, others, context.bootstrap)
    rows = zip(images.examples, generated.texts, generated.log_probabilities, strict=True)
    samples = [
        {"uri": e.uri, "caption": text, "reference": e.captions[0], "log_probability": float(p)}
        for e, text, p in list(rows)[:_SAMPLES]
    ]
    context.finish(
        head,
        _lines,
        {"dataset": evalset.name, "split": name, **model_of(embedder)},
        {"captioner": writer.name, "decoding": decoding.method},
        scores,
        {"without_captions": len(examples) - len(captioned), "samples": samples, "notes": notes},
        {"skipped": as_skipped(images.skipped)},
    )


def _baselines(
    context: EvalContext,
    embedder: Embedder,
    evalset: EvalSet,
    vectors: np.ndarray,
    folder: Path | None,
) -> tuple[dict[str, list[str]], list[str]]:
    """Captions of the baselines, or a note why there are none."""
    from rsicd_embed.evaluation import caption_protocol

    train = [e for e in evalset.examples if e.split == "train" and e.captions]
    if not train:
        return {}, [f"{evalset.name} has no captions in the split train, so there are no baselines"]
    nearest = caption_protocol.nearest_captions(
        vectors, _train_vectors(context, embedder, train, folder), train
    )
    frequent = caption_protocol.most_frequent_caption(train)
    return {
        caption_protocol.NEAREST: nearest,
        caption_protocol.MOST_FREQUENT: [frequent] * len(vectors),
    }, []


def _train_vectors(
    context: EvalContext, embedder: Embedder, train: list[Example], folder: Path | None
) -> np.ndarray:
    if folder is None:
        return context.embed(embedder, train).vectors
    from rsicd_embed.cli.progress import image_progress
    from rsicd_embed.train.captioner.caption_vectors import view_vectors

    with context.timed("images"), image_progress("images", len(train)) as advance:
        vectors: np.ndarray = view_vectors(embedder, train, 1, folder, advance)[0]
    return vectors


def _lines(run: EvaluationRecord) -> list[str]:
    without = run["without_captions"]
    left_out = f"; {without} images without captions left out" if without else ""
    columns = {}
    for name, baseline in run["baselines"].items():
        columns[_NAMES[name]] = baseline["metrics"]
    return [
        f"captioner {run['captioner']} ({run['decoding']}) on {run['dataset']} {run['split']}: "
        f"{run['n']:,} images with {run['references']:,} captions, {run['distinct']:,} different "
        f"ones generated{left_out}",
        "",
        *metric_table(run, columns),
        "",
        *(
            f"at least {min(low for low, _ in baseline['margin_intervals'].values()):+.3f} above "
            f"the {_NAMES[name]} caption in every metric, at {run['bootstrap']['level']:.0%}"
            for name, baseline in run["baselines"].items()
        ),
        bootstrap_line(run),
    ]
