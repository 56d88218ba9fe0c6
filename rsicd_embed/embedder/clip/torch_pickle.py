"""Safe reader of PyTorch's checkpoints without torch, using a restricted unpickler.

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
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
# Magic number and version at the beginning of a buffer in torch.save's older format.
_OLDER_FORMAT = [0x1950A86A20F9469CFC6C, 1001]
# Where training checkpoints have the model's state dict.
_STATE_DICTS = ("state_dict", "model_state_dict", "model", "module")
_OPTIMIZER = ("optimizer", "optimizer_state_dict", "optimizer_states")
_PREFIX = "module."  # added by DistributedDataParallel

Buffers = Callable[[str], bytes]
"""Returns a buffer of the file by its key."""


def load(path: Path) -> dict[str, np.ndarray]:
    """Reads the tensors of a file written by torch.save or torch.jit.save, by name.

    The state dict of a training checkpoint is found inside it, and the prefix of a distributed
    model is removed. Nothing in the file is executed.

    Raises:
        WeightsError: the file has another format, or its pickle refers to anything but tensors.
    """
    from rsicd_embed.embedder.clip.formats import torchscript

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
        isinstance(value, np.ndarray | _StoredTensor) for value in content.values()
    ):
        raise WeightsError(f"{path}: expected a state dict of tensors; save the model's state_dict")
    tensors = {str(name): tensor for name, tensor in content.items()}
    if tensors and all(name.startswith(_PREFIX) for name in tensors):
        return {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items()}
    return tensors


class _Storage:
    """A buffer that is read from the file when it is first needed.

    A training checkpoint is mostly its optimiser's state, which is never read.
    """

    def __init__(self, read: Callable[[], bytes], dtype: Any, size: int) -> None:
        self._read, self.dtype, self.size = read, dtype, size

    def array(self) -> np.ndarray:
        """The flat array."""
        return np.frombuffer(self._read(), self.dtype, count=self.size)


class _StoredTensor:
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
        return _StoredTensor(storage, offset, size, stride)
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
