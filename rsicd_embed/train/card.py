"""The model card of a run: what it started from, its data, settings and figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rsicd_embed.datasets.base import Example
from rsicd_embed.train.config import TrainConfig, parse

_MEASURED = {
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


@dataclass(frozen=True)
class DataCard:
    """What a run is trained on.

    Attributes:
        images: number of images.
        captions: number of distinct captions.
        classes: number of classes that images are labelled with.
    """

    images: int
    captions: int
    classes: int

    @classmethod
    def of(cls, examples: Sequence[Example]) -> DataCard:
        """Counts."""
        captions = {caption for example in examples for caption in example.captions}
        classes = {example.label for example in examples if example.label}
        return cls(len(examples), len(captions), len(classes))


def model_card(config: TrainConfig, data: DataCard, row: Mapping[str, Any]) -> str:
    """Markdown with the front matter that the Hugging Face Hub reads.

    Args:
        config: of the run.
        data: of the run.
        row: the journal's row of the epoch that the model is from.
    """
    return "\n".join(_lines(config, data, row)) + "\n"


def _lines(config: TrainConfig, data: DataCard, row: Mapping[str, Any]) -> Iterator[str]:
    yield "---"
    yield f"license: {config.model.license}"
    yield "library_name: rsicd-embed"
    yield "pipeline_tag: zero-shot-image-classification"
    yield "tags: [clip, remote-sensing]"
    if config.model.init:
        yield f"base_model: {config.model.init}"
    yield from ("---", "", "# A CLIP for aerial and satellite images", "")
    begun = f"`{config.model.init}`, fine-tuned" if config.model.init else "random weights"
    yield f"Trained by `rsicd-embed train` from {begun}."
    yield from ("", "| data | |", "| --- | --- |")
    yield f"| images | {data.images:,} |"
    yield f"| distinct captions | {data.captions:,} |"
    yield f"| classes | {data.classes:,} |"
    share = config.data.class_captions
    if share and data.classes:
        yield f"| class names | seen in training: {share:.0%} of captions are made from classes |"
    yield from ("", f"| on val, epoch {row['epoch']} of {config.epochs} | |", "| --- | --- |")
    for key, words in _MEASURED.items():
        if key in row:
            yield f"| {words} | {row[key]:.3f} |"
    yield ""
    yield "Zero-shot accuracies and R@k are fractions; R@k counts a tie against the model."
    yield from ("", "| setting | |", "| --- | --- |")
    for name, value in parse.flat(config).items():
        yield f"| `{name}` | `{value}` |"
