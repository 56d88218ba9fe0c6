"""What a step computes."""

from __future__ import annotations

from dataclasses import dataclass

from rsicd_embed.embedder.clip.backends import PRECISIONS
from rsicd_embed.train import freezing
from rsicd_embed.train.config import checks

LOSSES = ("softmax", "sigmoid")
REMATS = ("none", "blocks")
SHARDS = ("data", "fsdp")


@dataclass(frozen=True)
class StepConfig:
    """The loss, how it is computed, and how it lies on devices.

    Attributes:
        loss: softmax (CLIP, arXiv:2103.00020) or sigmoid (SigLIP, arXiv:2303.15343).
        label_smoothing: fraction of the target spread over the whole batch (softmax), or over
            "pair" and "no pair" (sigmoid).
        bias: of the sigmoid loss, at the start; it is learnt, and no part of the model.
        precision: what the towers compute in; parameters and their updates are float32.
        remat: blocks: keep only what enters a block, and compute the block again on the way back.
        chunk: images that a device embeds at a time, with the gradient of the whole batch
            (GradCache, arXiv:2101.06983); 0 for all of them.
        freeze: what is not trained, such as image or text:6; see `freezing`.
        ema: decay of the average of parameters that is evaluated and exported; 0 for none.
        shard: data: every device has all parameters; fsdp: each has a part of them, and of the
            optimiser's memory (arXiv:1910.02054).
        keep_patches: fraction of the patches an image keeps in training (FLIP, arXiv:2212.00794);
            a ResNet has no patches, and sees the whole image.
        unmasked: fraction of the epochs, at the end, in which every patch is kept.
    """

    loss: str = "softmax"
    label_smoothing: float = 0.0
    bias: float = -10.0
    precision: str = "float32"
    remat: str = "none"
    chunk: int = 0
    freeze: tuple[str, ...] = ()
    ema: float = 0.0
    shard: str = "data"
    keep_patches: float = 0.5
    unmasked: float = 0.05

    def __post_init__(self) -> None:
        checks.one_of(self, "loss", LOSSES)
        checks.one_of(self, "precision", PRECISIONS)
        checks.one_of(self, "remat", REMATS)
        checks.one_of(self, "shard", SHARDS)
        checks.at_least(self, 0, "chunk")
        checks.finite(self, "bias")
        checks.above(self, 0, "keep_patches")
        checks.fraction(self, "keep_patches", "unmasked")
        checks.below_one(self, "label_smoothing", "ema")
        for text in self.freeze:
            freezing.parse(text)
