"""Settings of a captioner's training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Final, Literal, TypeAlias

from annotated_types import Interval

from rsicd_embed.errors import SettingError
from rsicd_embed.train.config import OptimizerConfig

AtLeastOne: TypeAlias = Annotated[int, Interval(ge=1)]
NonNegative: TypeAlias = Annotated[float, Interval(ge=0)]
Decay: TypeAlias = Annotated[float, Interval(ge=0, lt=1)]
LIKELIHOOD: Final = "likelihood"


@dataclass(frozen=True)
class DecoderSettings:
    """The decoder and the mapping network.

    Attributes:
        init: directory of a Hugging Face GPT-2; None trains a decoder of our own from scratch.
        freeze: whether the GPT-2 keeps its weights, and only the mapping network is trained.
        prefix: positions that the mapping network fills.
        mapping_width: hidden width of the mapping network.
        width: width of our own decoder.
        layers: its number of blocks.
        heads: its attention heads per block.
        max_words: longest caption in tokens; longer training captions are cut.
        least: occurrences that a word needs to enter our own decoder's vocabulary.
    """

    init: str | None = None
    freeze: bool = False
    prefix: AtLeastOne = 4
    mapping_width: AtLeastOne = 2048
    width: AtLeastOne = 256
    layers: AtLeastOne = 3
    heads: AtLeastOne = 4
    max_words: AtLeastOne = 32
    least: AtLeastOne = 2

    def __post_init__(self) -> None:
        if self.freeze and self.init is None:
            raise SettingError(
                "decoder.freeze",
                "to be false without decoder.init: a decoder from scratch has to be trained",
            )


@dataclass(frozen=True)
class CaptionTrainConfig:
    """All settings of a captioner's training.

    Attributes:
        decoder: the decoder and the mapping network.
        optimizer: how parameters are updated. Weight decay is scheduled with the learning rate.
        init: captioner to continue from: "bundled", or a directory that `train caption` wrote; its
            decoder and vocabulary are kept. None starts with `decoder`.
        objective: likelihood: the captions of people become more likely; cider_d: captions
            that the captioner samples become more likely by how much their CIDEr-D exceeds that of
            the others of an image (self-critical training, arXiv:1612.00563 and arXiv:2003.09971).
        samples: captions that are sampled per image and step for cider_d.
        embedder: model that makes the vectors, as for `--model`; None for the bundled one.
        views: views of each training image, embedded once. The first is the image itself, the
            others are random crops, flips and quarter turns.
        noise: norm of Gaussian noise that is added to the unit vectors in training.
        dropout: fraction of values dropped in training.
        label_smoothing: fraction of the target spread over the vocabulary.
        ema: decay of the parameter average that is evaluated and exported; 0 for none.
        epochs: passes over the train split, with one caption per image and pass.
        batch_size: captions per step, over all devices.
        eval_every: epochs between evaluations on val.
        best_by: val metric that selects the best captioner.
        keep_last: number of checkpoints kept.
        seed: random seed for initial weights, order, captions and noise.
    """

    decoder: DecoderSettings = field(default_factory=DecoderSettings)
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(learning_rate=1e-3, weight_decay=0.1)
    )
    init: str | None = None
    objective: Literal["likelihood", "cider_d"] = LIKELIHOOD
    samples: Annotated[int, Interval(ge=2)] = 5
    embedder: str | None = None
    views: AtLeastOne = 7
    noise: NonNegative = 0.2
    dropout: Decay = 0.2
    label_smoothing: Decay = 0.1
    ema: Decay = 0.998
    epochs: AtLeastOne = 60
    batch_size: AtLeastOne = 256
    eval_every: AtLeastOne = 2
    best_by: Literal["cider_d", "bleu4"] = "cider_d"
    keep_last: AtLeastOne = 2
    seed: Annotated[int, Interval(ge=0, le=2**32 - 1)] = 0

    def __post_init__(self) -> None:
        if self.objective != LIKELIHOOD and self.init is None:
            raise SettingError(
                "objective",
                f"to be {LIKELIHOOD} without init: only a trained captioner samples captions "
                "worth comparing",
            )
        if self.init is not None and self.decoder.init is not None:
            raise SettingError("decoder.init", "to be unset with init, whose decoder is kept")
