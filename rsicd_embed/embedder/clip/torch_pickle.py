"""`pytorch_model.bin` without torch, and without trusting it.

The file is a zip of a pickle and raw buffers (torch.save since 1.6). The pickle may refer to the
few names below and to nothing else; none of them runs what the file says. A state dict that was
written by pickle itself can be read too; it holds its buffers in torch.save's older form.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from rsicd_embed.errors import WeightsError, one_line

_STORAGES: dict[str, Any] = {
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "DoubleStorage": np.float64,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
}
# What a buffer of torch.save's older form begins with: its magic number and its version.
_OLDER_FORM = [0x1950A86A20F9469CFC6C, 1001]


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
    except zipfile.BadZipFile as error:
        raise WeightsError(
            f"{path}: expected a zip file as torch has written since 1.6, found another; "
            "save it again as model.safetensors"
        ) from error
    except Exception as error:  # a pickle may trip over anything
        raise _unreadable(path, error) from error
    return _state_dict(path, found)


def load_plain(path: Path) -> dict[str, np.ndarray]:
    """Tensors by name of a state dict that pickle wrote, not torch.save.

    Raises:
        WeightsError: as `load`.
    """
    try:
        with path.open("rb") as stream:
            found = _TensorsOnly(stream).load()
    except Exception as error:
        raise _unreadable(path, error) from error
    return _state_dict(path, found)


def _unreadable(path: Path, error: Exception) -> WeightsError:
    if isinstance(error, WeightsError):
        return WeightsError(f"{path}: {error}")
    return WeightsError(f"{path} cannot be read: {one_line(error, limit=200)}; fetch it again")


def _state_dict(path: Path, found: Any) -> dict[str, np.ndarray]:
    if not isinstance(found, dict) or not all(isinstance(v, np.ndarray) for v in found.values()):
        raise WeightsError(f"{path}: expected a state dict of tensors; save the model's state_dict")
    return {str(name): tensor for name, tensor in found.items()}


class _TensorsOnly(pickle.Unpickler):
    """An unpickler for which only tensors exist."""

    def __init__(self, stream: Any, read: Callable[[str], bytes] | None = None) -> None:
        """`read` gives a buffer by its key, where the file has buffers beside the pickle."""
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
        if (module, name) == ("torch.storage", "_load_from_bytes"):
            return _storage
        if module == "torch" and name in _STORAGES:
            return np.dtype(_STORAGES[name])
        raise WeightsError(
            f"its pickle refers to {module}.{name}, which is no part of a checkpoint; "
            "do not trust this file"
        )

    def persistent_load(self, pid: Any) -> Any:
        """A storage: the buffer it names, as a flat array."""
        if self._read is None:
            raise WeightsError("its pickle refers to a buffer that is not in it")
        _, dtype, key, _, size = pid
        return np.frombuffer(self._read(str(key)), dtype, count=size)


class _StorageType(_TensorsOnly):
    """For the pickle of a lone storage, whose elements come after it."""

    def persistent_load(self, pid: Any) -> Any:
        """Its dtype and number of elements."""
        _, dtype, _, _, size, _ = pid
        return dtype, size


def _storage(data: bytes) -> np.ndarray:
    """A buffer of torch.save's older form: pickles that describe it, then its elements."""
    stream = io.BytesIO(data)
    begin = [_TensorsOnly(stream).load() for _ in _OLDER_FORM]
    machine = _TensorsOnly(stream).load()
    if begin != _OLDER_FORM or not machine["little_endian"]:
        raise WeightsError("a buffer is not of the form that torch.save gave it; fetch it again")
    dtype, size = _StorageType(stream).load()
    _TensorsOnly(stream).load()  # its key, of no use here
    stream.read(8)  # its size once more
    return np.frombuffer(data, dtype, count=size, offset=stream.tell())


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
