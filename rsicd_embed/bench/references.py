"""Which references there are, which of them are installed, and how each is made."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rsicd_embed.bench.exported import OnnxRuntime, OpenVino, export
from rsicd_embed.bench.isolate import once
from rsicd_embed.bench.torch_clip import ClipDirectory, TorchClip
from rsicd_embed.errors import BenchError

_TORCH = ("torch", "transformers")
_EXPORT = (*_TORCH, "onnx", "onnxscript")
# What each reference needs, by the names of modules.
NEEDS = {
    "torch": _TORCH,
    "onnxruntime": (*_EXPORT, "onnxruntime"),
    "openvino": (*_EXPORT, "openvino"),
}
NONE = "none"


@dataclass(frozen=True)
class Choice:
    """References to run, and why each of the others is not, by name."""

    chosen: tuple[str, ...]
    left_out: dict[str, str]


def choose(against: str | None) -> Choice:
    """What `--against` means: names with commas between, "none", or None for all that there are.

    Raises:
        BenchError: one is unknown, or was asked for by name and lacks a library.
    """
    names = list(NEEDS) if against is None else _names(against)
    lacking = {name: missing for name in names if (missing := _missing(name))}
    told = {
        name: f"needs {', '.join(missing)}: pip install 'rsicd-embed[bench]'"
        for name, missing in lacking.items()
    }
    if against is not None and told:
        raise BenchError("; ".join(f"reference {name} {why}" for name, why in told.items()))
    return Choice(tuple(name for name in names if name not in told), told)


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


def _names(against: str) -> list[str]:
    names = list(dict.fromkeys(one.strip() for one in against.split(",") if one.strip()))
    if names == [NONE]:
        return []
    unknown = [name for name in names if name not in NEEDS]
    if unknown or not names:
        raise BenchError(
            f"expected references of {', '.join(NEEDS)}, or {NONE}, found {', '.join(unknown)!r}"
        )
    return names


def _missing(name: str) -> list[str]:
    return [one for one in NEEDS[name] if importlib.util.find_spec(one) is None]
