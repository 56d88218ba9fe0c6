"""References with a model's own weights: CLIPModel of transformers, and its towers as ONNX graphs.

All of them have `embed_pixels` and `embed_texts` like an `Embedder`, so that all candidates do the
same work: bytes or strings in, unit vectors out. `choose` selects those to run, by `--against`.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rsicd_embed._lazy_torchvision import mend_torchvision
from rsicd_embed.bench.workers import once
from rsicd_embed.errors import BenchError
from rsicd_embed.parallel import cpu_count

_IMAGES, _TEXTS = "images.onnx", "texts.onnx"


@dataclass(frozen=True)
class ClipDirectory:
    """A CLIP in the Hugging Face layout, and its preprocessing.

    Attributes:
        path: the directory.
        image_size: side of the square input in pixels.
        context_length: maximum number of tokens per text.
        scale: factor of byte values, applied before `mean` and `std`.
        mean, std: subtracted and divided by, per channel.
    """

    path: Path
    image_size: int
    context_length: int
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class TorchClip:
    """transformers' CLIPModel: float32, scaled dot-product attention, all CPUs, inference mode."""

    def __init__(self, model: ClipDirectory) -> None:
        """Loads the model.

        Raises:
            BenchError: transformers cannot read it.
        """
        import torch

        mend_torchvision()
        import transformers

        logging: Any = transformers.logging
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        torch.set_num_threads(cpu_count())
        self._directory = model
        try:
            clip: Any = transformers.CLIPModel.from_pretrained(
                str(model.path),
                attn_implementation="sdpa",
                dtype=torch.float32,
                local_files_only=True,
            )
            self._tokenizer: Any = transformers.CLIPTokenizer.from_pretrained(
                str(model.path), local_files_only=True
            )
        except (OSError, ValueError) as error:
            raise BenchError(f"transformers cannot read {model.path}: {error}") from error
        self.clip = clip.eval()
        self._mean = torch.tensor(model.mean).view(1, 3, 1, 1)
        self._std = torch.tensor(model.std).view(1, 3, 1, 1)

    def embed_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (n, H, W, 3) → float32 (n, dim)."""
        import torch

        with torch.inference_mode():
            vectors: np.ndarray = self.image_vectors(torch.from_numpy(pixels)).numpy()
        return vectors

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Texts → float32 (n, dim)."""
        import torch

        with torch.inference_mode():
            vectors: np.ndarray = self.text_vectors(torch.from_numpy(self.tokens(texts))).numpy()
        return vectors

    def tokens(self, texts: Sequence[str]) -> np.ndarray:
        """int64 (n, t) token ids, padded to the longest text."""
        return _tokens(self._tokenizer, texts, self._directory.context_length)

    def image_vectors(self, pixels: Any) -> Any:
        """uint8 (n, H, W, 3) → unit vectors, as tensors."""
        import torch

        floats = pixels.permute(0, 3, 1, 2).to(torch.float32) * self._directory.scale
        return _unit(self.clip.get_image_features((floats - self._mean) / self._std))

    def text_vectors(self, ids: Any) -> Any:
        """int64 (n, t) token ids → unit vectors, as tensors.

        Attention is causal, so padding has no effect and no mask is needed.
        """
        return _unit(self.clip.get_text_features(ids))


def _tokens(tokenizer: Any, texts: Sequence[str], context_length: int) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        encoded = tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=context_length,
            return_tensors="np",
        )
    return np.asarray(encoded["input_ids"], np.int64)


def _unit(features: Any) -> Any:
    # transformers 5 wraps the tensor that transformers 4 returned.
    features = getattr(features, "pooler_output", features)
    return features / features.norm(dim=-1, keepdim=True)


def export(model: ClipDirectory, folder: Path, batch_size: int, texts: Sequence[str]) -> None:
    """Writes both towers as ONNX graphs, from bytes or token ids to unit vectors.

    The graphs accept batches of one shape only. Without `texts`, only the image tower is written.
    """
    import torch

    clip = TorchClip(model)
    side = model.image_size
    pixels = torch.zeros((batch_size, side, side, 3), dtype=torch.uint8)
    _export(clip.clip, clip.image_vectors, pixels, folder / _IMAGES)
    if texts:
        _export(clip.clip, clip.text_vectors, torch.from_numpy(clip.tokens(texts)), folder / _TEXTS)


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
        warnings.simplefilter("ignore")  # announcements of PyTorch's next release
        torch.onnx.export(
            Tower().eval(),
            (example,),
            str(path),
            input_names=["given"],
            output_names=["vectors"],
            dynamo=True,
            verbose=False,
        )


class _ExportedClip:
    """Runs the graphs that `export` wrote."""

    def __init__(self, model: ClipDirectory, folder: Path) -> None:
        self._model, self._folder = model, folder
        self._graphs: dict[str, Any] = {}
        self._tokenizer: Any = None

    def embed_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (n, H, W, 3) → float32 (n, dim)."""
        return self._vectors(_IMAGES, pixels)

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Texts → float32 (n, dim)."""
        if self._tokenizer is None:
            from transformers import CLIPTokenizer

            self._tokenizer = CLIPTokenizer.from_pretrained(
                str(self._model.path), local_files_only=True
            )
        return self._vectors(_TEXTS, _tokens(self._tokenizer, texts, self._model.context_length))

    def _vectors(self, graph: str, batch: np.ndarray) -> np.ndarray:
        if graph not in self._graphs:
            self._graphs[graph] = self._load(self._folder / graph)
        return np.array(self._graphs[graph](batch))

    def _load(self, path: Path) -> Any:
        raise NotImplementedError


class OnnxRuntime(_ExportedClip):
    """ONNX Runtime: float32, all graph optimisations, one thread per CPU, defaults otherwise."""

    def _load(self, path: Path) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = cpu_count()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return lambda batch: session.run(None, {"given": batch})[0]


class OpenVino(_ExportedClip):
    """OpenVINO with its latency hint: one stream on all CPUs.

    The throughput hint creates several streams, of which a single batch would use one.
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
        return lambda batch: request.infer({0: batch}, share_inputs=True)[0]


_NONE = "none"
_EXTRA = "'rsicd-embed[bench]'"
_TORCH = ("torch", "transformers")
_EXPORT = (*_TORCH, "onnx", "onnxscript")
# The references of `bench embed`, and the modules that each of them needs.
CLIP_NEEDS = {
    "torch": _TORCH,
    "onnxruntime": (*_EXPORT, "onnxruntime"),
    "openvino": (*_EXPORT, "openvino"),
}


@dataclass(frozen=True)
class ReferenceChoice:
    """References to run, and the reason why each of the others is left out, by name."""

    chosen: tuple[str, ...]
    left_out: dict[str, str]


def choose(
    against: str | None,
    needs: Mapping[str, Sequence[str]],
    packages: Mapping[str, str] | None = None,
) -> ReferenceChoice:
    """Parses `--against`: comma-separated names, "none", or None for all that are installed.

    Args:
        against: the option's value.
        needs: the modules that each reference needs.
        packages: packages to install for a reference, where that is not the extra `bench`.

    Raises:
        BenchError: a name is unknown, or a reference given by name lacks a module.
    """
    names = list(needs) if against is None else _names(against, needs)
    left_out = {
        name: f"needs {', '.join(missing)}: pip install {(packages or {}).get(name, _EXTRA)}"
        for name in names
        if (missing := [module for module in needs[name] if not importlib.util.find_spec(module)])
    }
    if against is not None and left_out:
        reasons = (f"reference {name} {reason}" for name, reason in left_out.items())
        raise BenchError("; ".join(reasons))
    return ReferenceChoice(tuple(name for name in names if name not in left_out), left_out)


def _names(against: str, needs: Mapping[str, Sequence[str]]) -> list[str]:
    names = list(dict.fromkeys(name.strip() for name in against.split(",") if name.strip()))
    if names == [_NONE]:
        return []
    unknown = [name for name in names if name not in needs]
    if unknown or not names:
        raise BenchError(
            f"expected references of {', '.join(needs)}, or {_NONE}, found {', '.join(unknown)!r}"
        )
    return names


def clip_references(
    names: Sequence[str],
    model: ClipDirectory,
    folder: Path,
    batch_size: int,
    texts: Sequence[str],
) -> dict[str, Callable[[], TorchClip | OnnxRuntime | OpenVino]]:
    """Loaders of references by candidate name.

    Args:
        names: references, keys of `CLIP_NEEDS`.
        model: the model that they load.
        folder: where its ONNX graphs are written, for this batch size and these texts.
        batch_size: images per call.
        texts: texts per call; empty if texts are not timed.
    """
    makers: dict[str, Callable[[], TorchClip | OnnxRuntime | OpenVino]] = {}
    if set(names) - {"torch"}:
        once("ONNX export", partial(export, model, folder, batch_size, tuple(texts)))
    for name in names:
        if name == "torch":
            makers["torch float32"] = partial(TorchClip, model)
        elif name == "onnxruntime":
            makers["onnxruntime float32"] = partial(OnnxRuntime, model, folder)
        else:
            makers["openvino float32 (direct)"] = partial(OpenVino, model, folder, "f32")
            makers["openvino bfloat16 (direct)"] = partial(OpenVino, model, folder, "bf16")
    return makers
