"""Reads the checkpoint files of a Hugging Face directory as tensors by PyTorch name.

The first that exists is read: model.safetensors, its shards, model.int8.safetensors,
flax_model.msgpack, pytorch_model.bin.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from rsicd_embed.embedder.clip import int8_weights, torch_pickle
from rsicd_embed.errors import WeightsError, one_line
from rsicd_embed.files import read_json

Tensors = dict[str, np.ndarray]

SAFETENSORS = "model.safetensors"
INDEX = "model.safetensors.index.json"
FLAX = "flax_model.msgpack"
TORCH = "pytorch_model.bin"
FILES = (SAFETENSORS, INDEX, int8_weights.FILE, FLAX, TORCH)

_DTYPES: dict[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I8": np.int8,
}


def load(directory: Path) -> Tensors:
    """Reads the checkpoint of a directory in any supported format.

    Raises:
        WeightsError: there is no checkpoint, or it cannot be read.
    """
    readers: dict[str, Callable[[Path], Tensors]] = {
        SAFETENSORS: _safetensors,
        INDEX: _shards,
        int8_weights.FILE: lambda path: int8_weights.restored(path, _safetensors(path)),
        FLAX: _flax,
        TORCH: torch_pickle.load,
    }
    for name, read in readers.items():
        if (directory / name).is_file():
            return read(directory / name)
    raise WeightsError(f"expected {', '.join(readers)} in {directory}, found none")


def load_file(path: Path) -> Tensors:
    """Reads one checkpoint file: safetensors, or PyTorch's of any kind.

    Raises:
        WeightsError: it cannot be read.
    """
    safe = path.suffix.lower() == ".safetensors"
    return _safetensors(path) if safe else torch_pickle.load(path)


def shard_names(index: Path) -> list[str]:
    """The files listed in a `model.safetensors.index.json`, all in its folder.

    Raises:
        WeightsError: it is not an index, or refers to another folder.
    """
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict):
        raise WeightsError(f"{index}: expected a weight_map")
    files = sorted({str(name) for name in names.values()})
    if any(Path(file).name != file for file in files):
        raise WeightsError(f"{index}: expected plain file names, found {', '.join(files)}")
    return files


def save_safetensors(tensors: Mapping[str, np.ndarray], path: Path) -> None:
    """Writes a `model.safetensors` that transformers can read."""
    path.write_bytes(save(dict(tensors), metadata={"format": "pt"}))


def _safetensors(path: Path) -> Tensors:
    # safetensors.numpy does not support bfloat16.
    try:
        entries = deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from error
    tensors = {}
    for name, tensor in entries:
        dtype = _DTYPES.get(tensor["dtype"])
        if dtype is None:
            raise WeightsError(
                f"{path}: {name}: expected {', '.join(_DTYPES)}, found {tensor['dtype']}"
            )
        tensors[name] = np.frombuffer(tensor["data"], dtype).reshape(tensor["shape"])
    return tensors


def _shards(path: Path) -> Tensors:
    tensors: Tensors = {}
    shards = shard_names(path)
    missing = [file for file in shards if not (path.parent / file).is_file()]
    if missing:
        raise WeightsError(
            f"{path}: expected {', '.join(missing)} beside it, found none; download it again"
        )
    for file in shards:
        tensors |= _safetensors(path.parent / file)
    return tensors


def _flax(path: Path) -> Tensors:
    """Reads a checkpoint of FlaxCLIPModel: the same modules, with the axes of kernels reversed."""
    from flax.serialization import msgpack_restore

    try:
        tree = msgpack_restore(path.read_bytes())
    except Exception as error:  # msgpack may raise any exception
        raise _unreadable(path, error) from error
    tensors: Tensors = {}

    def walk(node: Any, name: tuple[str, ...]) -> None:
        if isinstance(node, Mapping):
            for key, value in node.items():
                walk(value, (*name, str(key)))
            return
        tensor = np.asarray(node)
        module, leaf = name[:-1], name[-1]
        if leaf == "kernel":
            tensor = tensor.transpose(3, 2, 0, 1) if tensor.ndim == 4 else tensor.T
        if module and leaf in ("kernel", "scale", "embedding"):
            leaf = "weight"
        tensors[".".join((*module, leaf))] = tensor

    walk(tree, ())
    return tensors


def _unreadable(path: Path, error: Exception) -> WeightsError:
    return WeightsError(f"{path} cannot be read: {one_line(error, limit=200)}; download it again")
