"""A model's towers as ONNX graphs, for other programs and languages.

Graphs are built directly from the checkpoint's tensors, for any batch size and text length, in
float32. Pixels are normalised, and the pooled position of a text is found, within the graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rsicd_embed.embedder.clip.backends import forward_pass
from rsicd_embed.embedder.clip.config import LEGACY_EOS_TOKEN_ID, BertConfig, ClipConfig
from rsicd_embed.embedder.clip.resnet_config import Convolution
from rsicd_embed.embedder.preprocess import Preprocessor
from rsicd_embed.errors import ModelError

PIXELS, TOKENS, VECTORS = "pixels", "tokens", "vectors"
_OPSET, _IR = 20, 9  # of ONNX 1.15, the first with Gelu
_MASKED = np.float32(-1e4)


def image_graph(
    config: ClipConfig, tensors: forward_pass.Tensors, preprocessor: Preprocessor
) -> Any:
    """`pixels` uint8 (b, side, side, 3) → `vectors` float32 (b, dim), an `onnx.ModelProto`."""
    ops, side = _OnnxOps(), config.image_size
    vectors = forward_pass.image_vectors(ops, config, tensors, preprocessor, PIXELS)
    return ops.model(PIXELS, "UINT8", ["batch", side, side, 3], vectors, config.dim)


def text_graph(config: ClipConfig, tensors: forward_pass.Tensors) -> Any:
    """`tokens` int64 (b, t) → `vectors` float32 (b, dim), an `onnx.ModelProto`."""
    ops = _OnnxOps()
    pooled = ops.pooled(config, TOKENS)
    vectors = forward_pass.text_vectors(ops, config, tensors, TOKENS, pooled)
    return ops.model(TOKENS, "INT64", ["batch", "length"], vectors, config.dim)


def require_onnx() -> Any:
    """Imports onnx; ModelError if it is not installed."""
    try:
        import onnx
    except ImportError:
        raise ModelError(
            "ONNX files need the onnx package; pip install 'rsicd-embed[onnx]'"
        ) from None
    return onnx


class _OnnxOps:
    """See `forward_pass.Ops`; arrays are names of values in the graph."""

    def __init__(self) -> None:
        self._onnx = require_onnx()
        self._nodes: list[Any] = []
        self._constants: dict[int, tuple[str, np.ndarray]] = {}  # by identity

    def model(
        self, name: str, dtype: str, shape: Sequence[int | str], vectors: str, dim: int
    ) -> Any:
        """The graph from the input of this name to the output `vectors`."""
        make, kinds = self._onnx.helper, self._onnx.TensorProto
        self._nodes.append(make.make_node("Identity", [vectors], [VECTORS]))
        of_input = make.make_tensor_value_info(name, getattr(kinds, dtype), shape)
        of_output = make.make_tensor_value_info(VECTORS, kinds.FLOAT, ["batch", dim])
        tensors = [
            self._onnx.numpy_helper.from_array(np.asarray(array, order="C"), own)
            for own, array in self._constants.values()
        ]
        graph = make.make_graph(self._nodes, "rsicd-embed", [of_input], [of_output], tensors)
        return make.make_model(
            graph,
            producer_name="rsicd-embed",
            ir_version=_IR,
            opset_imports=[make.make_opsetid("", _OPSET)],
        )

    def pooled(self, config: ClipConfig, tokens: str) -> str:
        """`forward_pass.pooled_positions` of tokens (b, t)."""
        if isinstance(config.text, BertConfig):
            seen = self._add("Not", self._add("Equal", tokens, _long(config.text.pad_token_id)))
            return self._add("Cast", seen, to=self._onnx.TensorProto.FLOAT)
        if config.siglip:
            last = self._add("Sub", self._add("Shape", tokens, start=1, end=2), _longs(1))
            return self._add("Expand", last, self._add("Shape", tokens, start=0, end=1))
        if config.eos_token_id != LEGACY_EOS_TOKEN_ID:
            ends = self._add("Equal", tokens, _long(config.eos_token_id))
            tokens = self._add("Cast", ends, to=self._onnx.TensorProto.INT32)
        return self._add("ArgMax", tokens, axis=1, keepdims=0)

    def _add(self, kind: str, *inputs: str | np.ndarray | np.generic, **attributes: Any) -> str:
        name = f"{kind}_{len(self._nodes)}"
        names = [x if isinstance(x, str) else self._constant(np.asarray(x)) for x in inputs]
        self._nodes.append(self._onnx.helper.make_node(kind, names, [name], name, **attributes))
        return name

    def _constant(self, array: np.ndarray) -> str:
        known = self._constants.get(id(array))
        if known is None:
            # The array is kept, so that no other one gets its identity.
            known = self._constants[id(array)] = f"constant_{len(self._constants)}", array
        return known[0]

    def add(self, x: str, y: str) -> str:
        return self._add("Add", x, y)

    def normalise(self, pixels: str, preprocessor: Preprocessor) -> str:
        mean, std = (np.asarray(v, np.float32) for v in (preprocessor.mean, preprocessor.std))
        x = self._add("Cast", pixels, to=self._onnx.TensorProto.FLOAT)
        x = self._add("Mul", x, np.asarray(preprocessor.scale, np.float32))
        return self._add("Div", self._add("Sub", x, mean), std)

    def patches(self, pixels: str, weight: np.ndarray) -> str:
        side = weight.shape[-1]
        grid = self._add("Conv", self.maps(pixels), weight, strides=[side, side])
        return self.positions(grid)

    def positioned(self, x: str, positions: np.ndarray) -> str:
        length = self._add("Shape", x, start=1, end=2)
        rows = self._add("Slice", positions, _longs(0), length, _longs(0))
        return self._add("Add", x, rows)

    def prepend(self, x: str, token: np.ndarray) -> str:
        return self._add("Concat", self.repeat(token, x), x, axis=1)

    def lookup(self, table: np.ndarray, tokens: str) -> str:
        return self._add("Gather", table, tokens)

    def repeat(self, token: np.ndarray, x: str) -> str:
        batch = self._add("Shape", x, start=0, end=1)
        shape = self._add("Concat", batch, _longs(1, token.size), axis=0)
        return self._add("Expand", token.reshape(1, 1, -1), shape)

    def with_mean(self, x: str) -> str:
        mean = self._add("ReduceMean", x, _longs(1), keepdims=1)
        return self._add("Concat", mean, x, axis=1)

    def at(self, x: str, places: str) -> str:
        index = self._add("Unsqueeze", places, _longs(1))
        return self._add("GatherND", x, index, batch_dims=1)

    def first(self, x: str) -> str:
        return self._add("Gather", x, _long(0), axis=1)

    def linear(self, x: str, weight: np.ndarray, bias: np.ndarray | None) -> str:
        y = self._add("MatMul", x, self._add("Transpose", weight, perm=[1, 0]))
        return y if bias is None else self._add("Add", y, bias)

    def layer_norm(self, x: str, weight: np.ndarray, bias: np.ndarray, eps: float) -> str:
        return self._add("LayerNormalization", x, weight, bias, axis=-1, epsilon=eps)

    def attention(
        self,
        query: str,
        key: str,
        value: str,
        *,
        heads: int,
        causal: bool = False,
        seen: str | None = None,
    ) -> str:
        def split(x: str, order: list[int]) -> str:
            parts = self._add("Reshape", x, _longs(0, 0, heads, -1))  # (b, t, heads, width)
            return self._add("Transpose", parts, perm=order)

        q, k, v = split(query, [0, 2, 1, 3]), split(key, [0, 2, 3, 1]), split(value, [0, 2, 1, 3])
        width = self._add(
            "Cast", self._add("Shape", q, start=3, end=4), to=self._onnx.TensorProto.FLOAT
        )
        scores = self._add("Div", self._add("MatMul", q, k), self._add("Sqrt", width))
        if causal:
            square = self._add("Shape", scores, start=2, end=4)
            masked = self._onnx.numpy_helper.from_array(np.array([_MASKED]))
            everywhere = self._add("ConstantOfShape", square, value=masked)
            later = self._add("Trilu", everywhere, _long(1), upper=1)
            scores = self._add("Add", scores, later)
        if seen is not None:  # (b, 1, 1, t)
            unseen = self._add("Sub", np.float32(1), self._add("Unsqueeze", seen, _longs(1, 2)))
            scores = self._add("Add", scores, self._add("Mul", unseen, _MASKED))
        mixed = self._add("MatMul", self._add("Softmax", scores, axis=-1), v)
        mixed = self._add("Transpose", mixed, perm=[0, 2, 1, 3])
        return self._add("Reshape", mixed, _longs(0, 0, -1))

    def mean_of(self, x: str, seen: str) -> str:
        weighted = self._add("Mul", x, self._add("Unsqueeze", seen, _longs(2)))
        total = self._add("ReduceSum", weighted, _longs(1), keepdims=0)
        count = self._add("ReduceSum", seen, _longs(1), keepdims=1)
        return self._add("Div", total, self._add("Max", count, np.float32(1)))

    def activate(self, x: str, name: str) -> str:
        if name == "quick_gelu":
            return self._add("Mul", x, self._add("Sigmoid", self._add("Mul", x, np.float32(1.702))))
        return self._add("Gelu", x, approximate="tanh" if name == "gelu_pytorch_tanh" else "none")

    def maps(self, pixels: str) -> str:
        return self._add("Transpose", pixels, perm=[0, 3, 1, 2])

    def convolution(self, x: str, weight: np.ndarray, bias: np.ndarray, shape: Convolution) -> str:
        strides, pads = [shape.stride] * 2, [shape.padding] * 4
        return self._add("Conv", x, weight, bias, strides=strides, pads=pads)

    def relu(self, x: str) -> str:
        return self._add("Relu", x)

    def max_pool(self, x: str) -> str:
        return self._add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])

    def average_pool(self, x: str, side: int) -> str:
        return self._add("AveragePool", x, kernel_shape=[side, side], strides=[side, side])

    def positions(self, x: str) -> str:
        flat = self._add("Reshape", x, _longs(0, 0, -1))  # (b, c, positions)
        return self._add("Transpose", flat, perm=[0, 2, 1])

    def mean(self, x: str) -> str:
        return self._add("ReduceMean", x, _longs(2, 3), keepdims=0)

    def unit(self, x: str) -> str:
        norm = self._add("ReduceL2", x, _longs(-1), keepdims=1)
        return self._add("Div", x, self._add("Max", norm, np.float32(1e-12)))


def _long(value: int) -> np.ndarray:
    return np.array(value, np.int64)


def _longs(*values: int) -> np.ndarray:
    return np.array(values, np.int64)
