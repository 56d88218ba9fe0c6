"""Settings of a training run, a section each: what it starts from, its data, its step.

No module here imports JAX: the command line reads defaults from them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from rsicd_embed.train.config import checks
from rsicd_embed.train.config.data import DataConfig
from rsicd_embed.train.config.optimizer import OptimizerConfig
from rsicd_embed.train.config.step import StepConfig
from rsicd_embed.train.shapes import SHAPES

__all__ = ["DataConfig", "ModelConfig", "OptimizerConfig", "StepConfig", "TrainConfig"]


@dataclass(frozen=True)
class ModelConfig:
    """What a run starts from.

    Attributes:
        init: a checkpoint, as `--model` takes it; None for a model from nothing.
        shape: a name of SHAPES, for a model from nothing.
    """

    init: str | None = None
    shape: str = "small"

    def __post_init__(self) -> None:
        checks.one_of(self, "shape", SHAPES)


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    Attributes:
        model: what it starts from.
        data: how batches are drawn.
        optimizer: how parameters are updated.
        step: what a step computes.
        epochs: passes over the train split; one caption an image and pass.
        batch_size: images a step, over all devices; the loss is contrastive over all of them.
        eval_every: epochs between evaluations on val.
        seed: of the initial weights, the order, the captions and the augmentation.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    step: StepConfig = field(default_factory=StepConfig)
    epochs: int = 40
    batch_size: int = 128
    eval_every: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        checks.at_least(self, 1, "epochs", "batch_size", "eval_every")
        checks.at_least(self, 0, "seed")
