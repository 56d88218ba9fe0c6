"""`rsicd-embed augment-captions`: more captions by translating them into a language and back."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rsicd_embed.cli.base import json_option, note, print_json, show
from rsicd_embed.errors import DatasetError

if TYPE_CHECKING:
    from rsicd_embed.train.backtranslation.paraphrase import ParaphraseOutcome

ALL = "all"


@click.command("augment-captions")
@click.argument("dataset", type=click.Path(exists=True, path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="OUT.jsonl",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Captions by image, a line each; beside a data set, training reads textaug_*.jsonl.",
)
@click.option(
    "--split", default="train", show_default=True, help=f"Which images; {ALL!r} for all of them."
)
@click.option(
    "--via",
    multiple=True,
    metavar="LANG",
    default=("fr", "es", "it", "pt"),
    show_default=True,
    help="Language to go through, as the models call it; repeat it, in the order of use.",
)
@click.option(
    "--from-english",
    multiple=True,
    metavar="[LANG=]MODEL",
    help="Marian model into the languages, or into one; a Hugging Face id or a directory, in "
    "which {language} is filled in.  [default: Helsinki-NLP/opus-mt-en-ROMANCE]",
)
@click.option(
    "--to-english",
    multiple=True,
    metavar="[LANG=]MODEL",
    help="Marian model back.  [default: Helsinki-NLP/opus-mt-ROMANCE-en]",
)
@click.option(
    "--captions",
    "count",
    default=5,
    show_default=True,
    type=click.IntRange(1),
    help="Distinct captions that each image is to have.",
)
@click.option(
    "--batch-size",
    default=32,
    show_default=True,
    type=click.IntRange(1),
    help="Captions translated at once.",
)
@click.option(
    "--num-beams", default=4, show_default=True, type=click.IntRange(1), help="Of the beam search."
)
@click.option("--device", help="Of torch, such as cpu or cuda.  [default: the GPU if there is one]")
@click.option(
    "--cache",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where translations are kept.  [default: ~/.cache/rsicd-embed/translations.sqlite]",
)
@json_option
def augment_captions(
    dataset: Path,
    output: Path,
    split: str,
    via: tuple[str, ...],
    from_english: tuple[str, ...],
    to_english: tuple[str, ...],
    count: int,
    batch_size: int,
    num_beams: int,
    device: str | None,
    cache: Path | None,
    as_json: bool,
) -> None:
    """Fill up the captions of images by translating them into a language and back.

    DATASET is what `train` takes: a folder with a dataset_*.json, or a manifest with captions.
    Each image with fewer than five distinct captions gets paraphrases, through one language after
    the other until it has five. What equals one of its captions but for case, spaces or the final
    full stop is dropped. Translations are kept: a run that was stopped goes on when it is started
    again, and no caption goes through the same model twice.
    """
    from rsicd_embed.cli.progress import image_progress
    from rsicd_embed.datasets import captions, splits
    from rsicd_embed.files import cache_folder
    from rsicd_embed.train.backtranslation import paraphrase
    from rsicd_embed.train.backtranslation.translations import Translations

    languages = tuple(dict.fromkeys(via))
    forth = _models("--from-english", from_english, languages, paraphrase.FROM_ENGLISH)
    back = _models("--to-english", to_english, languages, paraphrase.TO_ENGLISH)
    settings = paraphrase.ParaphraseSettings(
        via=tuple(paraphrase.Via(one, forth[one], back[one]) for one in languages),
        count=count,
        batch_size=batch_size,
        num_beams=num_beams,
        device=device,
    )
    _check_output(output)
    start = time.perf_counter()
    source = captions.load(dataset)
    examples = source.examples if split == ALL else source.split(splits.plain(split) or "")
    if not examples:
        found = ", ".join(sorted({one.split or "none" for one in source.examples}))
        raise DatasetError(f"{dataset}: expected images of the split {split!r}, found {found}")
    with Translations(cache or cache_folder() / "translations.sqlite") as translations:
        outcome = paraphrase.paraphrase(
            examples,
            settings,
            translations,
            lambda title, total: image_progress(title, total, "captions"),
        )
    captions.write_augmented(output, outcome.filled.captions)
    seconds = time.perf_counter() - start
    if as_json:
        models = {v.language: [v.from_english, v.to_english] for v in settings.via}
        print_json(_document(outcome, models, output, split, seconds))
    else:
        _tell(outcome, output, count, seconds)
    if outcome.without_captions:
        left_out = outcome.without_captions
        note(f"left out {len(left_out)} images without a caption, such as {left_out[0]}")


def _models(
    option: str, given: tuple[str, ...], languages: tuple[str, ...], default: str
) -> dict[str, str]:
    """The model of each language."""
    for_all, for_one = default, {}
    for one in given:
        language, equals, model = one.partition("=")
        if equals and language not in languages and language.isalpha():
            raise click.UsageError(f"{option} {one}: --via has no language {language!r}.")
        if equals and language in languages:
            for_one[language] = model
        else:
            for_all = one
    models = {one: for_one.get(one, for_all).replace("{language}", one) for one in languages}
    for language, model in models.items():
        if not model.strip():
            raise click.UsageError(f"{option}: expected a model for {language!r}, found none.")
    return models


def _check_output(output: Path) -> None:
    """Before hours of translating, not after them."""
    if output.exists():
        raise click.UsageError(f"{output} exists; remove it, or choose another file with -o.")
    if not output.parent.is_dir() or not os.access(output.parent, os.W_OK):
        raise click.UsageError(f"{output} cannot be written: no writable folder {output.parent}.")


def _document(
    outcome: ParaphraseOutcome,
    models: dict[str, list[str]],
    output: Path,
    split: str,
    seconds: float,
) -> dict[str, object]:
    filled = outcome.filled
    return {
        "output": str(output),
        "split": split,
        "images": len(filled.captions),
        "short_before": outcome.short_before,
        "short": filled.short,
        "without_captions": len(outcome.without_captions),
        "added": filled.added,
        "dropped": filled.dropped,
        "translated": outcome.translated,
        "remembered": outcome.remembered,
        "models": models,
        "seconds": seconds,
        "model_seconds": outcome.model_seconds,
    }


def _tell(outcome: ParaphraseOutcome, output: Path, count: int, seconds: float) -> None:
    filled = outcome.filled
    added = ", ".join(f"{number:,} through {name}" for name, number in filled.added.items())
    show(
        f"{len(filled.captions):,} images in {output}; {outcome.short_before:,} had fewer than "
        f"{count} distinct captions, {filled.short:,} still have"
    )
    show(f"paraphrases: {added or 'none needed'}; {filled.dropped:,} dropped as nothing new")
    show(
        f"{outcome.translated:,} captions translated, {outcome.remembered:,} known from before, "
        f"in {seconds:.1f} s ({outcome.model_seconds:.1f} s in models)"
    )
