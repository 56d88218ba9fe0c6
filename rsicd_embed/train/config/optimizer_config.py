"""How parameters are updated."""

from __future__ import annotations

from dataclasses import dataclass

from rsicd_embed.errors import TrainError
from rsicd_embed.train.config import checks

NAMES = ("adam", "adamw", "adafactor", "lion")
SCHEDULES = ("constant", "linear", "cosine")


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimiser and its schedule.

    Attributes:
        name: adam (Kingma and Ba 2014, arXiv:1412.6980), adamw (decoupled decay,
            arXiv:1711.05101), adafactor (little memory, arXiv:1804.04235) or lion
            (arXiv:2302.06675; wants a learning rate 3 to 10 times lower than adamw's).
        learning_rate: peak, after a linear warm-up from 0.
        schedule: what follows the warm-up: constant, or linear or cosine decay.
        final: fraction of the peak that linear and cosine decay end at.
        warmup: fraction of the steps.
        weight_decay: times the learning rate; not on biases, norms, embeddings of position and
            class, or the logit scale. adam has none.
        clip_norm: gradients are scaled down to this global norm; 0 leaves them as they are.
        beta1: decay of the mean of gradients; adafactor keeps none.
        beta2: decay of the mean of their squares; lion's, of what it keeps of gradients;
            adafactor has its own schedule.
        eps: added to the denominator of adam and adamw.
        image_lr: the image tower's learning rate, as a multiple of `learning_rate`.
        text_lr: the text tower's.
        head_lr: that of the projections, the logit scale and the loss's own parameters.
    """

    name: str = "adamw"
    learning_rate: float = 1e-3
    schedule: str = "cosine"
    final: float = 0.01
    warmup: float = 0.05
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    beta1: float = 0.9
    beta2: float = 0.98
    eps: float = 1e-6
    image_lr: float = 1.0
    text_lr: float = 1.0
    head_lr: float = 1.0

    def __post_init__(self) -> None:
        checks.one_of(self, "name", NAMES)
        checks.one_of(self, "schedule", SCHEDULES)
        checks.above(self, 0, "learning_rate", "eps", "image_lr", "text_lr", "head_lr")
        checks.at_least(self, 0, "weight_decay", "clip_norm")
        checks.fraction(self, "final", "warmup")
        checks.below_one(self, "beta1", "beta2")
        if self.name == "adam" and self.weight_decay:
            raise TrainError(
                f"expected weight_decay 0 with adam, found {self.weight_decay}; "
                "use adamw, or set optimizer.weight_decay=0"
            )
