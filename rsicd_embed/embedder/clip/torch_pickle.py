"""Safe reader of `pytorch_model.bin` without torch, using a restricted unpickler.

The file is a zip of a pickle and raw buffers, as written by torch.save since 1.6. The pickle may
refer only to the names below, none of which executes code from the file. State dicts written by
`pickle` itself are supported too; their buffers have torch.save's older format.
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
# Magic number and version at the beginning of a buffer in torch.save's older format.
_OLDER_FORMAT = [0x1950A86A20F9469CFC6C, 1001]


def load(path: Path) -> dict[str, np.ndarray]:
    """Reads the tensors of a file written by torch.save, by name.

    Raises:
        WeightsError: the file has another format, or its pickle refers to anything but tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            (name,) = (n for n in archive.namelist() if n.endswith("/data.pkl"))
            root = name.removesuffix("data.pkl")
            with archive.open(name) as stream:
                content = _TensorsOnly(stream, lambda key: archive.read(f"{root}data/{key}")).load()
    except zipfile.BadZipFile as error:
        raise WeightsError(
            f"{path}: expected a zip file written by torch 1.6 or later, found another format; "
            "save it again as model.safetensors"
        ) from error
    except Exception as error:  # unpickling may raise any exception
        raise _unreadable(path, error) from error
    return _state_dict(path, content)


def load_plain(path: Path) -> dict[str, np.ndarray]:
    """Reads the tensors of a state dict written by `pickle`, by name.

    Raises:
        WeightsError: as in `load`.
    """
    try:
        with path.open("rb") as stream:
            content = _TensorsOnly(stream).load()
    except Exception as error:
        raise _unreadable(path, error) from error
    return _state_dict(path, content)


def _unreadable(path: Path, error: Exception) -> WeightsError:
    if isinstance(error, WeightsError):
        return WeightsError(f"{path}: {error}")
    return WeightsError(f"{path} cannot be read: {one_line(error, limit=200)}; download it again")


def _state_dict(path: Path, content: Any) -> dict[str, np.ndarray]:
    if not isinstance(content, dict) or not all(
        isinstance(value, np.ndarray) for value in content.values()
    ):
        raise WeightsError(f"{path}: expected a state dict of tensors; save the model's state_dict")
    return {str(name): tensor for name, tensor in content.items()}


class _TensorsOnly(pickle.Unpickler):
    """An unpickler that can construct only tensors."""

    def __init__(self, stream: Any, read: Callable[[str], bytes] | None = None) -> None:
        """`read` returns a buffer by its key, for files with buffers beside the pickle."""
        super().__init__(stream)
        self._read = read

    def find_class(self, module: str, name: str) -> Any:
        """Maps a name in the pickle to a safe replacement."""
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
            f"its pickle refers to {module}.{name}, which does not belong in a checkpoint; "
            "do not trust this file"
        )

    def persistent_load(self, pid: Any) -> Any:
        """Returns a storage: the buffer with the given key, as a flat array."""
        if self._read is None:
            raise WeightsError("its pickle refers to a buffer outside the file")
        _, dtype, key, _, size = pid
        return np.frombuffer(self._read(str(key)), dtype, count=size)


class _StorageType(_TensorsOnly):
    """For the pickle of a bare storage, which precedes its elements."""

    def persistent_load(self, pid: Any) -> Any:
        """Returns its dtype and number of elements."""
        _, dtype, _, _, size, _ = pid
        return dtype, size


def _storage(data: bytes) -> np.ndarray:
    """Reads a buffer in torch.save's older format: pickles that describe it, then its elements."""
    stream = io.BytesIO(data)
    start = [_TensorsOnly(stream).load() for _ in _OLDER_FORMAT]
    machine = _TensorsOnly(stream).load()
    if start != _OLDER_FORMAT or not machine["little_endian"]:
        raise WeightsError("a buffer does not have torch.save's format; download the file again")
    dtype, size = _StorageType(stream).load()
    _TensorsOnly(stream).load()  # the key, which is not needed
    stream.read(8)  # the size again
    return np.frombuffer(data, dtype, count=size, offset=stream.tell())


def _tensor(
    storage: np.ndarray, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> np.ndarray:
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 in size:
        return np.empty(size, storage.dtype)
    if offset < 0 or min(stride, default=0) < 0 or last >= len(storage):
        raise WeightsError("a tensor extends beyond its storage; download the file again")
    strides = [step * storage.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], size, strides, writeable=False)


def _parameter(data: np.ndarray, *_: Any) -> np.ndarray:
    return data
