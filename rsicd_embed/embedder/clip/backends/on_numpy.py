"""The NumPy engine: no heavy imports and no compilation, for the lowest start-up latency.

It suits single queries from the command line; for many images the other engines are faster.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from rsicd_embed.embedder.clip.backends import EmbedderEngine, forward_pass
from rsicd_embed.embedder.clip.config import ClipConfig
from rsicd_embed.embedder.clip.resnet_config import Convolution
from rsicd_embed.embedder.preprocess import Preprocessor

_erf = np.frompyfunc(math.erf, 1, 1)


Array = npt.NDArray[Any]

# Bytes of a convolution's windows that are laid out at a time; small enough for processor caches.
_WINDOW_BYTES = 16 << 20


class _NumpyOps:
    """See `forward_pass.Ops`."""

    def add(self, x: Array, y: Array) -> Array:
        return np.add(x, y)

    def normalise(self, pixels: Array, preprocessor: Preprocessor) -> Array:
        return preprocessor.normalise(pixels)

    def patches(self, pixels: Array, weight: Array) -> Array:
        batch, high, wide, _ = pixels.shape
        width, _, side, _ = weight.shape
        split = pixels.reshape(batch, high // side, side, wide // side, side, 3)
        flat = split.transpose(0, 1, 3, 2, 4, 5).reshape(batch, -1, side * side * 3)
        return self.linear(flat, weight.transpose(0, 2, 3, 1).reshape(width, -1), None)

    def positioned(self, x: Array, positions: Array) -> Array:
        return np.add(x, positions[: x.shape[1]])

    def prepend(self, x: Array, token: Array) -> Array:
        return np.concatenate([self.repeat(token, x), x], axis=1)

    def repeat(self, token: Array, x: Array) -> Array:
        return np.broadcast_to(token, (len(x), 1, len(token)))

    def with_mean(self, x: Array) -> Array:
        return np.concatenate([x.mean(axis=1, keepdims=True), x], axis=1)

    def lookup(self, table: Array, tokens: Array) -> Array:
        return np.take(table, tokens, axis=0)

    def at(self, x: Array, places: Array) -> Array:
        rows: Array = x[np.arange(len(x)), places]
        return rows

    def first(self, x: Array) -> Array:
        rows: Array = x[:, 0]
        return rows

    def linear(self, x: Array, weight: Array, bias: Array | None) -> Array:
        # A single product; matmul over three axes would compute one per item of the batch.
        y = x.reshape(-1, x.shape[-1]) @ weight.T
        if bias is not None:
            y += bias
        return y.reshape(*x.shape[:-1], -1)

    def layer_norm(self, x: Array, weight: Array, bias: Array, eps: float) -> Array:
        centred = x - x.mean(axis=-1, keepdims=True)
        variance = np.square(centred).mean(axis=-1, keepdims=True)
        return np.asarray(centred / np.sqrt(variance + np.float32(eps)) * weight + bias)

    def attention(
        self,
        query: Array,
        key: Array,
        value: Array,
        *,
        heads: int,
        causal: bool = False,
        seen: Array | None = None,
    ) -> Array:
        batch, length, width = query.shape
        q, k, v = (
            x.reshape(batch, -1, heads, width // heads).transpose(0, 2, 1, 3)
            for x in (query, key, value)
        )
        scores = q @ k.transpose(0, 1, 3, 2) * np.float32((width // heads) ** -0.5)
        if causal:
            scores[:, :, ~np.tri(length, dtype=bool)] = -np.inf
        if seen is not None:
            scores[np.broadcast_to(seen[:, None, None, :] == 0, scores.shape)] = -np.inf
        scores -= scores.max(axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=-1, keepdims=True)
        return (scores @ v).transpose(0, 2, 1, 3).reshape(batch, length, width)

    def mean_of(self, x: Array, seen: Array) -> Array:
        total = np.einsum("btw,bt->bw", x, seen)
        return np.asarray(total / np.maximum(seen.sum(axis=1, keepdims=True), 1))

    def activate(self, x: Array, name: str) -> Array:
        if name == "quick_gelu":
            # exp may overflow to infinity, for which the sigmoid is correctly 0.
            with np.errstate(over="ignore"):
                return np.asarray(x / (1 + np.exp(np.float32(-1.702) * x)))
        if name == "gelu_pytorch_tanh":
            inner = np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x * x * x)
            return np.asarray(np.float32(0.5) * x * (1 + np.tanh(inner)))
        return x * np.float32(0.5) * (1 + np.asarray(_erf(x * np.float32(2**-0.5)), np.float32))

    def maps(self, pixels: Array) -> Array:
        return pixels  # (b, h, w, c), in which the rows of a window are contiguous

    def convolution(self, x: Array, weight: Array, bias: Array, shape: Convolution) -> Array:
        flat = weight.transpose(0, 2, 3, 1).reshape(shape.outputs, -1).T
        windows = _windows(x, shape.side, shape.stride, shape.padding, fill=0.0)
        batch, high, wide = windows.shape[:3]
        maps = np.empty((batch, high, wide, shape.outputs), np.float32)
        # Overlapping windows take up to side² times the memory of the map when laid out.
        step = max(1, _WINDOW_BYTES // (windows[:1].size * windows.itemsize))
        for start in range(0, batch, step):
            rows = windows[start : start + step].reshape(-1, len(flat))
            product = np.matmul(rows, flat, out=maps[start : start + step].reshape(-1, len(bias)))
            product += bias
        return maps

    def relu(self, x: Array) -> Array:
        return np.maximum(x, np.float32(0))

    def max_pool(self, x: Array) -> Array:
        windows = _windows(x, 3, 2, 1, fill=-np.inf)
        largest = windows[..., 0, 0, :].copy()
        for row, column in np.ndindex(3, 3):
            np.maximum(largest, windows[..., row, column, :], out=largest)
        return largest

    def average_pool(self, x: Array, side: int) -> Array:
        batch, high, wide, channels = x.shape
        squares = x.reshape(batch, high // side, side, wide // side, side, channels)
        return np.asarray(squares.mean(axis=(2, 4)))

    def positions(self, x: Array) -> Array:
        return x.reshape(len(x), -1, x.shape[-1])

    def mean(self, x: Array) -> Array:
        means: Array = x.mean(axis=(1, 2))
        return means

    def unit(self, x: Array) -> Array:
        length = np.linalg.norm(x, axis=-1, keepdims=True)
        return np.asarray(x / np.maximum(length, np.float32(1e-12)))


def _windows(x: Array, side: int, stride: int, padding: int, *, fill: float) -> Array:
    """A view of the windows of maps (b, h, w, c): (b, h/stride, w/stride, side, side, c)."""
    around = (padding, padding)
    padded = np.pad(x, ((0, 0), around, around, (0, 0)), constant_values=fill) if padding else x
    windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side), axis=(1, 2))
    return windows[:, ::stride, ::stride].transpose(0, 1, 2, 4, 5, 3)


class NumpyTowers:
    """See `towers.Towers`."""

    engine = EmbedderEngine("numpy", "float32")
    devices = 1
    fixed_shapes = False

    def __init__(
        self, config: ClipConfig, tensors: forward_pass.Tensors, preprocessor: Preprocessor
    ) -> None:
        self._config, self._tensors, self._preprocessor = config, tensors, preprocessor

    def encode_images(self, pixels: np.ndarray) -> np.ndarray:
        """Embeds images: uint8 (b, side, side, 3) → float32 (b, dim)."""
        return forward_pass.image_vectors(
            _NumpyOps(), self._config, self._tensors, self._preprocessor, pixels
        )

    def encode_texts(self, tokens: np.ndarray) -> np.ndarray:
        """Embeds tokens: int32 (b, t) → float32 (b, dim)."""
        pooled = forward_pass.pooled_positions(self._config, tokens)
        return forward_pass.text_vectors(_NumpyOps(), self._config, self._tensors, tokens, pooled)
