"""Reads and checks a model without JAX."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from rsicd_embed.embedder import preprocess, tokenizer
from rsicd_embed.embedder.clip import config, weight_files
from rsicd_embed.embedder.clip import tensors as clip_tensors
from rsicd_embed.embedder.clip.config import ClipConfig
from rsicd_embed.embedder.clip.formats import naming, open_clip_config, read_checkpoint
from rsicd_embed.embedder.clip.model_parts import ModelParts as ModelParts
from rsicd_embed.embedder.layout import CLIP
from rsicd_embed.embedder.locate import Located
from rsicd_embed.embedder.preprocess import Preprocessor
from rsicd_embed.errors import ModelError
from rsicd_embed.files import read_json

T = TypeVar("T")


def read(model: Located | Path) -> ModelParts:
    """Reads the configuration, weights, tokenizer and preprocessing of a model.

    Args:
        model: as `locate` returns it, or a directory in the Hugging Face or open_clip layout.

    Raises:
        ModelError: files are missing or malformed; the message names all of them. Or the
            activation is unknown.
        WeightsError: the weights cannot be read or do not match the config.
    """
    located = model if isinstance(model, Located) else Located(model, str(model))
    if located.file is not None or (located.directory / open_clip_config.FILE).is_file():
        return read_checkpoint.read(located)
    directory = located.directory
    CLIP.require(directory)
    problems: list[ModelError] = []

    def attempt(read_part: Callable[[], T]) -> T | None:
        try:
            return read_part()
        except ModelError as error:
            problems.append(error)
            return None

    shape = attempt(lambda: read_shape(directory))
    pixels = attempt(lambda: preprocess.from_hf(read_json(directory / "preprocessor_config.json")))
    if shape and pixels:
        attempt(lambda: _require_same_size(directory, shape, pixels))
    tokens = shape and attempt(
        lambda: tokenizer.load(
            directory,
            context_length=shape.context_length,
            vocab_size=shape.vocab_size,
            eos_token_id=shape.eos_token_id,
            siglip=shape.siglip,
        )
    )
    if shape:
        attempt(lambda: read_checkpoint.require_activation(located, shape))
    if problems:
        raise _joined(problems)
    assert shape and pixels and tokens  # otherwise there would be problems
    stored = weight_files.load(directory)
    tensors = clip_tensors.checked(shape, stored, naming.transformers(shape, stored))
    return ModelParts(shape, tensors, tokens, pixels)


def read_shape(directory: Path) -> ClipConfig:
    """Reads a model's `config.json`.

    Raises:
        ModelError: it does not describe a CLIP.
    """
    return config.from_hf(read_json(directory / "config.json"))


def _require_same_size(directory: Path, shape: ClipConfig, pixels: Preprocessor) -> None:
    side, size = shape.image_size, pixels.crop or pixels.resize
    if size != (side, side):
        raise ModelError(
            f"{directory}: expected pixels of {side}×{side} according to config.json, "
            f"found {size} in preprocessor_config.json"
        )


def _joined(problems: list[ModelError]) -> ModelError:
    if len(problems) == 1:
        return problems[0]
    return ModelError("; and ".join(map(str, problems)))
