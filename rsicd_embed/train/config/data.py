"""What is drawn for a batch: captions and views."""

from __future__ import annotations

from dataclasses import dataclass

from rsicd_embed.train.config import checks


@dataclass(frozen=True)
class DataConfig:
    """How captions are drawn.

    Attributes:
        class_captions: fraction of captions replaced by one made of the image's class name.
    """

    class_captions: float = 0.25

    def __post_init__(self) -> None:
        checks.fraction(self, "class_captions")
