"""Settings of a training run, and the shapes of models that can be trained from scratch."""

from __future__ import annotations

from dataclasses import dataclass

from rsicd_embed.embedder.clip.config import ClipConfig, TowerConfig
from rsicd_embed.errors import TrainError

# Where a model starts from nothing, its vocabulary does too: 512 bytes, merges, begin, end.
VOCAB_SIZE = 4096


def _small(
    width: int, layers: int, heads: int, image_size: int, patch: int, dim: int
) -> ClipConfig:
    return ClipConfig(
        vision=TowerConfig(width, layers, heads, 4 * width),
        text=TowerConfig(256, 2, 4, 1024),
        dim=dim,
        image_size=image_size,
        patch_size=patch,
        vocab_size=VOCAB_SIZE,
        context_length=32,
        eos_token_id=VOCAB_SIZE - 1,
    )


PRESETS = {
    "tiny": _small(64, 2, 2, 32, 8, 64),
    "small": _small(256, 6, 4, 128, 16, 256),
}


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    Attributes:
        preset: a shape of PRESETS, for a model from scratch.
        epochs: passes over the train split; one caption an image and pass.
        batch_size: images a step, over all devices; the loss is contrastive over all of them.
        learning_rate: peak, after a linear warm-up, before a cosine decay to a hundredth.
        warmup: fraction of the steps.
        weight_decay: AdamW's; not on biases, norms, embeddings of position or the logit scale.
        clip_norm: gradients are scaled down to this global norm.
        class_captions: fraction of captions replaced by one made of the image's class name.
        keep_patches: fraction of the patches an image keeps in training (FLIP, arXiv:2212.00794).
        unmasked: fraction of the epochs, at the end, in which every patch is kept.
        eval_every: epochs between evaluations on val.
        seed: of the initial weights, the order, the captions and the augmentation.
    """

    preset: str = "small"
    epochs: int = 40
    batch_size: int = 128
    learning_rate: float = 1e-3
    warmup: float = 0.05
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    class_captions: float = 0.25
    keep_patches: float = 0.5
    unmasked: float = 0.05
    eval_every: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise TrainError(f"expected a preset of {', '.join(PRESETS)}, found {self.preset!r}")
        for name in ("epochs", "batch_size", "eval_every"):
            if getattr(self, name) < 1:
                raise TrainError(f"expected {name} ≥ 1, found {getattr(self, name)}")
        for name in ("warmup", "class_captions", "unmasked"):
            if not 0 <= getattr(self, name) <= 1:
                raise TrainError(f"expected {name} in [0, 1], found {getattr(self, name)}")
        if not 0 < self.keep_patches <= 1:
            raise TrainError(f"expected keep_patches in (0, 1], found {self.keep_patches}")
        if self.learning_rate <= 0:
            raise TrainError(f"expected a learning rate > 0, found {self.learning_rate}")
