"""Settings of a training run, one class per section.

Importing this module loads neither JAX nor pydantic, so that `--help` stays fast. `parse.replaced`
validates single values; the classes themselves check only settings that depend on each other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeAlias

from annotated_types import Interval

from rsicd_embed.embedder.clip.backends import Precision
from rsicd_embed.embedder.clip.config import ClipConfig, TowerConfig
from rsicd_embed.errors import SettingError

__all__ = [
    "PUBLISHED_SHAPES",
    "SHAPES",
    "AugmentConfig",
    "DataConfig",
    "ModelConfig",
    "ModelShape",
    "OptimizerConfig",
    "StepConfig",
    "TeacherConfig",
    "TrainConfig",
    "defaults",
]

Fraction: TypeAlias = Annotated[float, Interval(ge=0, le=1)]
PositiveFraction: TypeAlias = Annotated[float, Interval(gt=0, le=1)]
Decay: TypeAlias = Annotated[float, Interval(ge=0, lt=1)]
Positive: TypeAlias = Annotated[float, Interval(gt=0)]
NonNegative: TypeAlias = Annotated[float, Interval(ge=0)]
AtLeastOne: TypeAlias = Annotated[int, Interval(ge=1)]
Workers: TypeAlias = Annotated[int, Interval(ge=0, le=256)]  # each uses half a gigabyte

Engine: TypeAlias = Literal["device", "torchvision", "none"]
Cache: TypeAlias = Literal["auto", "memory", "disk", "none"]
ModelShape: TypeAlias = Literal["tiny", "small", "vit-b-32", "vit-b-16", "vit-l-14", "vit-l-14-336"]

# Crop and area of each augmentation engine, unless they are set.
_CROP: dict[Engine, float] = {"device": 1.0, "torchvision": 0.8, "none": 1.0}
_AREA: dict[Engine, tuple[float, float]] = {
    "device": (0.5, 1.0), "torchvision": (0.8, 1.0), "none": (1.0, 1.0),
}  # fmt: skip

PARTS = ("image", "text", "image_projection", "text_projection", "logit_scale", "logit_bias")
_FROZEN = re.compile(rf"(image|text):\d+|{'|'.join(PARTS)}")


@dataclass(frozen=True)
class ModelConfig:
    """The model that training starts from.

    Attributes:
        init: checkpoint to fine-tune, as for `--model`; None trains from scratch.
        shape: key of `SHAPES`, for training from scratch.
        license: licence of the trained model, for its model card.
    """

    init: str | None = None
    shape: ModelShape = "small"
    license: str = "unknown"


@dataclass(frozen=True)
class DataConfig:
    """How captions are drawn and images are read.

    Attributes:
        class_captions: fraction of captions replaced by one made from the image's class name.
        class_synonyms: whether those captions also use synonyms of the class name.
        augmented_captions: whether images use the captions listed in the `textaug_*.jsonl` files
            beside their dataset instead of their own.
        cache: where decoded and resized images are kept: memory; disk, a file in the user's cache
            folder that later runs reuse; none, decoding them anew each time; auto, the first of
            these with enough room.
        workers: processes that prepare batches ahead of the step; 0 uses a thread. By default 0
            if batches are only gathered from a cache, else the number of CPUs minus one.
    """

    class_captions: Fraction = 0.25
    class_synonyms: bool = False
    augmented_captions: bool = False
    cache: Cache = "auto"
    workers: Workers | None = None


@dataclass(frozen=True)
class AugmentConfig:
    """Random views of images.

    The defaults of `torchvision` follow CLIP-rsicd's `run_clip_flax_tv.py` with two exceptions: its
    colour jitter had strength zero, and it made no quarter turns. To reproduce it, set `jitter=0`
    and `quarter_turns=false`. Views are resampled once, not twice.

    Attributes:
        engine: device: on the accelerator, in float32, as part of the step; torchvision: transforms
            v2 on bytes, in the workers; none: only the model's own resizing and cropping.
        crop: fraction of the side that a random crop keeps; by default 1 on the device and 0.8 with
            torchvision.
        area: smallest and largest fraction of that crop's area that a second, resized crop keeps;
            by default [0.5, 1] on the device and [0.8, 1] with torchvision (CLIP-rsicd gave
            [0.8, 1.2], but no crop is larger than its image).
        jitter: brightness, contrast and saturation are each scaled by up to 1 ± jitter.
        horizontal_flip: probability of a left-right flip.
        vertical_flip: probability of an up-down flip.
        quarter_turns: whether views are rotated by a random multiple of 90 degrees.
    """

    engine: Engine = "device"
    crop: PositiveFraction | None = None
    area: tuple[float, float] | None = None
    jitter: Fraction = 0.25
    horizontal_flip: Fraction = 0.5
    vertical_flip: Fraction = 0.5
    quarter_turns: bool = True

    def __post_init__(self) -> None:
        if self.area is not None and not 0 < self.area[0] <= self.area[1] <= 1:
            raise SettingError(
                "augment.area", f"to be [least, most] within (0, 1], found {list(self.area)}"
            )

    @property
    def crop_side(self) -> float:
        """`crop`, or the engine's default."""
        return _CROP[self.engine] if self.crop is None else self.crop

    @property
    def crop_area(self) -> tuple[float, float]:
        """`area`, or the engine's default."""
        return _AREA[self.engine] if self.area is None else self.area


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimiser and its learning-rate schedule.

    Attributes:
        name: adam (Kingma and Ba 2014, arXiv:1412.6980), adamw (decoupled decay,
            arXiv:1711.05101), adafactor (little memory, arXiv:1804.04235) or lion
            (arXiv:2302.06675; needs a learning rate 3 to 10 times lower than adamw).
        learning_rate: peak, reached by a linear warm-up from 0.
        schedule: constant, or linear or cosine decay, after the warm-up.
        final: fraction of the peak at the end of a linear or cosine decay.
        warmup: fraction of the steps spent warming up.
        weight_decay: multiplied by the learning rate; not applied to biases, norms, position and
            class embeddings, or the logit scale. adam has none.
        clip_norm: largest global norm of the gradients; 0 disables clipping.
        beta1: decay of the gradients' running mean; unused by adafactor.
        beta2: decay of the squared gradients' running mean, or of lion's momentum; adafactor has
            its own schedule.
        eps: added to the denominator of adam and adamw.
        image_lr: learning rate of the image tower, as a multiple of `learning_rate`.
        text_lr: the same for the text tower.
        head_lr: the same for the projections, the logit scale and the loss's own parameters.
    """

    name: Literal["adam", "adamw", "adafactor", "lion"] = "adamw"
    learning_rate: Positive = 1e-3
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    final: Fraction = 0.01
    warmup: Fraction = 0.05
    weight_decay: NonNegative = 0.1
    clip_norm: NonNegative = 1.0
    beta1: Decay = 0.9
    beta2: Decay = 0.98
    eps: Positive = 1e-6
    image_lr: Positive = 1.0
    text_lr: Positive = 1.0
    head_lr: Positive = 1.0

    def __post_init__(self) -> None:
        if self.name == "adam" and self.weight_decay:
            raise SettingError(
                "optimizer.weight_decay",
                f"to be 0 with adam, found {self.weight_decay}; use adamw, or set "
                "optimizer.weight_decay=0",
            )


@dataclass(frozen=True)
class StepConfig:
    """The loss, how it is computed, and how it is spread over devices.

    Attributes:
        loss: softmax (CLIP, arXiv:2103.00020) or sigmoid (SigLIP, arXiv:2303.15343); auto for that
            which the initial checkpoint was trained with.
        label_smoothing: fraction of the target spread over the whole batch (softmax), or over
            "pair" and "no pair" (sigmoid).
        bias: initial bias of the sigmoid loss; trained, but not part of the model.
        precision: dtype that the towers compute in; parameters and updates are float32.
        remat: blocks: store only the inputs of each block and recompute the rest in the backward
            pass.
        chunk: images that a device embeds at a time, with the gradient of the whole batch
            (GradCache, arXiv:2101.06983); 0 for all of them.
        freeze: parts that are not trained: image, text, image_projection, text_projection,
            logit_scale, or the beginning of a tower. text:6 is the embeddings and first six blocks
            of a transformer, image:2 the stem and first two stages of a ResNet.
        ema: decay of the parameter average that is evaluated and exported; 0 for none.
        shard: data: every device has all parameters; fsdp: each device has a part of them, and of
            the optimiser state (arXiv:1910.02054).
        keep_patches: fraction of the patches that an image keeps in training (FLIP,
            arXiv:2212.00794). A ResNet has no patches and always sees the whole image.
        unmasked: fraction of the epochs, at the end, that keep every patch.
    """

    loss: Literal["softmax", "sigmoid", "auto"] = "softmax"
    label_smoothing: Decay = 0.0
    bias: float = -10.0
    precision: Precision = "float32"
    remat: Literal["none", "blocks"] = "none"
    chunk: Annotated[int, Interval(ge=0)] = 0
    freeze: tuple[str, ...] = ()
    ema: Decay = 0.0
    shard: Literal["data", "fsdp"] = "data"
    keep_patches: PositiveFraction = 0.5
    unmasked: Fraction = 0.05

    def __post_init__(self) -> None:
        for part in self.freeze:
            if not _FROZEN.fullmatch(part):
                raise SettingError(
                    "step.freeze",
                    f"to list parts such as {', '.join(PARTS)} or image:6, the first blocks of a "
                    f"tower, found {part!r}",
                )


@dataclass(frozen=True)
class TeacherConfig:
    """Distillation from any embedder's vectors of the same images and captions.

    Attributes:
        model: the teacher, as for `--model`; None for none.
        views: random views of each image that the teacher embeds, once, before the first step. Each
            step uses one of them.
        share: fraction of the loss that comes from the teacher.
        features: weight of the cosine distance to the teacher's vectors; used if student and
            teacher have the same dimension (feature distillation, CLIP-KD: arXiv:2307.12732).
        affinity: weight of the divergence from the teacher's image-text similarities within a
            batch (contrastive relational distillation, ibid.).
    """

    model: str | None = None
    views: AtLeastOne = 8
    share: Fraction = 0.5
    features: NonNegative = 10.0
    affinity: NonNegative = 1.0


@dataclass(frozen=True)
class TrainConfig:
    """All settings of a training run.

    Attributes:
        model: the model that training starts from.
        data: how batches are drawn.
        augment: how images are augmented.
        optimizer: how parameters are updated.
        step: the loss and how it is computed.
        teacher: the model to distil from, if any.
        epochs: passes over the train split, with one caption per image and pass.
        batch_size: images per step, over all devices; the loss contrasts all of them.
        eval_every: epochs between evaluations on val.
        best_by: val metric that selects the best model; mean averages zero-shot top-1 and mR.
        checkpoint_every: steps between checkpoints; 0 for one at the end of each epoch.
        keep_last: number of checkpoints kept.
        seed: random seed for initial weights, order, captions and augmentation.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    step: StepConfig = field(default_factory=StepConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    epochs: AtLeastOne = 40
    batch_size: AtLeastOne = 128
    eval_every: AtLeastOne = 4
    best_by: Literal["mean", "zeroshot_top1", "mr", "val_loss"] = "mean"
    checkpoint_every: Annotated[int, Interval(ge=0)] = 0
    keep_last: AtLeastOne = 2
    seed: Annotated[int, Interval(ge=0, le=2**32 - 1)] = 0

    def __post_init__(self) -> None:
        if self.teacher.model is not None and self.augment.engine == "torchvision":
            raise SettingError(
                "augment.engine",
                "to be device or none with a teacher, found 'torchvision': "
                "teacher and student must see the same view",
            )


def defaults(init: str | None) -> TrainConfig:
    """Default settings for training from scratch, or for fine-tuning the checkpoint `init`.

    Fine-tuning follows CLIP-rsicd: a low learning rate, whole images, and captions only, so that
    the checkpoint keeps its knowledge. Its loss is that of the checkpoint.
    """
    if init is None:
        return TrainConfig()
    return TrainConfig(
        ModelConfig(init),
        data=DataConfig(class_captions=0.0),
        optimizer=OptimizerConfig(learning_rate=1e-5),
        step=StepConfig(loss="auto", keep_patches=1.0),
        epochs=10,
        eval_every=1,
    )


def _shape(
    vision: TowerConfig, text: TowerConfig, dim: int, size: int, patch: int, vocabulary: int
) -> ClipConfig:
    context = 77 if vocabulary == _OPENAI else 32
    return ClipConfig(vision, text, dim, size, patch, vocabulary, context, vocabulary - 1)


# The small shapes learn their vocabulary from the captions.
_LEARNT, _OPENAI = 4096, 49408
_TINY, _SMALL = TowerConfig(64, 2, 2, 256), TowerConfig(256, 6, 4, 1024)
_SMALL_TEXT = TowerConfig(256, 2, 4, 1024)
_BASE, _BASE_TEXT = TowerConfig(768, 12, 12, 3072), TowerConfig(512, 12, 8, 2048)
_LARGE, _LARGE_TEXT = TowerConfig(1024, 24, 16, 4096), TowerConfig(768, 12, 12, 3072)

# The vit shapes: Radford et al. 2021, table 19 (arXiv:2103.00020).
SHAPES: dict[str, ClipConfig] = {
    "tiny": _shape(_TINY, _SMALL_TEXT, 64, 32, 8, _LEARNT),
    "small": _shape(_SMALL, _SMALL_TEXT, 256, 128, 16, _LEARNT),
    "vit-b-32": _shape(_BASE, _BASE_TEXT, 512, 224, 32, _OPENAI),
    "vit-b-16": _shape(_BASE, _BASE_TEXT, 512, 224, 16, _OPENAI),
    "vit-l-14": _shape(_LARGE, _LARGE_TEXT, 768, 224, 14, _OPENAI),
    "vit-l-14-336": _shape(_LARGE, _LARGE_TEXT, 768, 336, 14, _OPENAI),
}
PUBLISHED_SHAPES = tuple(name for name in SHAPES if name.startswith("vit-"))
