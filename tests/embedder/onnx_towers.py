"""The towers of a model as ONNX graphs in ONNX Runtime, for comparisons with the engines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rsicd_embed.embedder.clip import onnx_graph, parts
from rsicd_embed.embedder.clip.backends import EmbedderEngine
from rsicd_embed.embedder.clip.config import ClipConfig
from rsicd_embed.embedder.preprocess import Preprocessor


class OnnxTowers:
    """See `towers.Towers`."""

    engine = EmbedderEngine("numpy", "float32")
    devices, fixed_shapes = 1, False

    def __init__(
        self, config: ClipConfig, tensors: Mapping[str, np.ndarray], preprocessor: Preprocessor
    ) -> None:
        pytest.importorskip("onnx", reason="needs onnx")
        runtime = pytest.importorskip("onnxruntime", reason="needs onnxruntime")

        def session(graph: Any) -> Any:
            return runtime.InferenceSession(graph.SerializeToString())

        self._images = session(onnx_graph.image_graph(config, tensors, preprocessor))
        self._texts = session(onnx_graph.text_graph(config, tensors))

    @classmethod
    def read(cls, directory: Path) -> OnnxTowers:
        """The towers of a model directory."""
        model = parts.read(directory)
        return cls(model.config, model.tensors, model.preprocessor)

    def encode_images(self, pixels: np.ndarray) -> np.ndarray:
        vectors: np.ndarray = self._images.run(None, {onnx_graph.PIXELS: pixels})[0]
        return vectors

    def encode_texts(self, tokens: np.ndarray) -> np.ndarray:
        inputs = {onnx_graph.TOKENS: tokens.astype(np.int64)}
        vectors: np.ndarray = self._texts.run(None, inputs)[0]
        return vectors
