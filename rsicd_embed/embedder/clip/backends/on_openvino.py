"""The OpenVINO engine, the fastest for CPUs that compute in bfloat16.

The graph is built directly from the checkpoint's tensors, for any batch size and text length. It
needs neither JAX nor an exported file. In bfloat16, a ResNet's first block is computed in float32,
and so are texts: rounding a query changes all of its hits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rsicd_embed.embedder.clip.backends import EmbedderEngine, Precision, forward_pass
from rsicd_embed.embedder.clip.backends._lazy_openvino import core, op, ov
from rsicd_embed.embedder.clip.config import BertConfig, ClipConfig
from rsicd_embed.embedder.clip.resnet_config import Convolution, ResNetConfig
from rsicd_embed.embedder.preprocess import Preprocessor
from rsicd_embed.parallel import cpu_count

_Node = Any  # openvino.Node, whose type stubs are incomplete


def _ints(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


class _OpenvinoOps:
    """See `forward_pass.Ops`."""

    def constant(self, tensor: np.ndarray) -> _Node:
        """A constant that shares the tensor's memory, which must outlive the graph."""
        # OpenVINO copies memory that it may not write to.
        return op.constant(tensor, shared_memory=tensor.flags.writeable)

    def add(self, x: _Node, y: _Node) -> _Node:
        return op.add(x, y)

    def normalise(self, pixels: _Node, preprocessor: Preprocessor) -> _Node:
        mean, std = (
            np.asarray(preprocessor.mean, np.float32),
            np.asarray(preprocessor.std, np.float32),
        )
        scaled = op.multiply(op.convert(pixels, "f32"), np.float32(preprocessor.scale))
        return op.divide(op.subtract(scaled, mean), std)

    def patches(self, pixels: _Node, weight: np.ndarray) -> _Node:
        width, _, side, _ = weight.shape
        planes = op.transpose(pixels, [0, 3, 1, 2])
        grid = op.convolution(planes, self.constant(weight), [side, side], [0, 0], [0, 0], [1, 1])
        return op.transpose(op.reshape(grid, [0, width, -1], special_zero=True), [0, 2, 1])

    def positioned(self, x: _Node, positions: np.ndarray) -> _Node:
        length = op.gather(op.shape_of(x, "i32"), _ints(1), np.int32(0))
        rows = op.slice(self.constant(positions), _ints(0), length, _ints(1), _ints(0))
        return op.add(x, rows)

    def prepend(self, x: _Node, token: np.ndarray) -> _Node:
        return op.concat([self.repeat(token, x), x], 1)

    def repeat(self, token: np.ndarray, x: _Node) -> _Node:
        batch = op.gather(op.shape_of(x, "i32"), _ints(0), np.int32(0))
        shape = op.concat([batch, _ints(1, len(token))], 0)
        return op.broadcast(self.constant(token), shape)

    def with_mean(self, x: _Node) -> _Node:
        return op.concat([op.reduce_mean(x, _ints(1), True), x], 1)

    def lookup(self, table: np.ndarray, tokens: _Node) -> _Node:
        return op.gather(self.constant(table), tokens, np.int32(0))

    def at(self, x: _Node, places: _Node) -> _Node:
        return op.gather(x, places, np.int32(1), batch_dims=1)

    def first(self, x: _Node) -> _Node:
        return op.gather(x, np.int32(0), np.int32(1))

    def linear(self, x: _Node, weight: np.ndarray, bias: np.ndarray | None) -> _Node:
        y = op.matmul(x, self.constant(weight), False, True)
        return y if bias is None else op.add(y, self.constant(bias))

    def layer_norm(self, x: _Node, weight: np.ndarray, bias: np.ndarray, eps: float) -> _Node:
        normal = op.mvn(x, _ints(-1), True, eps, "inside_sqrt")
        return op.add(op.multiply(normal, self.constant(weight)), self.constant(bias))

    def attention(
        self,
        query: _Node,
        key: _Node,
        value: _Node,
        *,
        heads: int,
        causal: bool = False,
        seen: _Node | None = None,
    ) -> _Node:
        q, k, v = (
            op.transpose(op.reshape(x, [0, 0, heads, -1], special_zero=True), [0, 2, 1, 3])
            for x in (query, key, value)
        )
        mask: tuple[_Node, ...] = ()
        if seen is not None:  # (b, 1, 1, t), added to the scores
            unseen = op.subtract(op.unsqueeze(seen, _ints(1, 2)), np.float32(1))
            mask = (op.multiply(unseen, np.float32(1e4)),)
        y = op.scaled_dot_product_attention(q, k, v, *mask, causal=causal)
        mixed = op.transpose(y, [0, 2, 1, 3])
        return op.reshape(mixed, [0, 0, -1], special_zero=True)

    def mean_of(self, x: _Node, seen: _Node) -> _Node:
        total = op.reduce_sum(op.multiply(x, op.unsqueeze(seen, _ints(2))), _ints(1), False)
        count = op.reduce_sum(seen, _ints(1), True)
        return op.divide(total, op.maximum(count, np.float32(1)))

    def activate(self, x: _Node, name: str) -> _Node:
        if name == "quick_gelu":
            return op.multiply(x, op.sigmoid(op.multiply(x, np.float32(1.702))))
        return op.gelu(x, "tanh" if name == "gelu_pytorch_tanh" else "erf")

    def maps(self, pixels: _Node) -> _Node:
        return op.transpose(pixels, [0, 3, 1, 2])

    def convolution(
        self, x: _Node, weight: np.ndarray, bias: np.ndarray, shape: Convolution
    ) -> _Node:
        stride, around = [shape.stride] * 2, [shape.padding] * 2
        y = op.convolution(x, self.constant(weight), stride, around, around, [1, 1])
        return op.add(y, self.constant(bias.reshape(1, -1, 1, 1)))

    def relu(self, x: _Node) -> _Node:
        return op.relu(x)

    def max_pool(self, x: _Node) -> _Node:
        return op.max_pool(x, [2, 2], [1, 1], [1, 1], [1, 1], [3, 3]).output(0)

    def average_pool(self, x: _Node, side: int) -> _Node:
        square, none = [side, side], [0, 0]
        return op.avg_pool(x, square, none, none, square, exclude_pad=True)

    def positions(self, x: _Node) -> _Node:
        flat = op.reshape(x, [0, 0, -1], special_zero=True)  # (b, c, positions)
        return op.transpose(flat, [0, 2, 1])

    def mean(self, x: _Node) -> _Node:
        return op.reduce_mean(x, _ints(2, 3), False)

    def unit(self, x: _Node) -> _Node:
        return op.normalize_l2(x, _ints(1), 1e-12, "max")


class OpenvinoTowers:
    """See `towers.Towers`."""

    devices = 1
    fixed_shapes = False

    def __init__(
        self,
        config: ClipConfig,
        tensors: forward_pass.Tensors,
        preprocessor: Preprocessor,
        *,
        precision: Precision = "float32",
    ) -> None:
        self._config, self._tensors = config, tensors
        self.engine = EmbedderEngine("openvino", precision)
        ops, side = _OpenvinoOps(), config.image_size
        pixels = op.parameter([-1, side, side, 3], np.uint8)
        tokens = op.parameter([-1, -1], np.int32)
        if isinstance(config.text, BertConfig):
            pooled = op.parameter([-1, -1], np.float32)
        else:
            pooled = op.parameter([-1], np.int32)
        texts = forward_pass.text_vectors(ops, config, tensors, tokens, pooled)
        if isinstance(config.vision, ResNetConfig) and precision == "bfloat16":
            tower, map_side = config.vision, side // 4
            first = forward_pass.first_maps(ops, tower, tensors, preprocessor, pixels)
            maps = op.parameter([-1, tower.widths[0], map_side, map_side], ov.Type.bf16)
            images = forward_pass.vectors_of_maps(ops, tower, tensors, op.convert(maps, "f32"))
            rounded = op.convert(first, "bf16")
            self._images = [
                _compile(ov.Model([rounded], [pixels]), "float32"),
                _compile(ov.Model([images], [maps]), precision),
            ]
        else:
            images = forward_pass.image_vectors(ops, config, tensors, preprocessor, pixels)
            self._images = [_compile(ov.Model([images], [pixels]), precision)]
        self._texts = _compile(ov.Model([texts], [tokens, pooled]), "float32")

    def encode_images(self, pixels: np.ndarray) -> np.ndarray:
        """Embeds images: uint8 (b, side, side, 3) → float32 (b, dim)."""
        x: Any = pixels
        for compiled in self._images:
            x = compiled([x])[0]
        return np.array(x, np.float32)

    def encode_texts(self, tokens: np.ndarray) -> np.ndarray:
        """Embeds tokens: int32 (b, t) → float32 (b, dim)."""
        return _run(self._texts, tokens, forward_pass.pooled_positions(self._config, tokens))


def _compile(model: Any, precision: Precision) -> Any:
    return core().compile_model(
        model,
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": cpu_count(),
        },
    )


def _run(compiled: Any, *inputs: np.ndarray) -> np.ndarray:
    return np.array(compiled(inputs)[0], np.float32)
