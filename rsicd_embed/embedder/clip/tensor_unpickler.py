"""A restricted unpickler that constructs only tensors, as NumPy arrays.

A pickle may refer only to the names in `TensorsOnly.find_class`, none of which executes code from
the file.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable
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
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
# Magic number and version at the beginning of a buffer in torch.save's older format.
_OLDER_FORMAT = [0x1950A86A20F9469CFC6C, 1001]

Buffers = Callable[[str], bytes]
"""Returns a buffer of the file by its key."""


class _Storage:
    """A buffer that is read from the file when it is first needed.

    A training checkpoint is mostly its optimiser's state, which is never read.
    """

    def __init__(self, read: Callable[[], bytes], dtype: Any, size: int) -> None:
        self._read, self.dtype, self.size = read, dtype, size

    def array(self) -> np.ndarray:
        """The flat array."""
        return np.frombuffer(self._read(), self.dtype, count=self.size)


class StoredTensor:
    """A view of a storage, which becomes an array on demand."""

    def __init__(
        self, storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...]
    ) -> None:
        self._view = storage, offset, size, stride

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        storage, offset, size, stride = self._view
        return _strided(storage.array(), offset, size, stride)


class TensorsOnly(pickle.Unpickler):
    """An unpickler that can construct only tensors."""

    def __init__(self, stream: Any, read: Buffers | None = None) -> None:
        """`read` is for files with buffers beside the pickle."""
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
        """Returns the storage with the given key."""
        read = self._read
        if read is None:
            raise WeightsError("its pickle refers to a buffer outside the file")
        _, dtype, key, _, size = pid
        return _Storage(lambda: read(str(key)), dtype, size)


class _StorageType(TensorsOnly):
    """For the pickle of a bare storage, which precedes its elements."""

    def persistent_load(self, pid: Any) -> Any:
        """Returns its dtype and number of elements."""
        _, dtype, _, _, size, _ = pid
        return dtype, size


def _storage(data: bytes) -> np.ndarray:
    """Reads a buffer in torch.save's older format: pickles that describe it, then its elements."""
    stream = io.BytesIO(data)
    start = [TensorsOnly(stream).load() for _ in _OLDER_FORMAT]
    machine = TensorsOnly(stream).load()
    if start != _OLDER_FORMAT or not machine["little_endian"]:
        raise WeightsError("a buffer does not have torch.save's format; download the file again")
    dtype, size = _StorageType(stream).load()
    TensorsOnly(stream).load()  # the key, which is not needed
    stream.read(8)  # the size again
    return np.frombuffer(data, dtype, count=size, offset=stream.tell())


def _tensor(
    storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> Any:
    if isinstance(storage, _Storage):
        return StoredTensor(storage, offset, size, stride)
    return _strided(storage, offset, size, stride)


def _strided(
    storage: np.ndarray, offset: int, size: tuple[int, ...], stride: tuple[int, ...]
) -> np.ndarray:
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 in size:
        return np.empty(size, storage.dtype)
    if offset < 0 or min(stride, default=0) < 0 or last >= len(storage):
        raise WeightsError("a tensor extends beyond its storage; download the file again")
    strides = [step * storage.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], size, strides, writeable=False)


def _parameter(data: Any, *_: Any) -> Any:
    return data
