"""Reads and checks a CLIP directory without JAX, and computes its fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from rsicd_embed.embedder import preprocess, tokenizer
from rsicd_embed.embedder.clip import config, weight_files
from rsicd_embed.embedder.clip import tensors as clip_tensors
from rsicd_embed.embedder.clip.config import ClipConfig
from rsicd_embed.embedder.layout import CLIP
from rsicd_embed.embedder.preprocess import Preprocessor
from rsicd_embed.embedder.tokenizer import Tokenizer
from rsicd_embed.errors import ModelError
from rsicd_embed.files import read_json
from rsicd_embed.records import Fingerprint

T = TypeVar("T")


@dataclass(frozen=True)
class ModelParts:
    """A model: configuration, float32 tensors by Hugging Face name, tokenizer and preprocessing."""

    config: ClipConfig
    tensors: Mapping[str, np.ndarray]
    tokenizer: Tokenizer
    preprocessor: Preprocessor

    @property
    def fingerprint(self) -> str:
        """`str(Fingerprint)`, independent of the files and dtypes of the checkpoint."""
        sha = hashlib.sha256(repr(self.config).encode())
        for name in sorted(self.tensors):
            sha.update(name.encode())
            sha.update(np.ascontiguousarray(self.tensors[name]).data)
        return str(
            Fingerprint(
                weights=sha.hexdigest()[:16],
                preprocessing=self.preprocessor.digest(),
                tokenizer=self.tokenizer.digest(),
                dim=self.config.dim,
            )
        )


def read(directory: Path) -> ModelParts:
    """Reads the configuration, weights, tokenizer and preprocessing of a model directory.

    Raises:
        ModelError: files are missing or malformed; the message names all of them.
        WeightsError: the weights cannot be read or do not match the config.
    """
    CLIP.require(directory)
    problems: list[ModelError] = []

    def attempt(read_part: Callable[[], T]) -> T | None:
        try:
            return read_part()
        except ModelError as error:
            problems.append(error)
            return None

    shape = attempt(lambda: config.from_hf(read_json(directory / "config.json")))
    pixels = attempt(lambda: preprocess.from_hf(read_json(directory / "preprocessor_config.json")))
    if shape and pixels:
        attempt(lambda: _require_same_size(directory, shape, pixels))
    tokens = shape and attempt(
        lambda: tokenizer.load(
            directory,
            context_length=shape.context_length,
            vocab_size=shape.vocab_size,
            eos_token_id=shape.eos_token_id,
        )
    )
    if problems:
        raise _joined(problems)
    assert shape and pixels and tokens  # otherwise there would be problems
    return ModelParts(
        shape, clip_tensors.checked(shape, weight_files.load(directory)), tokens, pixels
    )


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
