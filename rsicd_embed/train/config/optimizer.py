"""How parameters are updated."""

from __future__ import annotations

from dataclasses import dataclass

from rsicd_embed.train.config import checks


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW and its schedule.

    Attributes:
        learning_rate: peak, after a linear warm-up, before a cosine decay to a hundredth.
        warmup: fraction of the steps.
        weight_decay: not on biases, norms, embeddings of position or the logit scale.
        clip_norm: gradients are scaled down to this global norm.
    """

    learning_rate: float = 1e-3
    warmup: float = 0.05
    weight_decay: float = 0.1
    clip_norm: float = 1.0

    def __post_init__(self) -> None:
        checks.above(self, 0, "learning_rate", "clip_norm")
        checks.at_least(self, 0, "weight_decay")
        checks.fraction(self, "warmup")
