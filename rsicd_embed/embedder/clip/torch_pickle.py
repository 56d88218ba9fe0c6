"""`pytorch_model.bin` without torch, and without trusting it.

The file is a zip of a pickle and raw buffers (torch.save since 1.6). The pickle may refer to the
few names below and to nothing else; none of them runs what the file says.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from rsicd_embed.errors import WeightsError

_STORAGES: dict[str, Any] = {
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "DoubleStorage": np.float64,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
}


def load(path: Path) -> dict[str, np.ndarray]:
    """Tensors by name.

    Raises:
        WeightsError: not such a file, or its pickle wants anything but tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            (name,) = (n for n in archive.namelist() if n.endswith("/data.pkl"))
            root = name.removesuffix("data.pkl")
            with archive.open(name) as stream:
                found = _TensorsOnly(stream, lambda key: archive.read(f"{root}data/{key}")).load()
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None
    except zipfile.BadZipFile as error:
        raise WeightsError(
            f"{path}: expected a zip file as torch has written since 1.6, found another; "
            "save it again as model.safetensors"
        ) from error
    except Exception as error:  # a pickle may trip over anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise WeightsError(f"{path} cannot be read: {reason}; fetch it again") from error
    if not isinstance(found, dict) or not all(isinstance(v, np.ndarray) for v in found.values()):
        raise WeightsError(f"{path}: expected a state dict of tensors; save the model's state_dict")
    return {str(name): tensor for name, tensor in found.items()}


class _TensorsOnly(pickle.Unpickler):
    """An unpickler for which only tensors exist."""

    def __init__(self, stream: Any, read: Callable[[str], bytes]) -> None:
        super().__init__(stream)
        self._read = read

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a name that the pickle refers to."""
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _parameter
        if module == "torch" and name in _STORAGES:
            return np.dtype(_STORAGES[name])
        raise WeightsError(
            f"its pickle refers to {module}.{name}, which is no part of a checkpoint; "
            "do not trust this file"
        )

    def persistent_load(self, pid: Any) -> np.ndarray:
        """A storage: the buffer it names, as a flat array."""
        _, dtype, key, _, size = pid
        return np.frombuffer(self._read(str(key)), dtype, count=size)


def _tensor(
    storage: np.ndarray, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> np.ndarray:
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 in size:
        return np.empty(size, storage.dtype)
    if offset < 0 or min(stride, default=0) < 0 or last >= len(storage):
        raise WeightsError("a tensor reaches beyond its storage; fetch the file again")
    strides = [step * storage.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], size, strides, writeable=False)


def _parameter(data: np.ndarray, *_: Any) -> np.ndarray:
    return data
