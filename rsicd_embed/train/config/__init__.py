"""Settings of a training run, a section each: what it starts from, its data, its step.

No module here imports JAX: the command line reads defaults from them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from rsicd_embed.errors import TrainError
from rsicd_embed.train.config import checks
from rsicd_embed.train.config.augment_config import AugmentConfig
from rsicd_embed.train.config.data_config import DataConfig
from rsicd_embed.train.config.optimizer_config import OptimizerConfig
from rsicd_embed.train.config.step_config import StepConfig
from rsicd_embed.train.config.teacher_config import TeacherConfig
from rsicd_embed.train.shapes import SHAPES

__all__ = [
    "AugmentConfig",
    "DataConfig",
    "ModelConfig",
    "OptimizerConfig",
    "StepConfig",
    "TeacherConfig",
    "TrainConfig",
    "defaults",
]

BEST_BY = ("mean", "zeroshot_top1", "mr", "val_loss")


@dataclass(frozen=True)
class ModelConfig:
    """What a run starts from.

    Attributes:
        init: a checkpoint, as `--model` takes it; None for a model from nothing.
        shape: a name of SHAPES, for a model from nothing.
        license: of the model, as its card says it.
    """

    init: str | None = None
    shape: str = "small"
    license: str = "unknown"

    def __post_init__(self) -> None:
        checks.one_of(self, "shape", SHAPES)


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    Attributes:
        model: what it starts from.
        data: how batches are drawn.
        augment: how images are varied.
        optimizer: how parameters are updated.
        step: what a step computes.
        teacher: whose vectors are learnt, besides the captions.
        epochs: passes over the train split; one caption an image and pass.
        batch_size: images a step, over all devices; the loss is contrastive over all of them.
        eval_every: epochs between evaluations on val.
        best_by: the figure of val that the best model is chosen by; mean is that of zero-shot top-1
            and mR.
        checkpoint_every: steps between checkpoints; 0 for one at the end of each epoch.
        keep_last: how many checkpoints are kept.
        seed: of the initial weights, the order, the captions and the augmentation.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    step: StepConfig = field(default_factory=StepConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    epochs: int = 40
    batch_size: int = 128
    eval_every: int = 4
    best_by: str = "mean"
    checkpoint_every: int = 0
    keep_last: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        checks.at_least(self, 1, "epochs", "batch_size", "eval_every", "keep_last")
        checks.at_least(self, 0, "seed", "checkpoint_every")
        checks.at_most(self, 2**32 - 1, "seed")
        checks.one_of(self, "best_by", BEST_BY)
        if self.teacher.model is not None and self.augment.engine == "torchvision":
            raise TrainError(
                "expected augment.engine to be device or none with a teacher, found 'torchvision': "
                "teacher and student must see the same view"
            )


def defaults(init: str | None) -> TrainConfig:
    """Settings for a model from nothing, or for a checkpoint, which is not to forget what it knows.

    A checkpoint is fine-tuned about as CLIP-rsicd did it: slowly, with whole images, and with the
    captions alone.
    """
    if init is None:
        return TrainConfig()
    return TrainConfig(
        ModelConfig(init),
        data=DataConfig(class_captions=0.0),
        optimizer=OptimizerConfig(learning_rate=1e-5),
        step=StepConfig(keep_patches=1.0),
        epochs=10,
        eval_every=1,
    )
