"""Which references there are, which of them are installed, and how each is made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from rsicd_embed.bench import reference_choice
from rsicd_embed.bench.exported import OnnxRuntime, OpenVino, export
from rsicd_embed.bench.reference_choice import ReferenceChoice
from rsicd_embed.bench.torch_clip import ClipDirectory, TorchClip
from rsicd_embed.bench.workers import once

_TORCH = ("torch", "transformers")
_EXPORT = (*_TORCH, "onnx", "onnxscript")
# What each reference needs, by the names of modules.
NEEDS = {
    "torch": _TORCH,
    "onnxruntime": (*_EXPORT, "onnxruntime"),
    "openvino": (*_EXPORT, "openvino"),
}


def choose(against: str | None) -> ReferenceChoice:
    """Which references `--against` means; see `reference_choice.choose`."""
    return reference_choice.choose(against, NEEDS)


def makers(
    names: Sequence[str],
    model: ClipDirectory,
    folder: Path,
    batch_size: int,
    texts: Sequence[str],
) -> dict[str, Callable[[], TorchClip | OnnxRuntime | OpenVino]]:
    """Candidates by name; their graphs go to `folder`, for batches of this size and these texts."""
    found: dict[str, Callable[[], TorchClip | OnnxRuntime | OpenVino]] = {}
    if set(names) - {"torch"}:
        once("ONNX export", partial(export, model, folder, batch_size, tuple(texts)))
    for name in names:
        if name == "torch":
            found["torch float32"] = partial(TorchClip, model)
        elif name == "onnxruntime":
            found["onnxruntime float32"] = partial(OnnxRuntime, model, folder)
        else:
            found["openvino float32 (direct)"] = partial(OpenVino, model, folder, "f32")
            found["openvino bfloat16 (direct)"] = partial(OpenVino, model, folder, "bf16")
    return found
