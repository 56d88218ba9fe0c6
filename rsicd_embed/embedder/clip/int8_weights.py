"""Weights with eight bits per value, in `model.int8.safetensors`.

Version 1 is a safetensors file with the metadata `format: rsicd-embed-int8` and `version: 1`. Each
tensor NAME of two or more axes is stored as int8, next to `NAME.scale`, float32 (n,), with one
value per output channel (the first axis): a weight is its int8 times the scale of its channel. All
other tensors are float32. Models compute with the float32 weights, so their fingerprint is that of
an exported float32 copy.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from rsicd_embed.errors import WeightsError
from rsicd_embed.parallel import ordered_map

Tensors = dict[str, np.ndarray]

FILE = "model.int8.safetensors"
_SUFFIX = ".scale"
_FORMAT, _VERSION = "rsicd-embed-int8", "1"
_LARGEST = 127
_SCALE_STEPS = 4096  # a scale of 12 bits times 127 is exact in float32: see `quantize`


def quantize(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rounds a weight to int8.

    Weights that were dequantised before are restored exactly.

    Args:
        weight: float (n, …), finite.

    Returns:
        int8 of the same shape, and float32 (n,) scales.
    """
    rows = weight.reshape(len(weight), -1)
    mantissa, exponent = np.frexp(np.abs(rows).max(axis=1).astype(np.float64) / _LARGEST)
    scale = np.ldexp(np.ceil(mantissa * _SCALE_STEPS) / _SCALE_STEPS, exponent)
    scale = np.where(scale > 0, scale, 1.0).astype(np.float32)
    return np.rint(rows / scale[:, None]).astype(np.int8).reshape(weight.shape), scale


def dequantize(values: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Restores a float32 weight from the result of `quantize`."""
    by_channel = scale.reshape(-1, *[1] * (values.ndim - 1))
    return np.asarray(np.multiply(values, by_channel, dtype=np.float32))


def write(tensors: Mapping[str, np.ndarray], path: Path) -> None:
    """Quantises and writes the tensors of a model, named as in a checkpoint."""
    stored: Tensors = {}
    for name, tensor in tensors.items():
        if tensor.ndim < 2:
            stored[name] = tensor.astype(np.float32)
        else:
            stored[name], stored[name + _SUFFIX] = quantize(tensor)
    path.write_bytes(save(stored, metadata={"format": _FORMAT, "version": _VERSION}))


def restored(path: Path, stored: Tensors) -> Tensors:
    """Dequantises the tensors of a file that `write` wrote.

    Args:
        path: the file.
        stored: its tensors, as stored.

    Raises:
        WeightsError: it has another format or version, or scales are missing or of another shape.
    """
    metadata = _metadata(path)
    version = f"{metadata.get('format', 'no format')} {metadata.get('version', '')}".strip()
    if version != f"{_FORMAT} {_VERSION}":
        raise WeightsError(
            f"{path}: expected weights in the format {_FORMAT} {_VERSION}, found {version}; "
            "export the model again, or install the version of rsicd-embed that wrote it"
        )
    scales = {name: stored[name] for name in stored if name.endswith(_SUFFIX)}
    quantized = [name for name in stored if stored[name].dtype == np.int8]
    for name in quantized:
        scale = scales.pop(name + _SUFFIX, None)
        if scale is None or scale.shape != stored[name].shape[:1]:
            shape = "none" if scale is None else f"shape {scale.shape}"
            raise WeightsError(
                f"{path}: {name}: expected a scale for each of its {len(stored[name])} channels, "
                f"found {shape}; export the model again"
            )
    if scales:
        raise WeightsError(f"{path}: expected {next(iter(scales))} to belong to an int8 tensor")

    def weight(name: str) -> np.ndarray:
        return dequantize(stored[name], stored[name + _SUFFIX])

    # Threads, since NumPy multiplies without holding the interpreter's lock.
    weights = dict(zip(quantized, ordered_map(weight, quantized, ahead=8), strict=True))
    return {
        name: weights.get(name, tensor)
        for name, tensor in stored.items()
        if not name.endswith(_SUFFIX)
    }


def _metadata(path: Path) -> dict[str, str]:
    """The metadata of a valid safetensors file."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return dict(header.get("__metadata__", {}))
