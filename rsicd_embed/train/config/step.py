"""What a step computes."""

from __future__ import annotations

from dataclasses import dataclass

from rsicd_embed.train.config import checks


@dataclass(frozen=True)
class StepConfig:
    """The loss and how it is computed.

    Attributes:
        keep_patches: fraction of the patches an image keeps in training (FLIP, arXiv:2212.00794).
        unmasked: fraction of the epochs, at the end, in which every patch is kept.
    """

    keep_patches: float = 0.5
    unmasked: float = 0.05

    def __post_init__(self) -> None:
        checks.above(self, 0, "keep_patches")
        checks.fraction(self, "keep_patches", "unmasked")
