"""A model that has been read: configuration, tensors, tokenizer and preprocessing."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rsicd_embed.embedder.clip.config import ClipConfig
from rsicd_embed.embedder.preprocess import Preprocessor
from rsicd_embed.embedder.tokenizer import Tokenizer
from rsicd_embed.records import Fingerprint


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
