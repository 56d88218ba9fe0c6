"""Whom a model learns from, besides its captions."""

from __future__ import annotations

from dataclasses import dataclass

from rsicd_embed.train.config import checks


@dataclass(frozen=True)
class TeacherConfig:
    """Distillation: any embedder's vectors of the same images and captions as targets.

    Attributes:
        model: the teacher, as `--model` takes it; None for none.
        views: how many random views of each image it embeds, once, before the first step; a step
            takes one of them.
        share: fraction of the loss that is about the teacher.
        features: weight of the cosine distance to the teacher's vectors, for a student of the
            teacher's dimension (feature distillation, CLIP-KD: arXiv:2307.12732).
        affinity: weight of the divergence from the teacher's similarities between the images and
            captions of a batch (contrastive relational distillation, ibid.).
    """

    model: str | None = None
    views: int = 8
    share: float = 0.5
    features: float = 10.0
    affinity: float = 1.0

    def __post_init__(self) -> None:
        checks.at_least(self, 1, "views")
        checks.fraction(self, "share")
        checks.at_least(self, 0, "features", "affinity")
