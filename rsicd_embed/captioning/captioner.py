"""Captions from vectors, with any captioner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from rsicd_embed.captioning import decoding as decoders
from rsicd_embed.captioning.caption_config import Decoding
from rsicd_embed.captioning.captioner_files import CaptionerParts
from rsicd_embed.captioning.vocabulary import Vocabulary
from rsicd_embed.errors import ModelError
from rsicd_embed.parallel import ordered_map
from rsicd_embed.records import Provenance

_AT_ONCE = 2


@dataclass(frozen=True)
class GeneratedCaptions:
    """Captions of vectors, in their order.

    Attributes:
        texts: the captions.
        log_probabilities: float32 (n,), mean log-probability of the tokens of each caption; the
            higher, the more certain the captioner.
    """

    texts: tuple[str, ...]
    log_probabilities: np.ndarray


class Captioner:
    """Writes captions for vectors of one model.

    Args:
        parts: the captioner.
        batch_size: vectors that are captioned at a time.
    """

    def __init__(self, parts: CaptionerParts, *, batch_size: int = 64) -> None:
        self.name, self.config = parts.name, parts.config
        self.made_by: Provenance = parts.made_by
        self.batch_size = batch_size
        self._vocabulary: Vocabulary = parts.vocabulary
        self._params: nnx.State[object, object] = jax.device_put(parts.params)

    def __repr__(self) -> str:
        decoder = self.config.decoder
        return f"<{type(self).__name__} {self.name!r}: {decoder.layers} layers × {decoder.width}>"

    def caption_vectors(
        self, vectors: np.ndarray, decoding: Decoding | None = None, *, first: int = 0
    ) -> GeneratedCaptions:
        """Captions vectors of the model that the captioner was trained on.

        Args:
            vectors: float32 (n, dim), unit vectors.
            decoding: how to decode; beam search by default.
            first: number of the first vector, so that nucleus sampling does not depend on how
                vectors are split over several calls.

        Raises:
            ModelError: the vectors have another dimension, or the captioner's outputs are not
                finite.
            ArgumentError: captions would be longer than the decoder's context.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.config.vector_dim:
            raise ModelError(
                f"expected vectors of dimension {self.config.vector_dim}, which {self.name} was "
                f"trained on, found shape {vectors.shape}"
            )
        decoding = decoding or Decoding()
        tokens = self._vocabulary
        decode = decoders.decoder(
            self.config, replace(decoding, seed=0), tokens.end, tuple(tokens.unwanted)
        )
        keys = jax.random.key(decoding.seed)

        def captions_of(start: int) -> tuple[list[str], np.ndarray]:
            batch = vectors[start : start + self.batch_size]
            size = self._padded_size(len(batch))
            padded = np.pad(batch, [(0, size - len(batch)), (0, 0)])
            numbers = np.arange(first + start, first + start + size, dtype=np.uint32)
            own_keys = jax.vmap(jax.random.fold_in, (None, 0))(keys, numbers)
            decoded = decode(self._params, jnp.asarray(padded, jnp.float32), own_keys)
            rows = np.asarray(decoded.tokens)[: len(batch)].tolist()
            own = np.asarray(decoded.log_probability)[: len(batch)]
            return [tokens.decode(self._words(row)) for row in rows], own

        texts: list[str] = []
        certain = [np.empty(0, np.float32)]
        # Two batches at a time, since the steps of one are too small for several processors.
        starts = range(0, len(vectors), self.batch_size)
        for own_texts, own in ordered_map(captions_of, starts, ahead=_AT_ONCE, threads=_AT_ONCE):
            texts += own_texts
            certain.append(own)
        log_probabilities = np.concatenate(certain)
        if not np.isfinite(log_probabilities).all():
            raise ModelError(
                f"expected finite logits from captioner {self.name}, found NaN or infinity; its "
                "weights are damaged, or its training diverged"
            )
        return GeneratedCaptions(tuple(texts), log_probabilities)

    def _words(self, row: Sequence[int]) -> Sequence[int]:
        """The tokens before the end."""
        end = self._vocabulary.end
        return row[: row.index(end)] if end in row else row

    def _padded_size(self, count: int) -> int:
        """The next power of four, up to a whole batch, so that few sizes are compiled."""
        size = 1
        while size < count:
            size *= 4
        return min(size, self.batch_size)
