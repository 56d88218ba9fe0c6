"""Optional libraries that benchmarks compare with: which to run, and how to load the CLIP ones."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rsicd_embed.bench.reference_models import (
    ClipDirectory,
    OnnxRuntime,
    OpenVino,
    TorchClip,
    export,
)
from rsicd_embed.bench.workers import once
from rsicd_embed.errors import BenchError

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
