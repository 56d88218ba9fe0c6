"""Models before training: random weights with a vocabulary of their own, or a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from flax import nnx
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import models, trainers
from tokenizers.pre_tokenizers import ByteLevel

from rsicd_embed.embedder import export_model, training_words
from rsicd_embed.embedder.clip import config as clip_config
from rsicd_embed.embedder.clip import parts, weights
from rsicd_embed.embedder.clip.config import ClipConfig
from rsicd_embed.embedder.clip.model import Clip
from rsicd_embed.embedder.clip.tensors import shapes
from rsicd_embed.embedder.layout import CLIP, CLIP_SHAPE
from rsicd_embed.embedder.locate import locate
from rsicd_embed.embedder.preprocess import Preprocessor
from rsicd_embed.embedder.tokenizer import (
    BEGIN_OF_TEXT,
    END_OF_TEXT,
    WORD_END,
    Tokenizer,
    clip_bpe,
    clip_pipeline,
)
from rsicd_embed.embedder.training_words import TrainingWords
from rsicd_embed.errors import ModelError
from rsicd_embed.files import read_json
from rsicd_embed.train.config import SHAPES, ModelConfig, TrainConfig

# The model card may name the licence of the weights.
_WITH_CARD = replace(CLIP, optional=(*CLIP.optional, "README.md"))


@dataclass(frozen=True)
class Start:
    """A model before its first step.

    Attributes:
        shape: shape of its towers.
        tokenizer: its tokenizer.
        preprocessor: its image preprocessing.
        params: float32 parameters of `Clip`, on the host's default device.
        origin: fingerprint of the checkpoint; empty when training from scratch.
        words: words that the text tower was trained on; None if they are unknown.
        licence: licence in the checkpoint's model card; empty if there is none.
    """

    shape: ClipConfig
    tokenizer: Tokenizer
    preprocessor: Preprocessor
    params: weights.Params
    origin: str = ""
    words: TrainingWords | None = field(default_factory=lambda: TrainingWords({}))
    licence: str = ""


def shape_of(model: ModelConfig) -> ClipConfig:
    """Returns the shape of the model that training starts from, without loading weights."""
    if model.init is None:
        return SHAPES[model.shape]
    located = locate(model.init, CLIP_SHAPE)
    config = located.directory / "config.json"
    if located.file is not None or not config.is_file():  # its shape is that of its tensors
        return parts.read(locate(model.init)).config
    return clip_config.from_hf(read_json(config))


def with_own_loss(config: TrainConfig) -> TrainConfig:
    """Replaces the loss `auto` by that of the model: sigmoid for a SigLIP, softmax for others."""
    if config.step.loss != "auto":
        return config
    loss: Literal["softmax", "sigmoid"] = "sigmoid" if shape_of(config.model).siglip else "softmax"
    return replace(config, step=replace(config.step, loss=loss))


def from_scratch(shape: str, tokens: FastTokenizer, seed: int) -> Start:
    """Initialises a model of a shape in SHAPES at random."""
    config = SHAPES[shape]
    side = config.image_size
    tokenizer = Tokenizer(tokens, context_length=config.context_length, pad_id=config.eos_token_id)
    params = nnx.state(Clip(config, rngs=nnx.Rngs(seed)))
    return Start(config, tokenizer, Preprocessor(side, (side, side)), params)


def from_checkpoint(model: str) -> Start:
    """Loads a checkpoint, named as for `--model`."""
    located = locate(model, _WITH_CARD)
    directory, read = located.directory, parts.read(located)
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
    """Returns the licence in the front matter of a checkpoint's model card; empty without one."""
    import yaml
    from huggingface_hub import metadata_load

    try:
        front = metadata_load(directory / "README.md") or {}
    except (OSError, ValueError, yaml.YAMLError):  # the card is not part of the model
        return ""
    licence = front.get("license_name", front.get("license"))
    return licence if isinstance(licence, str) and licence != "unknown" else ""


def learn_vocabulary(captions: Iterable[str], vocab_size: int) -> FastTokenizer:
    """Learns a CLIP-style byte-pair vocabulary from captions; other text is spelt byte by byte.

    Ids follow CLIP's order: 256 bytes, the same bytes ending a word, merges, begin, end.
    """
    learner = clip_pipeline(models.BPE(end_of_word_suffix=WORD_END))
    alphabet = sorted(ByteLevel.alphabet())
    letters = [*alphabet, *(byte + WORD_END for byte in alphabet)]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 2,
        end_of_word_suffix=WORD_END,
        # Ties are broken by id, and the learner numbers letters differently in each run.
        special_tokens=letters,
        min_frequency=2,
        show_progress=False,
    )
    learner.train_from_iterator(captions, trainer)
    learnt = [tuple(merge) for merge in json.loads(learner.to_str())["model"]["merges"]]
    tokens = dict.fromkeys(letters)
    merges = []
    for left, right in learnt:
        if len(tokens) == vocab_size - 2:
            break
        merges.append((left, right))
        tokens[left + right] = None
    while len(tokens) < vocab_size - 2:  # a few captions do not use all ids
        tokens[f"<|unused{len(tokens)}|>"] = None
    names = [*tokens, BEGIN_OF_TEXT, END_OF_TEXT]
    return clip_bpe({token: i for i, token in enumerate(names)}, merges)


def write_random_checkpoint(folder: Path, shape: str, texts: Sequence[str], seed: int = 0) -> None:
    """Writes an untrained model in the Hugging Face layout; it runs as fast as a trained one.

    Args:
        folder: the model directory, created if absent.
        shape: key of SHAPES.
        texts: words for the vocabulary; other words are spelt, which takes more tokens than with a
            real vocabulary.
        seed: random seed for the weights.
    """
    if shape not in SHAPES:
        raise ModelError(f"expected a shape of {', '.join(SHAPES)}, found {shape!r}")
    config = SHAPES[shape]
    rng = np.random.default_rng(seed)
    tensors = {name: _random_tensor(rng, name, size) for name, size in shapes(config).items()}
    vocabulary = learn_vocabulary([*texts, *texts], config.vocab_size)  # learns what occurs twice
    pixels = Preprocessor(config.image_size, (config.image_size, config.image_size))
    params = weights.params_from_hf(config, tensors)
    export_model.save(folder, config, params, vocabulary, pixels)


def _random_tensor(rng: np.random.Generator, name: str, size: tuple[int, ...]) -> np.ndarray:
    """Draws a tensor at a scale that gives different images different vectors."""
    if name == "logit_scale":
        return np.asarray(np.log(1 / 0.07), np.float32)
    if name.endswith(".bias"):
        return np.zeros(size, np.float32)
    if "norm" in name:
        return np.ones(size, np.float32)
    inputs = int(np.prod(size[1:])) if len(size) > 1 else size[0]
    std = 0.02 if "embedding.weight" in name and "patch" not in name else inputs**-0.5
    return rng.standard_normal(size, np.float32) * np.float32(std)
