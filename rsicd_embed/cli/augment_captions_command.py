"""`rsicd-embed augment-captions`: adds captions by back-translation."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rsicd_embed.cli.base import count_option, json_option, note, print_json, show
from rsicd_embed.cli.terminal_text import counted
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
    help="File of captions to write, one line per image. To train on it, name it textaug_*.jsonl "
    "and put it beside the dataset.",
)
@click.option("--split", default="train", show_default=True, help=f"Split of the images, or {ALL}.")
@click.option(
    "--via",
    multiple=True,
    metavar="LANG",
    default=("fr", "es", "it", "pt"),
    show_default=True,
    help="Intermediate language, by the model's code; repeat it in the order of use.",
)
@click.option(
    "--from-english",
    multiple=True,
    metavar="[LANG=]MODEL",
    help="Marian model from English into all languages, or into LANG: a Hugging Face id or a "
    "directory, which may contain {language}.  [default: Helsinki-NLP/opus-mt-en-ROMANCE]",
)
@click.option(
    "--to-english",
    multiple=True,
    metavar="[LANG=]MODEL",
    help="Marian model back into English.  [default: Helsinki-NLP/opus-mt-ROMANCE-en]",
)
@count_option(
    "--captions",
    "count",
    default=5,
    help="Number of distinct captions that each image should have.",
)
@count_option("--batch-size", default=32, help="Captions per batch.")
@count_option("--num-beams", default=4, help="Width of the beam search.")
@click.option(
    "--device", help="Torch device, such as cpu or cuda.  [default: a GPU if there is one]"
)
@click.option(
    "--cache",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File of cached translations.  [default: ~/.cache/rsicd-embed/translations.sqlite]",
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

    DATASET is a folder with a dataset_*.json, or a manifest with captions, as for `train`. Each
    image with fewer than --captions distinct captions gets paraphrases, made by translating its
    captions into one language after another and back, until it has enough. Paraphrases that differ
    from an existing caption only in case, spaces or a final full stop are dropped. Translations are
    cached: a stopped command resumes when run again, and no caption is translated twice by the same
    model.
    """
    from rsicd_embed.cli.progress import image_progress
    from rsicd_embed.datasets import captions, splits
    from rsicd_embed.files import cache_folder
    from rsicd_embed.train.backtranslation import paraphrase
    from rsicd_embed.train.backtranslation.marian import Translations

    languages = tuple(dict.fromkeys(via))
    there = _models("--from-english", from_english, languages, paraphrase.FROM_ENGLISH)
    back = _models("--to-english", to_english, languages, paraphrase.TO_ENGLISH)
    settings = paraphrase.ParaphraseSettings(
        via=tuple(
            paraphrase.Via(language, there[language], back[language]) for language in languages
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
        splits_found = ", ".join(sorted({example.split or "none" for example in source.examples}))
        raise DatasetError(
            f"{dataset}: expected images in the split {split!r}, found {splits_found}"
        )
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
        _show(outcome, output, count, seconds)
    if outcome.without_captions:
        left_out = outcome.without_captions
        note(f"left out {counted(len(left_out), 'image')} without captions, such as {left_out[0]}")


def _models(
    option: str, given: tuple[str, ...], languages: tuple[str, ...], default: str
) -> dict[str, str]:
    """The model for each language."""
    common, by_language = default, {}
    for value in given:
        language, equals, model = value.partition("=")
        if equals and language not in languages and language.isalpha():
            raise click.UsageError(f"{option} {value}: --via has no language {language!r}.")
        if equals and language in languages:
            by_language[language] = model
        else:
            common = value
    models = {}
    for language in languages:
        models[language] = by_language.get(language, common).replace("{language}", language)
        if not models[language].strip():
            raise click.UsageError(f"{option}: expected a model for {language!r}, found none.")
    return models


def _check_output(output: Path) -> None:
    """Checks the output file before hours of translating."""
    if output.exists():
        raise click.UsageError(f"{output} already exists; delete it, or give another file with -o.")
    if not output.parent.is_dir() or not os.access(output.parent, os.W_OK):
        raise click.UsageError(f"cannot write {output}: {output.parent} is not a writable folder.")


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


def _show(outcome: ParaphraseOutcome, output: Path, count: int, seconds: float) -> None:
    filled = outcome.filled
    added = ", ".join(f"{number:,} through {name}" for name, number in filled.added.items())
    show(
        f"{len(filled.captions):,} images in {output}; {outcome.short_before:,} had fewer than "
        f"{count} distinct captions, {filled.short:,} still have"
    )
    show(f"paraphrases: {added or 'none needed'}; {filled.dropped:,} dropped as duplicates")
    show(
        f"{outcome.translated:,} captions translated, {outcome.remembered:,} cached, "
        f"in {seconds:.1f} s ({outcome.model_seconds:.1f} s in models)"
    )
