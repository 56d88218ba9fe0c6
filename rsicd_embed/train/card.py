"""The model card of a run: where it started, its data, settings and metrics."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rsicd_embed.datasets.base import Example
from rsicd_embed.embedder.locate import BUNDLED
from rsicd_embed.files import expanded
from rsicd_embed.train.config import ModelConfig, TrainConfig, parse
from rsicd_embed.train.observers import Row

# Names of val metrics for readers.
MEASURED = {
    "zeroshot_top1": "zero-shot top-1",
    "zeroshot_top3": "zero-shot top-3",
    "zeroshot_top5": "zero-shot top-5",
    "zeroshot_top10": "zero-shot top-10",
    "i2t_r1": "image→text R@1",
    "i2t_r5": "image→text R@5",
    "i2t_r10": "image→text R@10",
    "t2i_r1": "text→image R@1",
    "t2i_r5": "text→image R@5",
    "t2i_r10": "text→image R@10",
    "mr": "mR",
    "val_loss": "contrastive loss",
}

UNKNOWN = ModelConfig.license  # neither a setting nor a model card names it

# Settings that may hold a path to a checkpoint.
_MODELS = ("model.init", "teacher.model")


@dataclass(frozen=True)
class DataCard:
    """Facts about a run's data for its model card.

    Attributes:
        images: number of training images.
        captions: number of their distinct captions.
        classes: number of their classes.
        val: number of validation images; 0 if unknown.
        names: names of the datasets' folders or manifests, without their paths.
    """

    images: int
    captions: int
    classes: int
    val: int = 0
    names: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, examples: Sequence[Example], val: Sequence[Example] = (), names: Sequence[str] = ()
    ) -> DataCard:
        """Counts images, captions and classes."""
        captions = {caption for example in examples for caption in example.captions}
        classes = {example.label for example in examples if example.label}
        return cls(len(examples), len(captions), len(classes), len(val), tuple(names))


def licence_of(config: TrainConfig, inherited: str) -> str:
    """Returns `model.license` if it is set, else the licence of the initial checkpoint."""
    given = config.model.license
    return given if given != UNKNOWN or not inherited else inherited


def model_card(config: TrainConfig, data: DataCard, row: Row, licence: str = "") -> str:
    """Writes Markdown with the front matter that the Hugging Face Hub reads.

    Paths are reduced to their last part. `licence` is that of the initial checkpoint, empty if
    unknown; it is the model's too unless `model.license` names another.
    """
    return "\n".join(_lines(config, data, row, licence)) + "\n"


def _lines(config: TrainConfig, data: DataCard, row: Row, inherited: str) -> Iterator[str]:
    licence = licence_of(config, inherited)
    yield "---"
    yield f"license: {_yaml(licence)}"
    yield "library_name: rsicd-embed"
    yield "pipeline_tag: zero-shot-image-classification"
    yield "tags: [clip, remote-sensing]"
    init, teacher = config.model.init, config.teacher
    if init and _on_hub(init):
        yield f"base_model: {_yaml(init.partition('@')[0])}"
    yield from ("---", "", "# A CLIP for aerial and satellite images", "")
    origin = _model(init) if init else "random weights"
    yield f"{'Fine-tuned' if init else 'Trained'} by `rsicd-embed train` from {origin}."
    if teacher.model:
        yield ""
        yield (
            f"It was also distilled from a teacher, {_model(teacher.model)}: {teacher.share:.0%} "
            f"of the loss compares it with the teacher's vectors of the captions and of "
            f"{teacher.views} views of each image."
        )
    yield ""
    if licence == UNKNOWN:
        yield "Its licence is unknown: set `license` above before sharing it."
    elif config.model.license == UNKNOWN:
        yield f"Its licence, {_line(licence)}, is that of the model it was trained from."
    else:
        yield f"Its licence is {_line(licence)}."
    yield from ("", "| data | |", "| --- | --- |")
    if data.names:
        yield _row("datasets", ", ".join(data.names))
    yield f"| images, train | {data.images:,} |"
    if data.val:
        yield f"| images, val | {data.val:,} |"
    yield f"| distinct captions, train | {data.captions:,} |"
    yield f"| classes, train | {data.classes:,} |"
    share = config.data.class_captions
    if share and data.classes:
        yield f"| class names | seen in training: {share:.0%} of captions are made from them |"
    yield from ("", f"| on val, epoch {row['epoch']} of {config.epochs} | |", "| --- | --- |")
    for key, words in MEASURED.items():
        if key in row:
            yield f"| {words} | {row[key]:.3f} |"
    yield ""
    yield "Zero-shot accuracies and R@k are fractions; R@k counts a tie against the model."
    yield from ("", "| setting | |", "| --- | --- |")
    for name, value in parse.flat(config).items():
        shown = _short(str(value)) if name in _MODELS and value else value
        yield _row(f"`{name}`", f"`{shown}`")


def _is_path(model: str) -> bool:
    return model.startswith(("/", "~", ".")) or Path(model).is_dir()


def _on_hub(model: str) -> bool:
    return model != BUNDLED and not _is_path(model)


def _short(model: str) -> str:
    """A checkpoint without its path."""
    return expanded(model).resolve().name if _is_path(model) else model


def _model(model: str) -> str:
    return "the bundled model" if model == BUNDLED else f"`{_short(model)}`"


def _yaml(text: str) -> str:
    """Quotes text for YAML, of which JSON strings are a subset."""
    return json.dumps(text, ensure_ascii=False)


def _row(name: str, text: str) -> str:
    """Formats a table row, escaping characters that would end a cell."""
    return f"| {name} | {_line(text)} |"


def _line(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")
