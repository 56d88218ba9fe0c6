"""What is drawn for a batch, and how it is read."""

from __future__ import annotations

from dataclasses import dataclass

from rsicd_embed.train.config import checks

CACHES = ("auto", "memory", "disk", "none")


@dataclass(frozen=True)
class DataConfig:
    """How captions are drawn and images are read.

    Attributes:
        class_captions: fraction of captions replaced by one made of the image's class name.
        class_synonyms: whether such captions also use other words for the class.
        augmented_captions: whether images get the captions that the `textaug_*.jsonl` files beside
            their data set list for them, instead of their own.
        cache: where images are kept once they are decoded and resized: memory; disk, a file in the
            user's cache folder, which the next run finds; none, so that they are decoded anew each
            time; auto, the first of these that has room.
        workers: processes that make batches ahead of the step, 0 for a thread of this one; unset,
            0 if batches are only gathered from a cache, else one less than there are processors.
    """

    class_captions: float = 0.25
    class_synonyms: bool = False
    augmented_captions: bool = False
    cache: str = "auto"
    workers: int | None = None

    def __post_init__(self) -> None:
        checks.fraction(self, "class_captions")
        checks.one_of(self, "cache", CACHES)
        if self.workers is not None:
            checks.at_least(self, 0, "workers")
            checks.at_most(self, 256, "workers")  # each takes half a gigabyte
