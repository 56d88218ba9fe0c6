"""The `Embedder` for CLIP models, on any engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from rsicd_embed.embedder import training_words
from rsicd_embed.embedder.base import UnfamiliarWord, read_pixels, require_texts
from rsicd_embed.embedder.clip.backends.towers import Towers
from rsicd_embed.embedder.clip.model_parts import ModelParts
from rsicd_embed.images import ImageLike
from rsicd_embed.parallel import batched


class ClipEmbedder:
    """A CLIP model with its tokenizer and preprocessing. See `embedder.base.Embedder`.

    Args:
        parts: the model's configuration, tensors, tokenizer and preprocessing.
        towers: the model on an engine.
        name: as passed to `--model`.
        batch_size: number of images per batch.
        directory: the model directory, from which training words are read.
    """

    def __init__(
        self,
        parts: ModelParts,
        towers: Towers,
        *,
        name: str,
        batch_size: int = 64,
        directory: Path | None = None,
    ) -> None:
        # `parts` itself is not kept, since engines may have copied its tensors to devices.
        self.name = name
        self.batch_size = batch_size
        self.config = parts.config
        self.tokenizer = parts.tokenizer
        self.preprocessor = parts.preprocessor
        self.fingerprint = parts.fingerprint
        # Factor of cosines before a softmax; before a sigmoid for a SigLIP, which adds a bias.
        self.logit_scale = float(np.exp(parts.tensors["logit_scale"]))
        bias = parts.tensors.get("logit_bias")
        self.logit_bias = None if bias is None else float(bias)
        self._towers = towers
        self._directory = directory

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self.config.dim

    @property
    def engine(self) -> str:
        """The engine and its precision, such as `openvino bfloat16`."""
        return str(self._towers.engine)

    def __repr__(self) -> str:
        size = self.config.image_size
        return (
            f"<{type(self).__name__} {self.name!r}: dim {self.dim}, {size}×{size} px, "
            f"{self.engine}, batches of {self.batch_size}>"
        )

    def preprocess(self, image: Image.Image) -> np.ndarray:
        """Converts an upright RGB image to uint8 (image_size, image_size, 3)."""
        return self.preprocessor(image)

    def embed_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Embeds stacked results of `preprocess`: uint8 (n, H, W, 3) → float32 (n, dim)."""
        return self._batches(self._towers.encode_images, pixels)

    def embed_images(self, images: Iterable[ImageLike]) -> np.ndarray:
        """Embeds Pillow images, paths or bytes of image files, decoded on threads."""
        pixels = read_pixels(images, self.preprocess, ahead=2 * self.batch_size)
        vectors = [self.embed_pixels(np.stack(batch)) for batch in batched(pixels, self.batch_size)]
        return np.concatenate(vectors) if vectors else np.empty((0, self.dim), np.float32)

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Embeds texts: float32 (n, dim)."""
        require_texts(texts)
        if self._towers.fixed_shapes:
            tokens = self.tokenizer(texts)
        else:
            tokens = self.tokenizer(texts, multiple=1)  # padding would only cost time
        return self._batches(self._towers.encode_texts, tokens)

    def unfamiliar_words(self, texts: Sequence[str]) -> list[UnfamiliarWord]:
        """Distinct words of the texts that were absent or rare in training.

        Empty for a model without a list of training words.

        Raises:
            ModelError: the list cannot be read.
        """
        known = self._training_words
        return [] if known is None else known.unfamiliar(texts)

    def near_words(self, word: str) -> tuple[str, ...]:
        """Familiar words or phrases of similar spelling or meaning, nearest first.

        Empty for a model without a list of training words.

        Raises:
            ModelError: the list cannot be read.
        """
        known = self._training_words
        return () if known is None else known.near(word)

    @cached_property
    def _training_words(self) -> training_words.TrainingWords | None:
        return None if self._directory is None else training_words.read(self._directory)

    def _batches(
        self, encode: Callable[[np.ndarray], np.ndarray], inputs: np.ndarray
    ) -> np.ndarray:
        """Runs full batches, then the rest, padded for engines that prefer few sizes."""
        outputs = [np.empty((0, self.dim), np.float32)]
        devices = self._towers.devices
        largest = -(-self.batch_size // devices) * devices
        for start in range(0, len(inputs), largest):
            batch = inputs[start : start + largest]
            size = self._padded_size(len(batch), devices, largest)
            if size > len(batch):
                padding = [(0, size - len(batch))] + [(0, 0)] * (inputs.ndim - 1)
                outputs.append(encode(np.pad(batch, padding))[: len(batch)])
            else:
                outputs.append(encode(batch))
        return np.concatenate(outputs)

    def _padded_size(self, count: int, devices: int, largest: int) -> int:
        """`count`, or with fixed shapes the next power of four times `devices`, up to `largest`."""
        if not self._towers.fixed_shapes:
            return count
        size = devices
        while size < count:
            size *= 4
        return min(size, largest)
