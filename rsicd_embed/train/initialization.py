"""What a run starts from: a model from nothing, or a checkpoint that is fine-tuned."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from flax import nnx
from tokenizers import Tokenizer as FastTokenizer

from rsicd_embed.embedder import training_words
from rsicd_embed.embedder.clip import config as clip_config
from rsicd_embed.embedder.clip import parts, weights
from rsicd_embed.embedder.clip.config import ClipConfig
from rsicd_embed.embedder.clip.model import Clip
from rsicd_embed.embedder.layout import CLIP, CLIP_SHAPE
from rsicd_embed.embedder.locate import locate
from rsicd_embed.embedder.preprocess import Preprocessor
from rsicd_embed.embedder.tokenizer import Tokenizer
from rsicd_embed.embedder.training_words import TrainingWords
from rsicd_embed.files import read_json
from rsicd_embed.train import vocabulary as bpe
from rsicd_embed.train.config import ModelConfig
from rsicd_embed.train.shapes import SHAPES

# With the model card, which may say under which licence the weights are.
_WITH_CARD = replace(CLIP, optional=(*CLIP.optional, "README.md"))


@dataclass(frozen=True)
class Start:
    """A model before its first step.

    Attributes:
        shape: of its towers.
        tokenizer: texts → the tokens it knows.
        preprocessor: the pixels it sees.
        params: float32 parameters of `Clip`, on the host's default device.
        origin: the fingerprint of the checkpoint; empty for a model from nothing.
        words: what its text tower was trained on so far; None where that is not known.
        licence: of the checkpoint, as its card says; empty where there is none.
    """

    shape: ClipConfig
    tokenizer: Tokenizer
    preprocessor: Preprocessor
    params: weights.Params
    origin: str = ""
    words: TrainingWords | None = field(default_factory=lambda: TrainingWords({}))
    licence: str = ""


def shape_of(model: ModelConfig) -> ClipConfig:
    """Of what a run starts from, without its weights.

    Raises:
        ModelError: there is no such checkpoint, or it is not a CLIP.
    """
    if model.init is None:
        return SHAPES[model.shape]
    found = locate(model.init, CLIP_SHAPE)
    return clip_config.from_hf(read_json(found.directory / "config.json"))


def from_nothing(shape: str, tokens: FastTokenizer, seed: int) -> Start:
    """Random weights of a shape of SHAPES; images become squares of the model's size."""
    config = SHAPES[shape]
    side = config.image_size
    tokenizer = Tokenizer(tokens, context_length=config.context_length, pad_id=config.eos_token_id)
    params = nnx.state(Clip(config, rngs=nnx.Rngs(seed)))
    return Start(config, tokenizer, Preprocessor(side, (side, side)), params)


def from_checkpoint(model: str) -> Start:
    """A checkpoint as `--model` takes it.

    Raises:
        ModelError: there is none, or it is not a CLIP.
        WeightsError: its weights do not fit its config.
    """
    directory = locate(model, _WITH_CARD).directory
    read = parts.read(directory)
    params = weights.params_from_hf(read.config, read.tensors)
    return Start(
        read.config,
        read.tokenizer,
        read.preprocessor,
        params,
        read.fingerprint,
        training_words.read(directory),
        card_licence(directory),
    )


def card_licence(directory: Path) -> str:
    """`license` in the front matter of a checkpoint's model card; empty where it says nothing."""
    import yaml
    from huggingface_hub import metadata_load

    try:
        front = metadata_load(directory / "README.md") or {}
    except (OSError, ValueError, yaml.YAMLError):  # the card is no part of the model
        return ""
    licence = front.get("license_name", front.get("license"))
    return licence if isinstance(licence, str) and licence != "unknown" else ""


def learn_vocabulary(captions: Iterable[str], shape: str) -> FastTokenizer:
    """The vocabulary of a model from nothing."""
    return bpe.train(captions, SHAPES[shape].vocab_size)
