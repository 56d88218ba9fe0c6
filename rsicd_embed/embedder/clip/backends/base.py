"""What an engine gives `ClipEmbedder`: the two towers of a CLIP, on whole batches."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Towers(Protocol):
    """A CLIP's image and text tower. Vectors are float32 (b, dim), of unit length."""

    @property
    def devices(self) -> int:
        """How many share a batch; its size must be divisible by it."""
        ...

    @property
    def fixed_shapes(self) -> bool:
        """Whether each new batch size or length costs a compilation: few should be used."""
        ...

    def encode_images(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (b, side, side, 3), as `Preprocessor` gives them → vectors.

        Raises:
            ModelError: the batch does not fit the device.
        """
        ...

    def encode_texts(self, tokens: np.ndarray) -> np.ndarray:
        """int32 (b, t), as `Tokenizer` gives them → vectors; ModelError as above."""
        ...
