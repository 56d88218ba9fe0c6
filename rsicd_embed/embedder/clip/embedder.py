"""`Embedder` for CLIP, on whichever engine runs its towers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from rsicd_embed.embedder import training_words
from rsicd_embed.embedder.base import UnfamiliarWord, read_pixels, require_texts
from rsicd_embed.embedder.clip.backends.towers import Towers
from rsicd_embed.embedder.clip.parts import ModelParts
from rsicd_embed.images import ImageLike
from rsicd_embed.parallel import batched


class ClipEmbedder:
    """A CLIP model with its tokenizer and preprocessing. See `embedder.base.Embedder`.

    Args:
        parts: what the model consists of.
        towers: runs it.
        name: as `--model` takes it.
        batch_size: images embedded at once.
        directory: where its training words are, if it has a list of them.
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
        # Not `parts` itself, whose tensors an engine may have copied to its devices.
        self.name = name
        self.batch_size = batch_size
        self.config = parts.config
        self.tokenizer = parts.tokenizer
        self.preprocessor = parts.preprocessor
        self.fingerprint = parts.fingerprint
        # What cosines are multiplied by where probabilities are wanted.
        self.logit_scale = float(np.exp(parts.tensors["logit_scale"]))
        self._towers = towers
        self._directory = directory

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self.config.dim

    def __repr__(self) -> str:
        size = self.config.image_size
        engine = type(self._towers).__name__
        return (
            f"<{type(self).__name__} {self.name!r}: dim {self.dim}, {size}×{size} px, "
            f"{engine}, batches of {self.batch_size}>"
        )

    def preprocess(self, image: Image.Image) -> np.ndarray:
        """An upright RGB picture → uint8 (image_size, image_size, 3)."""
        return self.preprocessor(image)

    def embed_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """What `preprocess` gave, stacked: uint8 (n, H, W, 3) → float32 (n, dim)."""
        return self._batches(self._towers.encode_images, pixels)

    def embed_images(self, images: Iterable[ImageLike]) -> np.ndarray:
        """Pictures, paths or the bytes of files → float32 (n, dim), decoded on threads."""
        pixels = read_pixels(images, self.preprocess, ahead=2 * self.batch_size)
        vectors = [self.embed_pixels(np.stack(some)) for some in batched(pixels, self.batch_size)]
        return np.concatenate(vectors) if vectors else np.empty((0, self.dim), np.float32)

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Texts → float32 (n, dim)."""
        require_texts(texts)
        if self._towers.fixed_shapes:
            tokens = self.tokenizer(texts)
        else:
            tokens = self.tokenizer(texts, multiple=1)  # padding costs as much as text
        return self._batches(self._towers.encode_texts, tokens)

    def unfamiliar_words(self, texts: Sequence[str]) -> list[UnfamiliarWord]:
        """The words of some texts that were not in the training captions, or in very few.

        Nothing for a model without a list of its training words.

        Raises:
            ModelError: the list cannot be read.
        """
        known = self._training_words
        return [] if known is None else known.unfamiliar(texts)

    def near_words(self, word: str) -> tuple[str, ...]:
        """Familiar words or phrases of similar spelling or meaning, the nearest first.

        Nothing for a model without a list of its training words.

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
        """Runs full batches, then the rest, padded where sizes should be few."""
        outputs = [np.empty((0, self.dim), np.float32)]
        devices = self._towers.devices
        largest = -(-self.batch_size // devices) * devices
        for start in range(0, len(inputs), largest):
            some = inputs[start : start + largest]
            size = self._padded_size(len(some), devices, largest)
            if size > len(some):
                padding = [(0, size - len(some))] + [(0, 0)] * (inputs.ndim - 1)
                outputs.append(encode(np.pad(some, padding))[: len(some)])
            else:
                outputs.append(encode(some))
        return np.concatenate(outputs)

    def _padded_size(self, count: int, devices: int, largest: int) -> int:
        """`count`, or the next of the powers of four times `devices`, at most `largest`."""
        if not self._towers.fixed_shapes:
            return count
        size = devices
        while size < count:
            size *= 4
        return min(size, largest)
