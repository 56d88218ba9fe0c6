"""What a CLIP directory holds, read and checked without JAX; and its fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rsicd_embed.embedder import preprocess, tokenizer
from rsicd_embed.embedder.clip import checkpoint, config
from rsicd_embed.embedder.clip import tensors as clip_tensors
from rsicd_embed.embedder.clip.config import ClipConfig
from rsicd_embed.embedder.jsonfile import read_json
from rsicd_embed.embedder.preprocess import Preprocessor
from rsicd_embed.embedder.tokenizer import Tokenizer
from rsicd_embed.errors import ModelError
from rsicd_embed.records import Fingerprint


@dataclass(frozen=True)
class Parts:
    """A model: its shape, float32 tensors by Hugging Face name, and what feeds it."""

    config: ClipConfig
    tensors: Mapping[str, np.ndarray]
    tokenizer: Tokenizer
    preprocessor: Preprocessor

    @property
    def fingerprint(self) -> str:
        """`str(Fingerprint)`, whatever files and dtypes the tensors came from."""
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


def read(directory: Path) -> Parts:
    """Reads config, weights, tokenizer and preprocessing.

    Raises:
        ModelError: a file is missing or is not what its name says.
        WeightsError: the weights cannot be read, or do not fit the config.
    """
    shape = config.from_hf(read_json(directory / "config.json"))
    tensors = clip_tensors.checked(shape, checkpoint.load(directory))
    pixels = preprocess.from_hf(read_json(directory / "preprocessor_config.json"))
    side, made = shape.image_size, pixels.crop or pixels.resize
    if made != (side, side):
        raise ModelError(
            f"{directory}: expected pixels of {side}×{side} as config.json says, "
            f"found {made} in preprocessor_config.json"
        )
    tokens = tokenizer.load(
        directory,
        context_length=shape.context_length,
        vocab_size=shape.vocab_size,
        eos_token_id=shape.eos_token_id,
    )
    return Parts(shape, tensors, tokens, pixels)
