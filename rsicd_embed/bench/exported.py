"""The reference's towers as ONNX graphs, and the two engines that run them on a CPU."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rsicd_embed.bench.torch_clip import ClipDirectory, TorchClip, tokens
from rsicd_embed.parallel import cpu_count

IMAGES, TEXTS = "images.onnx", "texts.onnx"


def export(model: ClipDirectory, folder: Path, batch_size: int, texts: Sequence[str]) -> None:
    """Writes both towers, from bytes or token ids to unit vectors, for batches of one shape."""
    import torch

    clip = TorchClip(model)
    side = model.image_size
    pixels = torch.zeros((batch_size, side, side, 3), dtype=torch.uint8)
    _export(clip.clip, clip.image_vectors, pixels, folder / IMAGES)
    if texts:
        _export(clip.clip, clip.text_vectors, torch.from_numpy(clip.tokens(texts)), folder / TEXTS)


def _export(model: Any, forward: Any, example: Any, path: Path) -> None:
    import torch

    class Tower(torch.nn.Module):
        """`forward` as a module that owns the weights."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, given: Any) -> Any:
            """One input, one output."""
            return forward(given)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about PyTorch's own next release
        torch.onnx.export(
            Tower().eval(),
            (example,),
            str(path),
            input_names=["given"],
            output_names=["vectors"],
            dynamo=True,
            verbose=False,
        )


class _Exported:
    """Bytes or strings in, unit vectors out, as `Embedder`."""

    def __init__(self, model: ClipDirectory, folder: Path) -> None:
        self._model, self._folder = model, folder
        self._run: dict[str, Any] = {}
        self._tokenizer: Any = None

    def embed_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (n, H, W, 3) → float32 (n, dim)."""
        return self._vectors(IMAGES, pixels)

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Texts → float32 (n, dim)."""
        if self._tokenizer is None:
            from transformers import CLIPTokenizer

            self._tokenizer = CLIPTokenizer.from_pretrained(
                str(self._model.path), local_files_only=True
            )
        return self._vectors(TEXTS, tokens(self._tokenizer, texts, self._model.context_length))

    def _vectors(self, graph: str, given: np.ndarray) -> np.ndarray:
        if graph not in self._run:
            self._run[graph] = self._load(self._folder / graph)
        return np.array(self._run[graph](given))

    def _load(self, path: Path) -> Any:
        raise NotImplementedError


class OnnxRuntime(_Exported):
    """float32, all graph optimisations, as many threads as processors; the rest as it comes."""

    def _load(self, path: Path) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = cpu_count()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return lambda given: session.run(None, {"given": given})[0]


class OpenVino(_Exported):
    """One stream on all processors: its latency hint.

    The throughput hint makes several streams, of which one batch would use one.
    """

    def __init__(
        self, model: ClipDirectory, folder: Path, precision: Literal["f32", "bf16"]
    ) -> None:
        super().__init__(model, folder)
        self._precision = precision

    def _load(self, path: Path) -> Any:
        from rsicd_embed.embedder.clip.backends._lazy_openvino import core

        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": self._precision,
            "INFERENCE_NUM_THREADS": cpu_count(),
        }
        request = core().compile_model(str(path), "CPU", settings).create_infer_request()
        return lambda given: request.infer({0: given}, share_inputs=True)[0]
