"""Safe reader of PyTorch's checkpoints without torch, using a restricted unpickler.

The file is a zip of a pickle and raw buffers, as written by torch.save since 1.6. State dicts
written by `pickle` itself are supported too; their buffers have torch.save's older format.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from rsicd_embed.embedder.clip.formats import torchscript
from rsicd_embed.embedder.clip.tensor_unpickler import StoredTensor, TensorsOnly
from rsicd_embed.errors import WeightsError, one_line

# Where training checkpoints have the model's state dict.
_STATE_DICTS = ("state_dict", "model_state_dict", "model", "module")
_OPTIMIZER = ("optimizer", "optimizer_state_dict", "optimizer_states")
_PREFIX = "module."  # added by DistributedDataParallel


def load(path: Path) -> dict[str, np.ndarray]:
    """Reads the tensors of a file written by torch.save or torch.jit.save, by name.

    The state dict of a training checkpoint is found inside it, and the prefix of a distributed
    model is removed. Nothing in the file is executed.

    Raises:
        WeightsError: the file has another format, or its pickle refers to anything but tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [n for n in archive.namelist() if n.endswith("/data.pkl")]
            if len(names) != 1:
                raise WeightsError("expected a zip file with one data.pkl, as torch.save writes it")
            if any(info.flag_bits & 1 for info in archive.infolist()):
                raise WeightsError("the zip file is encrypted; decrypt it first")
            root = names[0].removesuffix("data.pkl")

            def buffer(key: str) -> bytes:
                return archive.read(f"{root}data/{key}")

            if torchscript.is_archive(archive):
                return _in_memory(torchscript.read(archive, root, buffer))
            with archive.open(names[0]) as stream:
                content = TensorsOnly(stream, buffer).load()
            return _in_memory(_state_dict(path, content))
    except zipfile.BadZipFile as error:
        with path.open("rb") as file:
            cut = file.read(2) == b"PK"
        raise WeightsError(
            f"{path}: the zip file is damaged or truncated; download it again"
            if cut
            else f"{path}: expected a zip file written by torch 1.6 or later, found another "
            "format; save it again as model.safetensors"
        ) from error
    except Exception as error:  # unpickling may raise any exception
        raise _unreadable(path, error) from error


def _in_memory(tensors: dict[str, Any]) -> dict[str, np.ndarray]:
    return {name: np.asarray(tensor) for name, tensor in tensors.items()}


def load_plain(path: Path) -> dict[str, np.ndarray]:
    """Reads the tensors of a state dict written by `pickle`, by name.

    Raises:
        WeightsError: as in `load`.
    """
    try:
        with path.open("rb") as stream:
            content = TensorsOnly(stream).load()
    except Exception as error:
        raise _unreadable(path, error) from error
    return _state_dict(path, content)


def _unreadable(path: Path, error: Exception) -> WeightsError:
    if isinstance(error, WeightsError):
        return WeightsError(f"{path}: {error}")
    return WeightsError(f"{path} cannot be read: {one_line(error, limit=200)}; download it again")


def _state_dict(path: Path, content: Any) -> dict[str, np.ndarray]:
    for key in _STATE_DICTS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if isinstance(content, dict) and any(key in content for key in _OPTIMIZER):
        content = {k: v for k, v in content.items() if k not in _OPTIMIZER}
    if not isinstance(content, dict) or not all(
        isinstance(value, np.ndarray | StoredTensor) for value in content.values()
    ):
        raise WeightsError(f"{path}: expected a state dict of tensors; save the model's state_dict")
    tensors = {str(name): tensor for name, tensor in content.items()}
    if tensors and all(name.startswith(_PREFIX) for name in tensors):
        return {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items()}
    return tensors
