"""`rsicd-embed augment-captions`: paraphrases of captions by back-translation."""

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
    help="Output, one line per image; training reads textaug_*.jsonl in a dataset's folder.",
)
@click.option(
    "--split", default="train", show_default=True, help=f"Images of this split, or {ALL!r}."
)
@click.option(
    "--via",
    multiple=True,
    metavar="LANG",
    default=("fr", "es", "it", "pt"),
    show_default=True,
    help="Language to translate through, as the models name it; repeatable, in order of use.",
)
@click.option(
    "--from-english",
    multiple=True,
    metavar="[LANG=]MODEL",
    help="Marian model from English to all languages, or to LANG: a Hugging Face id or a "
    "directory; {language} is replaced.  [default: Helsinki-NLP/opus-mt-en-ROMANCE]",
)
@click.option(
    "--to-english",
    multiple=True,
    metavar="[LANG=]MODEL",
    help="Marian model back to English.  [default: Helsinki-NLP/opus-mt-ROMANCE-en]",
)
@click.option(
    "--captions",
    "count",
    default=5,
    show_default=True,
    type=click.IntRange(1),
    help="Distinct captions wanted per image.",
)
@click.option(
    "--batch-size",
    default=32,
    show_default=True,
    type=click.IntRange(1),
    help="Captions per batch.",
)
@click.option(
    "--num-beams", default=4, show_default=True, type=click.IntRange(1), help="Beam width."
)
@click.option(
    "--device", help="PyTorch device, such as cpu or cuda.  [default: the GPU if there is one]"
)
@click.option(
    "--cache",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File that caches translations.  [default: ~/.cache/rsicd-embed/translations.sqlite]",
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
    """Add captions by back-translation.

    DATASET is a training dataset: a folder with a dataset_*.json, or a manifest with captions.
    Images with fewer than --captions distinct captions get paraphrases, made by translating their
    captions into one language after another and back, until they have enough. A paraphrase that
    differs from a caption only in case, spaces or the final full stop is dropped. Translations are
    cached, so an interrupted run continues where it stopped, and no caption is translated twice by
    the same model.
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
        via=tuple(
            paraphrase.Via(language, forth[language], back[language]) for language in languages
        ),
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
        present = ", ".join(sorted({example.split or "none" for example in source.examples}))
        raise DatasetError(f"{dataset}: expected images of the split {split!r}, found {present}")
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
        _print_summary(outcome, output, count, seconds)
    if outcome.without_captions:
        left_out = outcome.without_captions
        note(f"left out {len(left_out)} images without a caption, such as {left_out[0]}")


def _models(
    option: str, values: tuple[str, ...], languages: tuple[str, ...], default: str
) -> dict[str, str]:
    """Parses repeated `[LANG=]MODEL` into the model of each language."""
    for_all, by_language = default, {}
    for value in values:
        language, equals, model = value.partition("=")
        if equals and language not in languages and language.isalpha():
            raise click.UsageError(f"{option} {value}: --via has no language {language!r}.")
        if equals and language in languages:
            by_language[language] = model
        else:
            for_all = value
    models = {
        language: by_language.get(language, for_all).replace("{language}", language)
        for language in languages
    }
    for language, model in models.items():
        if not model.strip():
            raise click.UsageError(f"{option}: expected a model for {language!r}, found none.")
    return models


def _check_output(output: Path) -> None:
    """Refuses an output that exists or cannot be written, before hours of translation."""
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


def _print_summary(outcome: ParaphraseOutcome, output: Path, count: int, seconds: float) -> None:
    filled = outcome.filled
    added = ", ".join(f"{number:,} through {name}" for name, number in filled.added.items())
    show(
        f"{len(filled.captions):,} images in {output}; {outcome.short_before:,} had fewer than "
        f"{count} distinct captions, {filled.short:,} still do"
    )
    show(f"paraphrases: {added or 'none needed'}; {filled.dropped:,} duplicates dropped")
    show(
        f"{outcome.translated:,} captions translated, {outcome.remembered:,} from the cache, "
        f"in {seconds:.1f} s ({outcome.model_seconds:.1f} s in models)"
    )
